"""Source files of the project, as this process imported them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import preflow
from preflow.errors import CodeChangedError

#: Files beside the modules that decide nothing.
_NO_DATA = frozenset({"py.typed"})


def require_as_imported(path: Path) -> None:
    """Raise if a file of this project may differ from what this process imported.

    A file that was written after the start may differ from what was imported, and what it computes would be kept under
    the new code's name, or the other way round.

    Raises:
        CodeChangedError: The file was changed since this process started.
    """
    stat = path.stat()
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    if changed > preflow.STARTED_NS:
        when = datetime.fromtimestamp(changed // 10**9)
        raise CodeChangedError(
            f"{path} was changed at {when:%H:%M}, after this run started: what runs is no longer what the file says. "
            "Start again; finished stages whose code is the same are cached"
        )


@dataclass(frozen=True)
class SourceTree:
    """The packages whose code is digested.

    Attributes:
        folders: Folder of each top-level package.
        as_imported: Whether the files must be those that this process imported; a copy of the tree need not be.
    """

    folders: Mapping[str, Path]
    as_imported: bool = True
    _files: dict[str, Path | None] = field(default_factory=dict, repr=False, compare=False)
    _data: dict[Path, list[Path]] = field(default_factory=dict, repr=False, compare=False)

    def file(self, module: str) -> Path | None:
        """The source file of a module; None where there is none of that name."""
        if module not in self._files:
            package, *rest = module.split(".")
            found = None
            if package in self.folders:
                base = self.folders[package].joinpath(*rest)
                candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))
                found = next((path for path in candidates if path.is_file()), None)
            self._files[module] = found
        return self._files[module]

    def modules(self, *packages: str) -> list[str]:
        """Names of all modules, or of those of some packages, sorted."""
        names = []
        for package in packages or self.folders:
            folder = self.folders[package]
            for path in folder.rglob("*.py"):
                parts = path.relative_to(folder).with_suffix("").parts
                names.append(".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts))))
        return sorted(names)

    def all_files(self) -> dict[str, Path]:
        """Every file of the packages, by package and place below it."""
        return {
            f"{package}/{path.relative_to(folder).as_posix()}": path
            for package, folder in self.folders.items()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix != ".pyc"
        }

    def data_files(self, module: str) -> list[Path]:
        """What is beside a module and is no code: its package's data, in folders that are no packages too."""
        path = self.file(module)
        if path is None:
            return []
        if path.parent not in self._data:
            self._data[path.parent] = sorted(_data_below(path.parent))
        return self._data[path.parent]

    def require_as_imported(self, path: Path) -> None:
        """As the function, for the files of a tree that must be as they were imported."""
        if self.as_imported:
            require_as_imported(path)


def _data_below(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir():
        if path.is_dir():
            if path.name != "__pycache__" and not (path / "__init__.py").exists():
                found += _data_below(path)
        elif path.suffix not in (".py", ".pyc") and path.name not in _NO_DATA:
            found.append(path)
    return found


def imported_tree(*packages: str) -> SourceTree:
    """Some top-level packages, where this process imports them from."""
    specs = {name: find_spec(name) for name in packages}
    return SourceTree({name: Path(spec.origin).parent for name, spec in specs.items() if spec and spec.origin})
