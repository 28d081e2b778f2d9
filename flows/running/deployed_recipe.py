"""A recipe as ``preflow deploy`` and ``preflow submit`` give it to a worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.running.preparation import PACKAGED_RECIPES, PreparedRun, find_recipe, prepare_run
from flows.running.terminal import parse_overrides
from preflow.environment import make_home


@dataclass(frozen=True, slots=True)
class DeployedRecipe:
    """A recipe that was checked, on a Prefect server that is configured.

    Attributes:
        prepared: The resolved recipe and its data.
        place: The recipe's file as the worker finds it, or the name of a packaged one.
        name: The deployment's name.
        overrides: Settings that win over the recipe's.
    """

    prepared: PreparedRun
    place: str
    name: str
    overrides: dict[str, Any]


def deployed_recipe(recipe: str, name: str | None, changes: Sequence[str] | None) -> DeployedRecipe:
    """Check a recipe and its data, and name its deployment.

    Raises:
        ConfigError: The recipe cannot be run as it is, or no Prefect server is configured.
        DataFileError: A data file is absent or cannot be read.
    """
    overrides = parse_overrides(changes)
    prepared = prepare_run(recipe, overrides)
    make_home()  # before Prefect is imported
    from flows.running.deployments import deployment_name, require_server, worker_path

    require_server()
    place = worker_path(recipe, find_recipe(recipe), PACKAGED_RECIPES)
    return DeployedRecipe(prepared, place, name or deployment_name(prepared.recipe.name), overrides)
