"""What of a definition computes nothing: docstrings, annotations, texts of errors, notes and log lines."""

import ast
import builtins
from typing import Any

from preflow.fingerprints.code.modules import Module, class_statements, is_typing_block, walk
from preflow.fingerprints.code.not_counted import ERRORS, SCHEDULING, TEXTS

#: In the annotation of a field: what makes it another kind of field to a dataclass.
_FIELD_KINDS = ("ClassVar", "InitVar", "KW_ONLY")
#: Methods by which an observer or a logger receives something.
_TELLING = {
    "observer": frozenset({"note", "progress"}),
    "logger": frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"}),
    "logging": frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"}),
    "warnings": frozenset({"warn"}),
}
#: Python's own functions that do nothing but give a value; those that may use up an iterator are not among them.
_SILENT = frozenset({"str", "repr", "len", "type", "isinstance", "round", "abs"})
#: Methods of texts that do nothing but give a value. Of other objects they may do something: ``Path.replace`` moves a
#: file, ``Thread.join`` waits.
_SILENT_OF_TEXTS = frozenset(
    [
        *("join", "strip", "rstrip", "lstrip", "splitlines", "split", "format", "lower", "upper"),
        *("removeprefix", "removesuffix", "replace"),
    ]
)
#: Where these are called, local names may be read by texts.
_READ_LOCALS = frozenset({"locals", "vars", "eval", "exec"})


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
        node.decorator_list = [each for each in node.decorator_list if not self._is_scheduling(each)]
        self.generic_visit(node)
        self._depth -= 1
        self._in_class = was
        if not self._depth:
            _drop_unread(node, {*self._module.definitions, *self._imports})
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
        if (self._is_error(node.func) or self._is_text(node.func) or _tells(node)) and _droppable(node):
            node.args, node.keywords = [], []
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and self._imports.get(node.func.id) == "typing.cast":
            return node.args[1]
        return node

    def _is_scheduling(self, decorator: ast.expr) -> bool:
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        return isinstance(function, ast.Name) and self._imports.get(function.id) in SCHEDULING

    def _is_text(self, function: ast.expr) -> bool:
        """Whether a text for people is made."""
        return isinstance(function, ast.Name) and self._imports.get(function.id) in TEXTS

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


def _drop_unread(function: ast.FunctionDef | ast.AsyncFunctionDef, hiding: set[str]) -> None:
    """Remove local names that nothing reads any more: parts of texts that were dropped.

    Args:
        function: A function that is in no other one.
        hiding: The module's names, behind which Python's own may be hidden.
    """
    while True:
        nodes = list(walk(function))
        read = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}
        if not read.isdisjoint(_READ_LOCALS):
            return
        read |= {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
        bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        silent = _SILENT - hiding - bound
        assigned = [node for node in nodes if isinstance(node, ast.Assign) and _is_unread(node, read, silent)]
        attributes = {id(each) for node in nodes if isinstance(node, ast.ClassDef) for each in class_statements(node)}
        unread = {id(node) for node in assigned} - attributes
        if not unread:
            return
        for node in nodes:
            for body in node.__dict__.values():
                if body.__class__ is list:
                    body[:] = [each for each in body if id(each) not in unread]


def _is_unread(statement: ast.Assign, read: set[str], silent: frozenset[str]) -> bool:
    targets = [node for target in statement.targets for node in walk(target)]
    if not all(isinstance(node, ast.Name | ast.Tuple | ast.Store) for node in targets):
        return False
    names = {node.id for node in targets if isinstance(node, ast.Name)}
    return names.isdisjoint(read) and _is_silent(statement.value, silent)


def _is_silent(value: ast.expr, silent: frozenset[str]) -> bool:
    for node in walk(value):
        if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            return False
        if isinstance(node, ast.Call) and not (_is_call_of(node, silent) or _is_made_of_a_text(node, silent)):
            return False
    return True


def _is_call_of(call: ast.Call, names: frozenset[str]) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in names


def _is_made_of_a_text(call: ast.Call, silent: frozenset[str]) -> bool:
    """Whether a text's method is called that gives a value: of a text that is written there, or of what it gave."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _SILENT_OF_TEXTS:
        return False
    receiver = call.func.value
    if isinstance(receiver, ast.Call):
        own = _is_call_of(receiver, silent & {"str", "repr"})
        return own or _is_made_of_a_text(receiver, silent)
    return isinstance(receiver, ast.JoinedStr) or (
        isinstance(receiver, ast.Constant) and isinstance(receiver.value, str)
    )
