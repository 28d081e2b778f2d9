"""The command ``preflow``: one Typer application, one module of this folder per subcommand.

A new subcommand is a new module here, and nothing else: every module of the folder but this one is a command of the
module's name. It has either ``main``, a function with Typer's annotations whose docstring is the help, or ``app``, a
``typer.Typer`` with subcommands of its own (as ``store`` has). Importing a module must load nothing heavy, since
``preflow --help`` imports all of them: what a command works with is imported inside its function.
"""

import importlib
import pkgutil
from typing import Annotated

import typer

from flows import commands
from preflow import __version__

_HELP = "From demonstrations and preference pairs to an aligned, evaluated language model."


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


def build() -> typer.Typer:
    """The application with every subcommand of this folder."""
    app = typer.Typer(name="preflow", help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_options)
    for found in pkgutil.iter_modules(commands.__path__):
        if found.name == "app":
            continue
        module = importlib.import_module(f"{commands.__name__}.{found.name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=found.name)
        else:
            app.command(name=found.name.replace("_", "-"))(module.main)
    return app


def main() -> None:
    """The console script."""
    build()(prog_name="preflow")


if __name__ == "__main__":
    main()
