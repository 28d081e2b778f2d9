"""The digest of the code that computes a stage: its module and all that it imports of this project.

What counts is the syntax tree without docstrings, so comments, formatting and line numbers do not, and a changed
helper function anywhere below does. The sources are read, not imported: a cache hit loads no torch.
"""

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from preflow.fingerprints.code import source_text
from preflow.fingerprints.files import code_essence, json_digest

#: Packages whose code is part of an identity.
PACKAGES = ("preflow", "expectations")
#: Modules that compute no number. Settings and specifications are part of an identity by their values; advice, errors
#: observers and the store's tool only talk; the root package holds a version number.
PLUMBING = frozenset(
    {
        "preflow",
        "preflow.config.advice",
        "preflow.config",
        "preflow.errors",
        "preflow.environment",
        "preflow.hub",
        "preflow.observer",
        "preflow.config.loading",
        "preflow.config.base",
        "preflow.fingerprints.code",
        "preflow.specs",
        "preflow.logprobs.cli",
        "preflow.config.validation",
    }
)


@cache
def code_digest(module: str) -> str:
    """SHA-256 over a module's code and that of every project module it imports, directly or not."""
    return json_digest({name: code_essence(source) for name, source in sorted(closure(module).items())})


def closure(module: str, roots: tuple[tuple[str, Path], ...] | None = None) -> dict[str, str]:
    """The sources of a module and of every project module it imports, by module name.

    Args:
        module: Dotted name of the module to start from.
        roots: Folder of each package that counts; those of ``PACKAGES`` where not given.

    Raises:
        ImportError: The module to start from has no source file.
        CodeChangedError: A source file was changed since this process started.
    """
    folders = dict(roots or _package_folders())
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source_file(name, folders)
        if path is None or name in sources or name in PLUMBING:
            continue
        sources[name] = path.read_text(encoding="utf-8") if roots else source_text(path)
        waiting.extend(_imports(ast.parse(sources[name]), name, is_package=path.name == "__init__.py"))
    if module not in sources:
        raise ImportError(f"{module} has no source file below {', '.join(map(str, folders.values()))}")
    return sources


def _package_folders() -> tuple[tuple[str, Path], ...]:
    specs = {name: importlib.util.find_spec(name) for name in PACKAGES}
    return tuple((name, Path(spec.origin).parent) for name, spec in specs.items() if spec and spec.origin)


def _source_file(name: str, folders: dict[str, Path]) -> Path | None:
    package, *rest = name.split(".")
    if package not in folders:
        return None
    base = folders[package].joinpath(*rest)
    candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((path for path in candidates if path.is_file()), None)


def _imports(tree: ast.Module, name: str, *, is_package: bool) -> Iterator[str]:
    """Names that may be modules; an attribute of a module is one too, and has no source file."""
    skipped = {id(node) for block in _type_checking_blocks(tree) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, name, is_package=is_package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _origin(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    up = node.level - (1 if is_package else 0)
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def _type_checking_blocks(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            yield from node.body
