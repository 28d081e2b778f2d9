"""A module taken apart: its definitions, what its names stand for, and what importing it does besides."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

#: Decorators that only wrap what they decorate. Another one may note it down somewhere, so that it counts unasked.
_WRAPPING = frozenset(
    [
        *("dataclass", "contextmanager", "cache", "lru_cache", "no_grad", "inference_mode", "runtime_checkable"),
        *("wraps", "task"),
    ]
)
#: Functions by which module constants are made that change nothing elsewhere. Classes count among them.
_MAKING = frozenset(
    [
        *("frozenset", "set", "dict", "list", "tuple", "range", "len", "min", "max", "sum", "sorted"),
        *("int", "float", "str", "items", "keys", "values", "fromkeys", "get", "split", "join"),
        *("compile", "field", "namedtuple", "timedelta", "time_ns", "getLogger"),
    ]
)
#: Where these are named, annotations are read at run time and count.
_READ_ANNOTATIONS = ("singledispatch", "validate_call", "get_type_hints", "__annotations__")
_BLOCKS = (ast.If, ast.Try, ast.For, ast.While, ast.With)


@dataclass
class Module:
    """One source file.

    Attributes:
        name: Dotted.
        is_package: Whether it is a package's ``__init__``.
        definitions: Top-level functions, classes and constants: name to the statements that make it.
        imports: Top-level names to the dotted path that each was imported from.
        starred: Modules from which everything is imported.
        imported: Dotted names that importing the module imports; some are attributes and no modules.
        effects: Statements that do something when the module is imported, in order: calls, changes of other objects,
            blocks. What they do counts even where nothing names it.
        reads_annotations: Whether annotations may do something.
        written: Definitions that ``writing`` has written already, by name.
    """

    name: str
    is_package: bool
    reads_annotations: bool = False
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    starred: list[str] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)
    effects: list[ast.stmt] = field(default_factory=list)
    written: dict[str, Any] = field(default_factory=dict, repr=False)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, as ``ast.walk``, which takes four times as long."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        for value in node.__dict__.values():
            if value.__class__ is list:
                waiting += [each for each in value if isinstance(each, ast.AST)]
            elif isinstance(value, ast.AST):
                waiting.append(value)


def class_statements(cls: ast.ClassDef) -> Iterator[ast.AST]:
    """What makes the attributes of a class: the nodes of its body without those inside its methods."""
    waiting: list[ast.AST] = [*cls.body]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


@lru_cache(maxsize=1024)
def read_module(text: str, name: str, *, is_package: bool) -> Module:
    """Take a source text apart."""
    module = Module(name, is_package, any(each in text for each in _READ_ANNOTATIONS))
    for statement in ast.parse(text).body:
        _take(module, statement)
    return module


def _take(module: Module, statement: ast.stmt) -> None:
    match statement:
        case ast.Import() | ast.ImportFrom():
            _take_import(module, statement)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            module.definitions.setdefault(statement.name, []).append(statement)
            if any(_last_name(each) not in _WRAPPING for each in statement.decorator_list):
                module.effects.append(statement)
        case ast.Assign() | ast.AnnAssign():
            if statement.value is None:
                return
            names = _stored_names(statement)
            for each in names:
                module.definitions.setdefault(each, []).append(statement)
            if not names or not _only_makes(statement.value):
                module.effects.append(statement)
        case ast.Expr(value=ast.Constant()) | ast.Pass():
            pass
        case ast.If() if is_typing_block(statement) or ast.unparse(statement.test).startswith("__name__ =="):
            pass
        case _:
            _take_block(module, statement)


def _take_block(module: Module, statement: ast.stmt) -> None:
    """A block counts as a whole: for each name that it may bind, and as something that importing does."""
    module.effects.append(statement)
    if not isinstance(statement, _BLOCKS):
        return
    for node in walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _take_import(module, node)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            module.definitions.setdefault(node.name, []).append(statement)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            module.definitions.setdefault(node.id, []).append(statement)


def _take_import(module: Module, statement: ast.Import | ast.ImportFrom) -> None:
    module.imports |= imported_names(statement, module)
    module.imported += imported_modules(statement, module)
    if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
        module.starred.append(_origin(statement, module))


def is_typing_block(statement: ast.stmt) -> bool:
    """Whether a statement is ``if TYPE_CHECKING:``, which never runs."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imported_names(statement: ast.Import | ast.ImportFrom, module: Module) -> dict[str, str]:
    """The names that an import binds, and the dotted path that each stands for."""
    if isinstance(statement, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]: alias.name if alias.asname else alias.name.partition(".")[0]
            for alias in statement.names
        }
    origin = _origin(statement, module)
    return {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in statement.names if alias.name != "*"}


def imported_modules(statement: ast.Import | ast.ImportFrom, module: Module) -> Iterator[str]:
    """Dotted names that may be modules which an import runs."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    origin = _origin(statement, module)
    yield origin
    yield from (f"{origin}.{alias.name}" for alias in statement.names)


def _origin(statement: ast.ImportFrom, module: Module) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.name.split(".")
    kept = parts[: len(parts) - statement.level + (1 if module.is_package else 0)]
    return ".".join([*kept, *([statement.module] if statement.module else [])])


def _stored_names(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    """Names that an assignment binds; none where it changes something that is there already."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    nodes = [node for target in targets for node in walk(target)]
    if any(isinstance(node, ast.Attribute | ast.Subscript) for node in nodes):
        return []
    return [node.id for node in nodes if isinstance(node, ast.Name)]


def _only_makes(value: ast.expr) -> bool:
    """Whether a constant's value is made without a call that may do something elsewhere: classes are called freely."""
    calls = (node for node in walk(value) if isinstance(node, ast.Call))
    names = (_last_name(call.func) for call in calls)
    return all(name in _MAKING or name.lstrip("_")[:1].isupper() for name in names)


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
