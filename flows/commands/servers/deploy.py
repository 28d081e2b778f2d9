"""``preflow deploy RECIPE``: a deployment of a recipe, which a worker runs on a schedule or when asked."""

from typing import Annotated

import typer

from flows.running.terminal import Overrides, RecipeName, clear_errors


def main(
    recipe: RecipeName,
    name: Annotated[str | None, typer.Option(help="The deployment's name; the recipe's where not given.")] = None,
    cron: Annotated[str | None, typer.Option(help='When to run it, in UTC: "0 2 * * *" is every night at two.')] = None,
    every: Annotated[str | None, typer.Option(help="How often to run it: 30m, 6h, 1d.")] = None,
    pool: Annotated[str, typer.Option(help="The work pool; made where it is missing.")] = "preflow-pool",
    changes: Overrides = None,
) -> None:
    """Make or update a deployment of a recipe on the Prefect server that PREFECT_API_URL names."""
    from flows.running.deployed_recipe import deployed_recipe

    with clear_errors():
        asked = deployed_recipe(recipe, name, changes)
        from flows.operation.slots import require_slot

        require_slot(asked.prepared.recipe.slot)
        from flows.running.deployments import deploy, schedule
        from flows.two_stage import two_stage

        text = f"{asked.prepared.recipe.strategy} with {asked.prepared.recipe.model_name}"
        deploy(two_stage, asked.place, asked.name, asked.overrides, schedule(cron, every), pool, text)
    again = f"every {every}" if every else f'at "{cron}" UTC' if cron else "when asked"
    typer.echo(f"two-stage/{asked.name} runs {again} in the pool {pool}; preflow submit {recipe} runs it now", err=True)
