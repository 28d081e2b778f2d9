"""Fetching the base model, which is not a stage: its files are an input, kept by the library itself."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from preflow.config import Recipe
from preflow.models.resolve import ModelRef
from preflow.redaction import redacted_errors
from tasks.runtime.reporting import Reporter
from tasks.runtime.stage import HOUR, PAUSES, can_help
from tasks.tracking.pipeline_run import PipelineRun, tag_base_model


@task(
    name="fetch",
    task_run_name="{run.recipe}-fetch",
    retries=2,
    retry_delay_seconds=PAUSES,
    retry_condition_fn=can_help,
    timeout_seconds=6 * HOUR,
    cache_policy=NO_CACHE,  # the library keeps the files and checks them every time
)
def fetch(recipe: Recipe, run: PipelineRun) -> ModelRef:
    """Find the recipe's base model, downloading and converting it the first time."""
    from preflow.models.resolve import resolve_model

    with redacted_errors():
        with Reporter(run.recipe, "fetch") as observer:
            base = resolve_model(recipe, observer)
        tag_base_model(run, base)
    return base
