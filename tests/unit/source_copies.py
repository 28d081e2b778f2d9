"""A copy of the source tree whose files are edited: what the identities of such code would be."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import expectations
import preflow
import tasks
from preflow.fingerprints.code import CodeGraph, SourceTree
from preflow.logprobs.identity import computing
from preflow.specs import STAGES
from tasks.runtime.caching import roots

_MODULES = {"preflow": preflow, "expectations": expectations, "tasks": tasks}
#: The log-prob store, beside the stages.
STORE = "store"
#: Stages that run in ranks of a launch count more.
LAUNCHED = {f"launched {stage}": stage for stage, info in STAGES.items() if info.launches}


class SourceCopy:
    """The packages of the project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folders = {name: folder / name for name in _MODULES}
        for name, module in _MODULES.items():
            own = Path(str(module.__file__)).parent
            shutil.copytree(own, self.folders[name], ignore=shutil.ignore_patterns("__pycache__"))

    def file(self, name: str) -> Path:
        """A file by its path from the folder that holds the packages: ``preflow/specs.py``."""
        package, _, rest = name.partition("/")
        return self.folders[package] / rest

    @contextmanager
    def edited(self, name: str, before: str, after: str) -> Iterator[None]:
        """The copy with one text replaced by another, wherever it stands in a file; it must stand there."""
        file = self.file(name)
        text = file.read_text(encoding="utf-8")
        assert before in text, f"{name} has no {before!r}: write this edit against what it says now"
        file.write_text(text.replace(before, after), encoding="utf-8")
        yield
        file.write_text(text, encoding="utf-8")

    def graph(self) -> CodeGraph:
        """The code as it stands in the copy now."""
        return CodeGraph(SourceTree(self.folders, as_imported=False))

    def digests(self) -> dict[str, str]:
        """Of the code of every stage, of those in ranks of a launch, and of what computes a value of the store."""
        graph = self.graph()
        digests = {stage: graph.digest(*roots(stage, launches=False)) for stage in STAGES}
        digests |= {name: graph.digest(*roots(stage, launches=True)) for name, stage in LAUNCHED.items()}
        return {**digests, STORE: graph.digest(*computing())}
