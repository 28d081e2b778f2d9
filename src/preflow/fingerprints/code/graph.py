"""The digest of the code behind a function: of every definition that it reaches, wherever that stands.

What counts is the syntax tree of those definitions, in which a name of the project stands as the digest of what it
names (a Merkle tree; definitions that need each other are digested together). Comments, docstrings, annotations, texts
of errors, notes and log lines and what a ``UserText`` is made of do not count, nor where a definition stands or what a
function or a constant is called. A definition that nothing reaches does not, but what importing its module does. Data
files beside the modules that are reached count.

Where the source does not say what is meant, more counts than may be needed: a module that is handed on as a value, or
named by a text, counts as a whole, as every module does where code imports by a computed name; a method or property of
the settings counts wherever an attribute of its name is read.

What cannot be known: that an argument of a dropped text does something besides (takes from an iterator, say); that the
text of an error or a ``UserText`` is read again to decide something; that a function is asked for its name; that a
library reads the annotations of a class without bases. Another name for a class, a method, a parameter or a local
counts as a change, and so does another wording of a plain text that a function returns, though only people read it.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from preflow.fingerprints.code.merkle import Reference, Resolved, add_digests
from preflow.fingerprints.code.modules import Module, read_module
from preflow.fingerprints.code.not_counted import ERRORS, NOT_COUNTED, SETTINGS
from preflow.fingerprints.code.sources import SourceTree
from preflow.fingerprints.code.writing import EFFECTS, EVERYTHING, Written, write
from preflow.fingerprints.files import file_digest, json_digest


@dataclass(frozen=True)
class Reached:
    """What some functions or classes reach.

    Attributes:
        digest: SHA-256 of all that counts.
        modules: Modules of which a definition is reached.
        outside: What the definitions use of other packages, dotted.
        files: Sources that were looked into, and data files.
    """

    digest: str
    modules: frozenset[str]
    outside: frozenset[str]
    files: tuple[Path, ...]


class CodeGraph:
    """The definitions of a source tree, read as they are needed."""

    def __init__(self, tree: SourceTree, not_counted: Iterable[str] = NOT_COUNTED) -> None:
        """Read nothing yet.

        Args:
            tree: The packages that count.
            not_counted: Modules, and packages with all below them, that are part of no identity.
        """
        self.tree, self._not_counted = tree, frozenset(not_counted)
        self._modules: dict[str, Module | None] = {}
        self._resolved: dict[Reference, Resolved] = {}
        self._digests: dict[Reference, str] = {}
        self._reached: dict[tuple[str, ...], Reached] = {}
        self._settings: dict[str, list[Reference]] | None = None
        self._data: dict[Path, str] = {}

    def digest(self, *roots: str) -> str:
        """SHA-256 of all that some functions or classes reach, each given as ``module:name``.

        Raises:
            ImportError: A root is not there.
            CodeChangedError: A file that counts was changed since this process started.
        """
        reached = self.reached(*roots)
        for path in reached.files:
            self.tree.require_as_imported(path)
        return reached.digest

    def reached(self, *roots: str) -> Reached:
        """What some functions or classes reach."""
        if roots not in self._reached:
            self._reached[roots] = self._reach([_reference(root) for root in roots])
        return self._reached[roots]

    def module(self, name: str) -> Module | None:
        """A module taken apart; none where there is no source file of that name."""
        if name not in self._modules:
            path = self.tree.file(name)
            if path is not None:
                self.tree.require_as_imported(path)
                text = path.read_text(encoding="utf-8")
                self._modules[name] = read_module(text, name, is_package=path.name == "__init__.py")
            else:
                self._modules[name] = None
        return self._modules[name]

    def counts(self, module: str) -> bool:
        """Whether a module's code can be part of an identity."""
        parts = module.split(".")
        return module not in self._not_counted and not any(
            ".".join(parts[:end]) in self._not_counted for end in range(2, len(parts))
        )

    def _reach(self, roots: list[Reference]) -> Reached:
        for root in roots:
            module = self.module(root.module)
            if module is None or root.name not in module.definitions:
                raise ImportError(f"{root.module} defines no {root.name}")
        found: dict[Reference, Resolved] = {}
        touched: set[str] = set()
        waiting = list(roots)
        while waiting:
            reference = waiting.pop()
            if reference in found:
                continue
            found[reference] = resolved = self._resolve(reference)
            waiting += resolved.references
            waiting += self._run_by({reference.module, *resolved.imported}, touched)
        modules = frozenset(each.module for each in found) - {EVERYTHING}
        add_digests(self._digests, found)
        data = self._data_digests(modules)
        whole = {
            "roots": [self._digests[root] for root in roots],
            "effects": sorted({self._digests[each] for each in found if each.name == EFFECTS}),
            "data": sorted([path.name, digest] for path, digest in data.items()),
        }
        outside = frozenset(name for resolved in found.values() for name in resolved.outside)
        sources = {path for path in map(self.tree.file, modules | touched) if path is not None}
        return Reached(json_digest(whole), modules, outside, (*sorted(sources), *data))

    def _run_by(self, names: Iterable[str], touched: set[str]) -> Iterator[Reference]:
        """What importing some modules does, and the modules that these import."""
        waiting = [*names]
        while waiting:
            name = waiting.pop()
            module = self.module(name)
            parent = name.rpartition(".")[0]
            if parent:
                waiting += [parent] if parent not in touched else []
            if module is None or name in touched or not self.counts(name):
                continue
            touched.add(name)
            waiting += module.imported
            if module.effects:
                yield Reference(name, EFFECTS)

    def _resolve(self, reference: Reference) -> Resolved:
        if reference not in self._resolved:
            self._resolved[reference] = self._resolve_anew(reference)
        return self._resolved[reference]

    def _resolve_anew(self, reference: Reference) -> Resolved:
        if reference.module == EVERYTHING:
            names = [name for name in self.tree.modules() if self.counts(name)]
            return Resolved(also={Reference(name, EVERYTHING) for name in names})
        module = self.module(reference.module)
        assert module is not None, f"{reference} was found by its module"
        if reference.name == EVERYTHING:
            parts = [part for name in sorted(module.definitions) for part in (name, Reference(module.name, name))]
            whole = Resolved(parts)
            for name, path in sorted(module.imports.items()) if module.is_package else ():
                whole.parts += [name, *self._meant(path, module.name, whole)]
            for path in module.starred:
                whole.parts += self._meant(path, module.name, whole)
            return whole
        if reference.name not in module.written:
            module.written[reference.name] = write(module, reference.name)
        written = module.written[reference.name]
        resolved = Resolved(imported=written.imported)
        for part in written.parts:
            resolved.parts += [part] if isinstance(part, str) else self._meant(part.path, module.name, resolved)
        resolved.also |= self._perhaps_meant(written, module.name, resolved)
        return resolved

    def _perhaps_meant(self, written: Written, user: str, resolved: Resolved) -> set[Reference]:
        """What a definition may refer to besides: by names that are local too, by attributes, by texts."""
        found: list[str | Reference] = []
        for use in written.also:
            everything = Reference(EVERYTHING, EVERYTHING)
            found += [everything] if use.path == EVERYTHING else self._meant(use.path, user, resolved)
        for name in written.attributes & self._settings_methods().keys():
            found += self._settings_methods()[name]
        for text in written.attributes:
            name = text.partition(":")[0]
            if "." in name and self.tree.file(name) is not None and self.counts(name):
                found.append(Reference(name, EVERYTHING))
        return {each for each in found if isinstance(each, Reference)}

    def _meant(self, path: str, user: str, resolved: Resolved) -> list[str | Reference]:
        """What a path stands for in a module, and the names that are left of it."""
        names = path.split(".")
        if self.tree.file(names[0]) is None:
            resolved.outside.add(path)
            return [f"{path} "]
        taken = 1
        while taken < len(names) and self.tree.file(".".join(names[: taken + 1])) is not None:
            taken += 1
        home, left = ".".join(names[:taken]), names[taken:]
        module = self.module(home)
        assert module is not None, f"{home} was found by its file"
        name = left[0] if left else None
        if name is not None and name not in module.definitions and name in module.imports:
            return self._meant(".".join((module.imports[name], *left[1:])), user, resolved)
        if not self.counts(home) and not self._is_followed(user, module, name):
            return [f"not counted {'.'.join(left)} {self._caught_as(module, name)}"]
        if name is None or name not in module.definitions:
            return [Reference(home, EVERYTHING), f".{'.'.join(left)} "]
        return [Reference(home, name), f".{'.'.join(left[1:])} "]

    def _caught_as(self, module: Module, name: str | None) -> list[str]:
        """Names of the classes by which an error of the project is caught; none for anything else."""
        statements = module.definitions.get(name or "", []) if module.name in ERRORS else []
        found = []
        for base in getattr(statements[0], "bases", ()) if statements else ():
            path = ast.unparse(base)
            found += [path, *self._caught_as(module, path)]
        return found

    def _is_followed(self, user: str, module: Module, name: str | None) -> bool:
        """Whether what is named counts though its module does not.

        What a method of the settings computes with does, and what a function that was asked for uses of its own module.
        """
        statements = module.definitions.get(name or "", [])
        if not _below(user, SETTINGS):
            return bool(statements) and user == module.name
        is_class = any(hasattr(statement, "bases") for statement in statements)
        return bool(statements) and not is_class and _below(module.name, SETTINGS)

    def _settings_methods(self) -> dict[str, list[Reference]]:
        """Methods and properties of settings and specifications, by name."""
        if self._settings is None:
            self._settings = {}
            for name in self.tree.modules():
                module = self.module(name) if _below(name, SETTINGS) else None
                for holder, (first, *_) in module.definitions.items() if module is not None else ():
                    for each in getattr(first, "body", ()) if hasattr(first, "bases") else ():
                        if hasattr(each, "args") and not any("validator" in d for d in _decorators(each)):
                            at = Reference(name, f"{holder}.{each.name}")
                            self._settings.setdefault(each.name, []).append(at)
        return self._settings

    def _data_digests(self, modules: Iterable[str]) -> dict[Path, str]:
        paths = {path for module in modules for path in self.tree.data_files(module)}
        for path in paths - self._data.keys():
            self.tree.require_as_imported(path)
            self._data[path] = file_digest(path)
        return {path: self._data[path] for path in sorted(paths)}


def _reference(root: str) -> Reference:
    module, _, name = root.partition(":")
    return Reference(module, name)


def _below(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _decorators(function: ast.FunctionDef) -> list[str]:
    return [ast.unparse(each) for each in function.decorator_list]
