"""``preflow sync``: delivers to MLflow what runs could not, because it was away until they ended."""

import typer

from flows.running.terminal import clear_errors


def main() -> None:
    """Deliver to MLflow what runs of this home folder recorded while MLflow was away."""
    from tasks.tracking.client import require_mlflow
    from tasks.tracking.delivery import deliver_left_behind

    def say(message: str, *, warning: bool = False) -> None:
        typer.secho(message, fg="yellow" if warning else None, err=True)

    with clear_errors():
        require_mlflow()
        left = deliver_left_behind(say)
    typer.echo("all is delivered" if not left else f"{left} entries wait on disk", err=True)
    raise typer.Exit(1 if left else 0)
