"""``preflow submit RECIPE``: one run of a recipe's deployment, checked before it is asked for."""

from typing import Annotated

import typer

from flows.running.terminal import Overrides, RecipeName, clear_errors

_FAILED = 1


def main(
    recipe: RecipeName,
    name: Annotated[str | None, typer.Option(help="The deployment's name; the recipe's where not given.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show what it logs until it ends; exit code 1 on failure.")
    ] = False,
    changes: Overrides = None,
) -> None:
    """Check a recipe and its data, then run its deployment on a worker."""
    from flows.running.deployed_recipe import deployed_recipe

    with clear_errors():
        asked = deployed_recipe(recipe, name, changes)
        from flows.operation.slots import require_slot

        require_slot(asked.prepared.recipe.slot)
        from flows.running.deployments import submit

        run = submit(asked.name, asked.place, asked.overrides)
    typer.echo(f"two-stage/{asked.name}: run {run.id}", err=True)
    if watch:
        raise typer.Exit(_follow(run.id))


def _follow(flow_run_id: object) -> int:
    """Show a run until it ends; the exit code."""
    from uuid import UUID

    from flows.running.deployments import watch

    for event in watch(UUID(str(flow_run_id))):
        if isinstance(event, str):
            typer.echo(event, err=True)
            continue
        assert event.state is not None, "a run that was watched to its end has a state"
        if event.state.is_completed():
            return 0
        typer.echo(f"{event.name} ended as {event.state.name}: {event.state.message or 'no reason given'}", err=True)
    return _FAILED
