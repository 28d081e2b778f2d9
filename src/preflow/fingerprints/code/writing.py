"""A definition as text, in which the paths by which it names other definitions stand apart."""

import ast
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from preflow.fingerprints.code.modules import Module, class_statements, imported_modules, imported_names, walk
from preflow.fingerprints.code.stripping import strip

#: Instead of a name: all definitions of a module, and what importing it does.
EVERYTHING, EFFECTS = "*", "(effects)"
#: Code that names these may reach any module.
_DYNAMIC = frozenset({"import_module", "__import__", "exec", "eval"})
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Use(NamedTuple):
    """A dotted path by which a definition names something of a module: of the project, or of another package."""

    path: str


@dataclass
class Written:
    """One definition, before it is known what its paths stand for.

    Attributes:
        parts: Its text, and in it the paths.
        also: Paths that it may use besides; ``*`` stands for every module.
        attributes: Names of attributes and texts that it uses: a method of the settings may be meant, or a module.
        imported: Dotted names that it imports while it runs.
    """

    parts: list[str | Use] = field(default_factory=list)
    also: set[Use] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)


def write(module: Module, name: str) -> Written:
    """Write what defines a name of a module, or a method of one of its classes, or what importing it does.

    What computes nothing is left out. So is the name of a function or a constant, since nothing can ask for it; that of
    a class distinguishes it from an equal one, and libraries write it into what they make.
    """
    holder, _, method = name.partition(".")
    statements = module.effects if name == EFFECTS else module.definitions[holder]
    if method:
        statements = [each for each in vars(statements[0])["body"] if getattr(each, "name", None) == method]
    stripped = [strip(statement, module) for statement in statements]
    return _Writer(module).statements([each for each in stripped if each is not None], holder)


class _Writer:
    def __init__(self, module: Module) -> None:
        self.written = Written()
        self._module = module
        self._local: list[tuple[set[str], dict[str, str]]] = []
        self._handlers: dict[type[ast.AST], Callable[[Any], None]] = {
            ast.FunctionDef: self._function,
            ast.AsyncFunctionDef: self._function,
            ast.Lambda: self._lambda,
            ast.ClassDef: self._class,
            ast.Import: self._import,
            ast.ImportFrom: self._import,
            ast.Global: self._nothing,
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
        }
        self._depth = 0
        self._own: frozenset[str] = frozenset()

    def statements(self, statements: Iterable[ast.stmt], name: str) -> Written:
        for statement in statements:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                if not all(isinstance(target, ast.Name) for target in targets):
                    self._put(f"{name} of ")
                    self._value(targets)
                self._value(statement.value)
            else:
                self._value(statement)
        return self.written

    def _put(self, part: str | Use) -> None:
        self.written.parts.append(part)

    def _value(self, value: Any) -> None:
        if isinstance(value, list):
            self._put("[")
            for each in value:
                self._value(each)
            self._put("]")
        elif isinstance(value, ast.AST):
            self._handlers.get(type(value), self._fields)(value)
        else:
            self._put(f"{value!r},")

    def _fields(self, node: ast.AST, *left_out: str) -> None:
        self._put(f"{type(node).__name__}(")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in left_out or name in ("ctx", "type_comment", "type_params"):
                continue
            self._put(f"{name}=")
            self._value(value)
        self._put(")")

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        with self._scope(node):
            self._fields(node, *(() if self._depth > 1 else ("name",)))

    def _lambda(self, node: ast.Lambda) -> None:
        with self._scope(node):
            self._fields(node)

    def _class(self, node: ast.ClassDef) -> None:
        if not self._depth:
            self._own = _own_names(node)
        self._depth += 1
        self._fields(node)
        self._depth -= 1

    @contextmanager
    def _scope(self, function: _Function) -> Any:
        bound, imports = _bound_in(function, self._module)
        self._local.append((bound, imports))
        self._depth += 1
        yield
        self._depth -= 1
        self._local.pop()

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.written.imported.update(imported_modules(node, self._module))

    def _nothing(self, node: ast.Global) -> None:
        """Left out: what it says is in the names themselves."""

    def _constant(self, node: ast.Constant) -> None:
        self._put(f"{node.value!r},")
        if isinstance(node.value, str):
            self.written.attributes.add(node.value)

    def _name(self, node: ast.Name) -> None:
        self._path(node.id, [])

    def _attribute(self, node: ast.Attribute) -> None:
        names: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        own = _is_self(inner) and len(names) == 1 and names[0] in self._own
        if not own:
            self.written.attributes.update(names)
        if isinstance(inner, ast.Name):
            self._path(inner.id, names[::-1])
            return
        self._value(inner)
        self._put("".join(f".{name}" for name in names[::-1]) + " ")

    def _path(self, first: str, names: list[str]) -> None:
        """Write a name and the attributes that are taken from it."""
        if (names[-1] if names and first == "importlib" else first) in _DYNAMIC:
            self.written.also.add(Use(EVERYTHING))
        origin = self._origin(first)
        self._put(".".join((first, *names)) + " " if origin is None else Use(".".join((origin, *names))))

    def _origin(self, name: str) -> str | None:
        """The dotted path that a name stands for; none for local names and for Python's own."""
        for bound, imports in reversed(self._local):
            if name in imports:
                return imports[name]
            if name in bound:
                if name in self._module.definitions:  # which of both is meant is not looked into
                    self.written.also.add(Use(f"{self._module.name}.{name}"))
                return None
        if name == "globals":
            self.written.also.add(Use(self._module.name))
        if name in self._module.definitions:
            return f"{self._module.name}.{name}"
        if name not in self._module.imports:
            self.written.also.update(Use(path) for path in self._module.starred)
        return self._module.imports.get(name)


def _own_names(cls: ast.ClassDef) -> frozenset[str]:
    """Names that a class gives its objects: of methods and class attributes, and what methods store in ``self``."""
    stored = [node for node in walk(cls) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    names = {node.attr for node in stored if _is_self(node.value)}
    for node in class_statements(cls):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return frozenset(names)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _bound_in(function: _Function, module: Module) -> tuple[set[str], dict[str, str]]:
    """Names that are a function's own, and those that it imports: its inner functions' too."""
    bound: set[str] = set()
    imports: dict[str, str] = {}
    shared: set[str] = set()
    for node in walk(function):
        match node:
            case ast.Name():
                if not isinstance(node.ctx, ast.Load):
                    bound.add(node.id)
            case ast.arg():
                bound.add(node.arg)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if node is not function:
                bound.add(node.name)
            case ast.ExceptHandler(name=str()) | ast.MatchAs(name=str()) | ast.MatchStar(name=str()):
                bound.add(str(node.name))
            case ast.Import() | ast.ImportFrom():
                imports |= imported_names(node, module)
            case ast.Global():
                shared.update(node.names)
    return bound - shared, imports
