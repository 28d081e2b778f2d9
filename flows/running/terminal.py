"""The command line of a flow: one recipe, overrides, errors in one clear text."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from prefect.logging.configuration import setup_logging

from flows.running.embedded_server import own_server
from flows.running.preparation import RunResult, prepare_run
from flows.running.summary import show
from preflow.errors import ConfigError, PreflowError
from tasks.runtime.progress import CONSOLE
from tasks.runtime.reporting import to_terminal

_SET_HELP = "Override a setting; repeatable. A relative path starts at the recipe's folder, as in the recipe itself."
_USAGE_ERROR = 2
_INTERRUPTED = 128 + signal.SIGINT


def run_from_terminal(pipeline: Callable[..., RunResult]) -> None:
    """Run a flow with the arguments of this process."""

    def command(
        recipe: Annotated[str, typer.Argument(help="The recipe: a YAML or JSON file.")],
        changes: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET_HELP)] = None,
    ) -> None:
        """Turn demonstrations and preference pairs into an aligned, evaluated language model."""
        quiet_prefect()
        # Leaving in order ends the embedded server too; Prefect hands the signal on when it has noted it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        signal.signal(signal.SIGINT, _interrupted)
        try:
            overrides = parse_overrides(changes or [])
            prepare_run(recipe, overrides)  # whatever is wrong with the recipe shows before any server starts
            own_server()
            result = pipeline(recipe, overrides)
        except PreflowError as error:
            CONSOLE.print(f"{type(error).__name__}: {error}", style="red", markup=False)
            raise typer.Exit(_USAGE_ERROR) from None
        except KeyboardInterrupt:
            CONSOLE.print("stopped; the same command goes on from here", style="yellow", markup=False)
            raise typer.Exit(_INTERRUPTED) from None
        show(result)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    app()


def _interrupted(*_: object) -> None:
    """End in order; at once, if asked again."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    raise KeyboardInterrupt


def parse_overrides(changes: list[str]) -> dict[str, Any]:
    """Dotted names to values, as ``--set NAME=VALUE`` gives them; the text is read as YAML later.

    Raises:
        ConfigError: One of them has no name or no equals sign.
    """
    overrides: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {change}: expected NAME=VALUE, for example --set dpo.beta=0.2")
        overrides[name.strip()] = value
    return overrides


def quiet_prefect() -> None:
    """Leave the terminal to what is written for people; Prefect's UI keeps its whole log.

    ``PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL=INFO`` brings Prefect's own lines back.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    setup_logging()
    to_terminal()
