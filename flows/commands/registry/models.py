"""``preflow models NAME``: a registered model's versions and aliases, and the decisions that moved them."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.running.terminal import clear_errors

if TYPE_CHECKING:
    from tasks.tracking.registry.state import State

_DIFFERS = 1


def main(
    name: Annotated[str, typer.Argument(help="The registered model's name: the recipe's, or promotion.model_name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show versions, aliases and decisions; exit code 1 where they do not agree."""
    with clear_errors():
        from preflow.environment import private_home
        from tasks.tracking.client import away_is_a_tracking_error, require_mlflow

        private_home()
        require_mlflow()
        from tasks.tracking.registry.state import read_state

        with away_is_a_tracking_error():
            state = read_state(name)
    if as_json:
        typer.echo(_as_json(state))
    else:
        _show(state)
    raise typer.Exit(_DIFFERS if state.problems else 0)


def _as_json(state: "State") -> str:
    import json

    values = {
        "name": state.model.name,
        "versions": [each.model_dump(mode="json") for each in state.model.versions],
        "aliases": state.model.aliases,
        "decisions": [{"run": record.run_id, **each.model_dump(mode="json")} for record, each in state.decisions],
        "problems": state.problems,
        "remarks": state.remarks,
    }
    return json.dumps(values, indent=1)


def _show(state: "State") -> None:
    from datetime import UTC, datetime

    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from preflow.console import TextConsole

    console, model = TextConsole(), state.model
    versions = Table(title=escape(f"{model.name}: versions"), box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("version", "aliases", "stage", "registered", "artifact", "run"):
        versions.add_column(column)
    for each in model.versions:
        aliases = ", ".join(alias for alias, number in sorted(model.aliases.items()) if number == each.number)
        when = datetime.fromtimestamp(each.created / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        cells = (str(each.number), aliases, each.stage, when, each.artifact_digest[:12], each.run_id[:8])
        versions.add_row(*map(escape, cells))
    console.print(versions)
    decisions = Table(title="decisions", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("number", "when", "outcome", "champion", "by", "why"):
        decisions.add_column(column)
    for _, taken in state.decisions:
        before = str(taken.champion.version) if taken.champion else "none"
        moved = taken.chosen is not None and taken.outcome in ("promoted", "rolled_back")
        change = f"{before} → {taken.chosen.version}" if moved and taken.chosen else before
        why = taken.reason or (taken.reasons[0] if taken.reasons else "")
        decisions.add_row(
            *map(escape, (str(taken.number), taken.at[:16].replace("T", " "), taken.outcome, change, taken.by, why))
        )
    console.print(decisions)
    for text in (*state.recovered, *state.remarks):
        console.print(text, style="yellow", markup=False)
    for text in state.problems:
        console.print(text, style="red", markup=False)
