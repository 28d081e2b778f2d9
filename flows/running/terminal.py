"""What commands share at a terminal: a flow as a command, ``--set``, errors in one clear text.

Importing it loads nothing heavy.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.running.machine_errors import ask_for_file_handles, clear_machine_errors
from preflow.environment import make_home
from preflow.errors import ConfigError, PreflowError

if TYPE_CHECKING:
    pass

#: Exit code where the arguments, the recipe or the data cannot be used.
USAGE_ERROR = 2
_INTERRUPTED = 128 + signal.SIGINT
_SET_HELP = "Override a setting; repeatable. A relative path starts at the recipe's folder, as in the recipe itself."
#: The option that every command with a recipe has.
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET_HELP)]
#: The argument that names a recipe.
RecipeName = Annotated[str, typer.Argument(help="The recipe: a YAML or JSON file, or the name of a packaged one.")]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print what Preflow raises on purpose as one text, without a traceback, and end with exit code 2."""
    try:
        with clear_machine_errors():
            yield
    except PreflowError as error:
        from preflow.console import TextConsole  # that of tasks needs a home folder, which may be what is missing

        TextConsole(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise typer.Exit(USAGE_ERROR) from None


def parse_overrides(changes: Sequence[str] | None) -> dict[str, Any]:
    """Dotted names to values, as ``--set NAME=VALUE`` gives them; the text is read as YAML later.

    Raises:
        ConfigError: One of them has no name or no equals sign.
    """
    overrides: dict[str, Any] = {}
    for change in changes or ():
        name, equals, value = change.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {change}: expected NAME=VALUE, for example --set dpo.beta=0.2")
        overrides[name.strip()] = value
    return overrides


def pipeline_command(
    load: "Callable[[], Callable[..., Any]]", show: Callable[[Any], None] | None = None
) -> Callable[..., None]:
    """A command that runs a flow on one recipe, with overrides, until what it made is printed.

    Args:
        load: Gives the flow, which takes the recipe and the overrides; called when the recipe is known to be sound.
        show: Prints what the flow returns; without it, the summary of a run.
    """

    def main(recipe: RecipeName, changes: Overrides = None) -> None:
        """Turn demonstrations and preference pairs into an aligned, evaluated language model."""
        # Leaving in order ends the embedded server too; Prefect hands the signal on when it has noted it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        signal.signal(signal.SIGINT, _interrupted)
        try:
            with clear_errors():
                _run(load, recipe, parse_overrides(changes), show)
        except KeyboardInterrupt:
            typer.secho("stopped; the same command goes on from here", fg="yellow", err=True)
            raise typer.Exit(_INTERRUPTED) from None

    return main


def _run(
    load: "Callable[[], Callable[..., Any]]",
    recipe: str,
    overrides: dict[str, Any],
    show: Callable[[Any], None] | None,
) -> None:
    from flows.running.preparation import prepare_run

    prepared = prepare_run(recipe, overrides)  # whatever is wrong with the recipe shows before any server starts

    ask_for_file_handles()  # the server and the ranks inherit them
    make_home()  # before Prefect is imported
    if slot := prepared.recipe.slot:
        _require_server(slot)
    from flows.running.embedded_server import own_server
    from flows.running.registration import promotion_lines
    from flows.running.summary import print_summary
    from tasks.tracking.client import client

    with own_server():
        quiet_prefect()
        client()  # MLflow is imported meanwhile, and a missing database made
        flow = load()
    result = flow(recipe, overrides)
    if show is not None:
        show(result)
        return
    print_summary(result)
    for name, value in promotion_lines(prepared.recipe, recipe, overrides, result.model):
        typer.echo(f"{name:<11} {value}")


def _require_server(slot: str) -> None:
    """An embedded server is one run's own, so it keeps no slot from another."""
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise ConfigError(f"slot: {slot} is kept by a Prefect server: name one by PREFECT_API_URL, or set slot: null")


def _interrupted(*_: object) -> None:
    """End in order; at once, if asked again."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    raise KeyboardInterrupt


def quiet_prefect() -> None:
    """Leave the terminal to what is written for people; Prefect's UI keeps its whole log.

    ``PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL=INFO`` brings Prefect's own lines back.
    """
    from prefect.logging.configuration import setup_logging

    from tasks.runtime.reporting import to_terminal

    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    setup_logging()
    to_terminal()
