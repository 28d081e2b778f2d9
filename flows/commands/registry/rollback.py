"""``preflow rollback NAME``: makes an earlier version of a registered model the champion again."""

from typing import Annotated

import typer

from flows.running.terminal import clear_errors

_CHANGED = 1


def main(
    name: Annotated[str, typer.Argument(help="The registered model's name.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    to: Annotated[int | None, typer.Option(help="The version; that before the champion where not given.")] = None,
    by: Annotated[str, typer.Option(help="Who decides; the user of this machine where not given.")] = "",
) -> None:
    """Check the version's files, make it the champion, and record why."""
    from preflow.errors import ChampionChangedError, PromotionError

    with clear_errors():
        if not reason.strip():
            raise PromotionError("a rollback needs a reason: give --reason TEXT")
        from preflow.environment import private_home
        from tasks.tracking.client import away_is_a_tracking_error, require_mlflow, without_collections

        private_home()
        require_mlflow()
        with without_collections():
            from tasks.tracking.registry.rollback import roll_back

        try:
            with away_is_a_tracking_error():
                decision, unchecked = roll_back(name, to, by.strip() or _user(), reason.strip())
        except ChampionChangedError as error:
            typer.secho(f"ChampionChangedError: {error}", fg="red", err=True)
            raise typer.Exit(_CHANGED) from None
    if unchecked:
        typer.secho(unchecked, fg="yellow", err=True)
    version = decision.chosen.version if decision.chosen else None
    typer.echo(f"decision {decision.number}: version {version} of {name} is the champion", err=True)


def _user() -> str:
    import getpass

    return getpass.getuser()
