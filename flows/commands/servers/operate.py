"""``preflow operate``: notifications of runs, and how many runs use a GPU at once."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from flows.running.terminal import clear_errors
from preflow.environment import make_home
from preflow.errors import ConfigError

app = typer.Typer(help="Notifications of runs, and how many runs use a GPU at once.", no_args_is_help=True)
_VARIABLE = "PREFLOW_NOTIFY_ADDRESS"
_TEST = "This is a test message. Others follow: of runs that fail, are late or finish, and of decisions to be made."


@contextmanager
def _with_server() -> Iterator[None]:
    with clear_errors():
        make_home()  # before Prefect is imported
        from flows.running.deployments import require_server

        require_server()
        yield


@app.command()
def setup(
    notify: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE/NAME", help="Block of the Prefect server by which messages go; repeatable."),
    ] = None,
    test: Annotated[bool, typer.Option(help="Send a test message first.")] = True,
) -> None:
    """Install or renew the automations that notify people of runs; a wrong address is an error."""
    with _with_server():
        from prefect.client.orchestration import get_client

        from flows.operation.automations import blocks_of, install, installed
        from flows.operation.notification import block_name, load_block, load_block_by_id, send

        with get_client(sync_client=True) as client:
            blocks = [load_block(name) for name in notify or ()]
            blocks = blocks or [load_block_by_id(client, found) for found in blocks_of(installed(client).values())]
            for block in blocks if test else ():
                send(block, "Preflow: test message", _TEST)
                typer.echo(f"a test message went by {block_name(block)}", err=True)
            for name in install(client, [block._block_document_id for block in blocks if block._block_document_id]):
                typer.echo(f"installed {name}", err=True)


@app.command()
def show() -> None:
    """List automations, messages that were not taken, slots, and runs that wait for a decision."""
    with _with_server():
        from flows.operation.state import state_lines

        for line in state_lines():
            typer.echo(line)


@app.command()
def address(name: Annotated[str, typer.Argument(help="The block's name: small letters, digits and dashes.")]) -> None:
    """Make a block from an address, read from PREFLOW_NOTIFY_ADDRESS or standard input: it may hold a password.

    https://... is a webhook (of Slack, where it is at hooks.slack.com); e-mail goes by
    mailtos://USER:PASSWORD@HOST?from=A@B&to=C@D.
    """
    with _with_server():
        from flows.operation.notification import make_block

        given = os.environ.get(_VARIABLE) or sys.stdin.readline()
        if not given.strip():
            raise ConfigError(f"no address was given: set {_VARIABLE}, or give it on standard input")
        made = make_block(name, given.strip())
    typer.echo(f"made {made}: preflow operate setup --notify {made}", err=True)


@app.command()
def slot(
    name: Annotated[str, typer.Argument(help="The slot's name, as a recipe's setting slot has it.")],
    limit: Annotated[int, typer.Option(min=1, help="Runs that may hold it at once.")] = 1,
) -> None:
    """Make a slot for a GPU, or change how many runs may hold it at once."""
    with _with_server():
        from flows.operation.slots import make_slot

        make_slot(name, limit)
    typer.echo(f"{name}: {limit} at once; preflow deploy RECIPE --set slot={name}", err=True)
