"""``preflow deploy RECIPE``: a deployment of a recipe, which a worker runs on a schedule or when asked."""

from typing import Annotated

import typer

from flows.running.terminal import Overrides, RecipeName, clear_errors, parse_overrides


def main(
    recipe: RecipeName,
    name: Annotated[str | None, typer.Option(help="The deployment's name; the recipe's where not given.")] = None,
    cron: Annotated[str | None, typer.Option(help='When to run it, in UTC: "0 2 * * *" is every night at two.')] = None,
    every: Annotated[str | None, typer.Option(help="How often to run it: 30m, 6h, 1d.")] = None,
    pool: Annotated[str, typer.Option(help="The work pool; made where it is missing.")] = "preflow-pool",
    changes: Overrides = None,
) -> None:
    """Make or update a deployment of a recipe on the Prefect server that PREFECT_API_URL names."""
    from flows.running.preparation import PACKAGED_RECIPES, find_recipe, prepare_run
    from preflow.environment import make_home

    with clear_errors():
        overrides = parse_overrides(changes)
        prepared = prepare_run(recipe, overrides)
        make_home()  # before Prefect is imported
        from flows.running.deployments import deploy, deployment_name, require_server, schedule, worker_path
        from flows.two_stage import two_stage

        when = schedule(cron, every)
        require_server()
        named = name or deployment_name(prepared.recipe.name)
        place = worker_path(recipe, find_recipe(recipe), PACKAGED_RECIPES)
        text = f"{prepared.recipe.strategy} with {prepared.recipe.model_name}"
        deploy(two_stage, place, named, overrides, when, pool, text)
    again = f"every {every}" if every else f'at "{cron}" UTC' if cron else "when asked"
    typer.echo(f"two-stage/{named} runs {again} in the pool {pool}; preflow submit {recipe} runs it now", err=True)
