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
        """A file by its path from the folder that holds the packages: ``preflow/specs/__init__.py``."""
        package, _, rest = name.partition("/")
        return self.folders[package] / rest

    @contextmanager
    def edited(self, name: str, before: str, after: str) -> Iterator[None]:
        """The copy with one text replaced by another, wherever it occurs in a file or package; it must occur."""
        place = self.file(name)
        files = sorted(place.rglob("*.*")) if place.is_dir() else [place]
        code = [file for file in files if file.suffix in (".py", ".txt", ".css", ".j2")]
        texts = {file: text for file in code if before in (text := file.read_text(encoding="utf-8"))}
        assert texts, f"{name} has no {before!r}: write this edit against what it says now"
        for file, text in texts.items():
            file.write_text(text.replace(before, after), encoding="utf-8")
        try:
            yield
        finally:  # one edit that fails its test must not fail those of the others
            for file, text in texts.items():
                file.write_text(text, encoding="utf-8")

    @contextmanager
    def moved(self, module: str, new: str) -> Iterator[None]:
        """The copy with a module under another name, wherever it is named."""
        old_file, new_file = (self.file(f"{name.replace('.', '/')}.py") for name in (module, new))
        files = [file for folder in self.folders.values() for file in folder.rglob("*.py")]
        texts = {file: file.read_text(encoding="utf-8") for file in files}
        (parent, _, name), (new_parent, _, new_name) = module.rpartition("."), new.rpartition(".")
        for file, text in texts.items():
            from_package = text.replace(f"from {parent} import {name}\n", f"from {new_parent} import {new_name}\n")
            file.write_text(from_package.replace(module, new), encoding="utf-8")
        old_file.rename(new_file)
        yield
        new_file.unlink()
        for file, text in texts.items():
            file.write_text(text, encoding="utf-8")

    def graph(self) -> CodeGraph:
        """The copy's code as it is now."""
        return CodeGraph(SourceTree(self.folders, as_imported=False))

    def digests(self) -> dict[str, str]:
        """Of the code of every stage, of those in ranks of a launch, and of what computes a value of the store."""
        graph = self.graph()
        digests = {stage: graph.digest(*roots(stage, launches=False)) for stage in STAGES}
        digests |= {name: graph.digest(*roots(stage, launches=True)) for name, stage in LAUNCHED.items()}
        return {**digests, STORE: graph.digest(*computing())}
