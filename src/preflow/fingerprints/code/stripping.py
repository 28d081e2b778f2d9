"""What of a definition computes nothing: docstrings, annotations, texts of errors, notes and log lines."""

import ast
import builtins
from typing import Any

from preflow.fingerprints.code.modules import Module, is_typing_block, walk
from preflow.fingerprints.code.not_counted import ERRORS

#: In the annotation of a field: what makes it another kind of field to a dataclass.
_FIELD_KINDS = ("ClassVar", "InitVar", "KW_ONLY")
#: Methods by which an observer or a logger receives something.
_TELLING = {
    "observer": frozenset({"note", "progress"}),
    "logger": frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"}),
    "logging": frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"}),
    "warnings": frozenset({"warn"}),
}
#: Functions and methods of texts that do nothing but give a value.
_SILENT = frozenset(
    [
        *("str", "repr", "len", "type", "isinstance", "round", "abs", "sorted", "min", "max"),
        *("join", "strip", "rstrip", "lstrip", "splitlines", "split", "format", "lower", "upper"),
        *("removeprefix", "removesuffix", "replace"),
    ]
)


def strip(statement: ast.stmt, module: Module) -> ast.stmt | None:
    """Remove what computes nothing from a top-level statement of a module, in place; None where nothing is left."""
    stripped: ast.stmt | None = _Strip(module).visit(statement)
    return stripped


class _Strip(ast.NodeTransformer):
    def __init__(self, module: Module) -> None:
        self._module, self._imports, self._keeps = module, module.imports, module.reads_annotations
        self._in_class = False
        self._depth = 0
        self._handlers: dict[type[ast.AST], Any] = {}

    def visit(self, node: ast.AST) -> Any:
        """As the base class, in half the time."""
        kind = type(node)
        if kind not in self._handlers:
            self._handlers[kind] = getattr(self, f"visit_{kind.__name__}", self.generic_visit)
        return self._handlers[kind](node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name, value in node.__dict__.items():
            if value.__class__ is list:
                new = [self.visit(each) if isinstance(each, ast.AST) else each for each in value]
                value[:] = [each for each in new if each is not None]
            elif isinstance(value, ast.expr | ast.arguments):
                setattr(node, name, self.visit(value))
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        was, self._in_class = self._in_class, False
        self._depth += 1
        if not self._keeps:
            node.returns = None
        self.generic_visit(node)
        self._depth -= 1
        self._in_class = was
        if not self._depth:
            _drop_unread(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        was, self._in_class = self._in_class, True
        # Without bases only a dataclass's field kinds are read; with bases others may read them, as pydantic does.
        for each in node.body if not (node.bases or self._keeps) else ():
            if isinstance(each, ast.AnnAssign):
                text = ast.unparse(each.annotation)
                each.annotation = ast.Constant([kind for kind in _FIELD_KINDS if kind in text])  # type: ignore[arg-type]
        self.generic_visit(node)
        self._in_class = was
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        if not self._keeps:
            node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._in_class:
            return self.generic_visit(node)
        if node.value is None:
            return None
        return self.generic_visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant):
            return None
        if isinstance(node.value, ast.Call) and _tells(node.value) and _droppable(node.value):
            return None
        return self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if is_typing_block(node) else self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        call = node.exc
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and _droppable(call):
            known = call.func.id in self._imports or call.func.id in self._module.definitions
            node.exc = call if known else call.func  # a local name is a class of errors that was chosen before
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if (self._is_error(node.func) or _tells(node)) and _droppable(node):
            node.args, node.keywords = [], []
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and self._imports.get(node.func.id) == "typing.cast":
            return node.args[1]
        return node

    def _is_error(self, function: ast.expr) -> bool:
        """Whether a class of errors is called whose arguments are the text alone."""
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            return self._imports.get(function.value.id, "") in ERRORS
        if not isinstance(function, ast.Name):
            return False
        origin = self._imports.get(function.id)
        if origin is not None:
            return origin.rpartition(".")[0] in ERRORS
        known = getattr(builtins, function.id, None)
        return isinstance(known, type) and issubclass(known, BaseException)


def _tells(call: ast.Call) -> bool:
    """Whether a call only tells an observer, a logger or the user something."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return False
    receiver = function.value
    name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
    return function.attr in _TELLING.get(name.lower().strip("_"), ())


def _droppable(call: ast.Call) -> bool:
    """Whether a call's arguments bind no name and suspend nothing."""
    arguments = (*call.args, *(keyword.value for keyword in call.keywords))
    binding = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
    return not any(isinstance(node, binding) for argument in arguments for node in walk(argument))


def _drop_unread(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Remove local names that nothing reads any more: parts of texts that were dropped."""
    while True:
        nodes = list(walk(function))
        read = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}
        read |= {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
        unread = {id(node) for node in nodes if isinstance(node, ast.Assign) and _is_unread(node, read)}
        if not unread or "locals" in read:
            return
        for node in nodes:
            for body in node.__dict__.values():
                if body.__class__ is list:
                    body[:] = [each for each in body if id(each) not in unread]


def _is_unread(statement: ast.Assign, read: set[str]) -> bool:
    targets = [node for target in statement.targets for node in walk(target)]
    if not all(isinstance(node, ast.Name | ast.Tuple | ast.Store) for node in targets):
        return False
    names = {node.id for node in targets if isinstance(node, ast.Name)}
    return names.isdisjoint(read) and _is_silent(statement.value)


def _is_silent(value: ast.expr) -> bool:
    for node in walk(value):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in _SILENT:
                return False
        elif isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            return False
    return True
