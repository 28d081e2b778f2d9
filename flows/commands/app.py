"""The command ``preflow``: one Typer application, one module of this folder per subcommand.

A new subcommand is a new module here or in a folder of this one, and nothing else: every module but this one is a
command of the module's name, with dashes for underscores. It has either ``main``, a function with Typer's annotations
whose docstring is the help, or ``app``, a ``typer.Typer`` with subcommands of its own (as ``store`` has). The first
line of its docstring is its line in ``preflow --help``, which imports no module; a subcommand's own help imports that
one, so what a command works with is imported inside its function.
"""

import ast
import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows import commands
from preflow import __version__

_HELP = "From demonstrations and preference pairs to an aligned, evaluated language model."


class Subcommands(TyperGroup):
    """The group of all subcommands, whose modules are imported when they are asked for by name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The subcommand that arguments begin with, itself in place of its line in the list."""
        if args and args[0] in self.commands:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


def modules() -> dict[str, str]:
    """The module of each subcommand below this package, by the subcommand's name; nothing is imported."""
    (folder,) = commands.__path__
    found = {}
    for each in pkgutil.iter_modules([folder]):
        if each.ispkg:
            group = pkgutil.iter_modules([str(Path(folder) / each.name)])
            found.update({_command(inner.name): f"{each.name}.{inner.name}" for inner in group})
        else:
            found[_command(each.name)] = each.name
    del found["app"]
    return dict(sorted(found.items()))


def _command(module: str) -> str:
    return module.replace("_", "-")


def load(name: str) -> Any:
    """A subcommand with its arguments and options, as Typer builds it from its module."""
    module = importlib.import_module(f"{commands.__name__}.{modules()[name]}")
    alone = typer.Typer(add_completion=False)
    alone.callback()(lambda: None)
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=name)
    else:
        alone.command(name=name)(module.main)
    return typer.main.get_group(alone).commands[name]


def _line(module: str) -> str:
    """What a subcommand does, from the first line of its module: what follows the command itself and a colon."""
    (folder,) = commands.__path__
    file = Path(folder, *module.split(".")).with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    said = text.partition("\n")[0].partition("``: ")[2]
    return said[:1].upper() + said[1:]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"preflow {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of ``preflow`` itself."""


def make_app() -> typer.Typer:
    """The application with a line for every subcommand of this folder, each loaded when it is asked for."""
    app = typer.Typer(name="preflow", cls=Subcommands, help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_options)
    for name, module in modules().items():
        app.command(name=name, help=_line(module))(_unloaded)
    return app


def _unloaded() -> None:
    """Stands for a subcommand in the list."""


def main() -> None:
    """The console script.

    A subcommand that comes first is called without its group: to parse the group's options, Typer loads pydantic.
    """
    name, *rest = sys.argv[1:] or [""]
    if name in modules():
        load(name)(rest, prog_name=f"preflow {name}")
    make_app()(prog_name="preflow")


if __name__ == "__main__":
    main()
