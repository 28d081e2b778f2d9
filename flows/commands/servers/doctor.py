"""``preflow doctor``: whether runs, schedules and servers would work here, before anything runs."""

import json
import os
from typing import Annotated

import typer

from flows.running.terminal import Overrides, clear_errors, parse_overrides


def main(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe that is to run here: its disk space is checked too.")
    ] = None,
    pool: Annotated[str, typer.Option(help="The work pool in which a worker is looked for.")] = "preflow-pool",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    changes: Overrides = None,
) -> None:
    """Check versions, folders, servers, workers and the machine; exit code 1 where something would fail."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    with clear_errors():
        from flows.running.preparation import prepare_run
        from preflow.console import TextConsole

        prepared = None if recipe is None else prepare_run(recipe, parse_overrides(changes))
        from flows.health.all_checks import run_checks
        from flows.health.check import Level

        checks, console = [], TextConsole()
        styles = {Level.ok: "green", Level.warning: "yellow", Level.failed: "bold red"}
        for check in run_checks(pool, prepared):
            checks.append(check)
            if not as_json:
                console.print(f"{check.level:<8}", style=styles[check.level], end="")
                console.print(f"{check.name}: {check.found}", markup=False, soft_wrap=True)
                if check.remedy:
                    console.print(f"        {check.remedy}", style="dim", markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps([check.as_json() for check in checks], indent=2))
    raise typer.Exit(int(any(check.level is Level.failed for check in checks)))
