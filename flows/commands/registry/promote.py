"""``preflow promote RECIPE``: makes the challenger the champion if it is better on the same held-out rows."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.running.terminal import Overrides, RecipeName, clear_errors, parse_overrides

if TYPE_CHECKING:
    from tasks.tracking.registry.decisions import Decision

#: By what was decided; 2, as everywhere, where it could not be asked.
_EXIT = {"promoted": 0, "eligible": 0, "refused": 1, "rejected": 1, "inconclusive": 3}
_CHANGED = 1


def main(
    recipe: RecipeName,
    run: Annotated[
        list[str] | None,
        typer.Option(help="MLflow id of a pipeline run whose model is the challenger; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare and record it, but move nothing.")] = False,
    by: Annotated[str, typer.Option(help="Who approves, where the recipe requires approval.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    changes: Overrides = None,
) -> None:
    """Compare challenger and champion now; exit code 0 promoted, 1 refused, 2 cannot be asked, 3 inconclusive."""
    from preflow.errors import ChampionChangedError, PromotionError

    overrides = parse_overrides_or_exit(changes)
    with clear_errors():
        if bool(by.strip()) != bool(reason.strip()):
            raise PromotionError("approval needs a name and a reason: give --by NAME --reason TEXT")
        try:
            decision = _decide(recipe, overrides, run or [], dry_run, by.strip(), reason.strip())
        except ChampionChangedError as error:
            typer.secho(f"ChampionChangedError: {error}", fg="red", err=True)
            raise typer.Exit(_CHANGED) from None
    _show(decision)
    raise typer.Exit(_EXIT[decision.outcome])


def parse_overrides_or_exit(changes: list[str] | None) -> dict[str, object]:
    """Overrides of the command line; exit code 2 where one cannot be read."""
    with clear_errors():
        return parse_overrides(changes)


def _decide(
    recipe: str, overrides: dict[str, object], runs: list[str], dry_run: bool, by: str, reason: str
) -> "Decision":
    from preflow.environment import make_home
    from tasks.tracking.client import away_is_a_tracking_error, require_mlflow

    make_home()  # before Prefect is imported
    require_mlflow()
    from flows.promotion import Asked, settle
    from tasks.promotion import compare

    asked = Asked(recipe=recipe, overrides=overrides, runs=tuple(runs), dry_run=dry_run, by=by, reason=reason)
    with away_is_a_tracking_error():
        draft = compare.fn(asked.resolved(), runs)
        return settle(asked, draft, (lambda *_: (True, by, reason)) if by else None)


def _show(decision: "Decision") -> None:
    version = decision.chosen.version if decision.chosen else None
    for each in decision.reasons:
        typer.echo(each)
    typer.echo(f"decision {decision.number}: version {version} of {decision.model} is {decision.outcome}", err=True)
