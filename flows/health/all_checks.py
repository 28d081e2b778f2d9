"""Every check of ``preflow doctor``, in the order in which people read them."""

from collections.abc import Iterator

from flows.health.check import Check, failed
from flows.health.machine import check_disk, check_file_handles, check_gpu, check_home, check_hub_token, disk_needed
from flows.health.mlflow_store import check_mlflow
from flows.health.versions import check_servers, check_versions, start_servers
from flows.running.preparation import PreparedRun
from preflow.environment import make_home

#: Bytes per weight of a base model that is fetched, at most.
_BYTES = 4


def run_checks(pool: str, prepared: PreparedRun | None = None) -> Iterator[Check]:
    """Check everything; servers load in processes of their own meanwhile.

    Args:
        pool: The work pool in which a worker is looked for.
        prepared: A recipe that is to run here, whose disk space is checked too.
    """
    started = start_servers()
    yield check_versions()
    home = check_home()
    yield home
    yield check_disk(None if prepared is None else recipe_disk(prepared))
    yield check_file_handles()
    yield check_gpu()
    yield check_hub_token()
    if home.level == "failed":
        yield failed("servers", "not looked at: they need the state folder", home.remedy)
        for process in started.values():
            process.kill()
            process.communicate()
        return
    make_home()  # before Prefect is imported
    from flows.health.prefect_server import check_prefect

    yield from check_prefect(pool)
    yield from check_mlflow()
    yield from check_servers(started)


def recipe_disk(prepared: PreparedRun) -> float:
    """Bytes that a recipe's run writes at most; reads the model's small files alone."""
    from flows.planning.row_lengths import read_model
    from flows.planning.stages import shapes_of

    recipe = prepared.recipe
    shapes = shapes_of(recipe, read_model(recipe))
    lora = recipe.tuning == "lora"
    trained = sum(
        settings.lora_r * shapes[stage].adapter_width if lora else shapes[stage].parameters
        for stage, settings in recipe.training_sections
    )
    parameters = max(shape.parameters for shape in shapes.values())
    return disk_needed(trained, _BYTES * parameters)
