"""The digest of the code that this process runs, remembered for as long as no source file changes."""

import json
import sys
from collections.abc import Sequence
from functools import cache

from preflow.environment import digests_folder
from preflow.fingerprints.code.graph import CodeGraph
from preflow.fingerprints.code.sources import SourceTree, imported_tree
from preflow.fingerprints.files import file_digest, json_digest, read_record, replace_file


def code_digest(*roots: str, packages: Sequence[str] = ("preflow",)) -> str:
    """SHA-256 of all code and data that some functions or classes reach.

    The sources are read, not imported: a cache hit loads no torch.

    Args:
        *roots: The functions and classes, each as ``module:name``.
        packages: Top-level packages of which code counts.

    Raises:
        ImportError: A root is not there.
        CodeChangedError: A file that counts was changed since this process started.
    """
    return _digests(tuple(packages)).digest(roots)


class _Digests:
    """Digests of one tree, and a record of them under the digest of all its files: taking it apart takes a second."""

    def __init__(self, tree: SourceTree) -> None:
        self._graph, self._tree, self._files = CodeGraph(tree), tree, tree.all_files()
        whole = json_digest([sys.version_info[:2], {name: file_digest(path) for name, path in self._files.items()}])
        self._record = digests_folder() / f"code-{whole[:32]}.json"
        self._known = read_record(self._record)

    def digest(self, roots: tuple[str, ...]) -> str:
        name = " ".join(roots)
        if name not in self._known:
            reached = self._graph.reached(*roots)
            names = {path: name for name, path in self._files.items()}
            self._known[name] = {"digest": reached.digest, "files": [names[path] for path in reached.files]}
            replace_file(self._record, json.dumps(read_record(self._record) | self._known))
        for file in self._known[name]["files"]:
            self._tree.require_as_imported(self._files[file])
        return str(self._known[name]["digest"])


@cache
def _digests(packages: tuple[str, ...]) -> _Digests:
    return _Digests(imported_tree(*packages))
