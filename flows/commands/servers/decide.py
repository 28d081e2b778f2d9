"""``preflow decide RUN``: answers a run that waits for a person's decision."""

from typing import Annotated

import typer

from flows.running.terminal import clear_errors
from preflow.environment import make_home
from preflow.errors import ConfigError


def main(
    run: Annotated[str, typer.Argument(help="The run that asks: its id or its name; preflow operate show lists them.")],
    approve: Annotated[bool, typer.Option("--approve", help="Decide for it.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Decide against it.")] = False,
    by: Annotated[str, typer.Option(help="Who decides.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Answer a run that waits for a decision; without an answer, show what it asks."""
    with clear_errors():
        if approve and reject:
            raise ConfigError("--approve and --reject: expected one of them")
        make_home()  # before Prefect is imported
        from flows.operation.decisions import decide, question_of
        from flows.running.deployments import require_server

        require_server()
        if not approve and not reject:
            if by or reason:
                raise ConfigError("no decision is given: add --approve or --reject")
            typer.echo(question_of(run))
            return
        answered = decide(run, approve, by, reason)
    typer.echo(f"{answered.name} is {'approved' if approve else 'rejected'}: a worker goes on with it", err=True)
