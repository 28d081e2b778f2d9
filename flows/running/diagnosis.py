"""The diagnosis of a finished run, from its artifacts and from what MLflow alone has."""

from collections.abc import Mapping

from flows.running.preparation import Diagnosis
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.other_stages import resources
from preflow.diagnosis.reading import measurements
from tasks.tracking.pipeline_run import PipelineRun, tracked_resources


def diagnosis_of(
    recipe: Recipe, run: PipelineRun, data: Artifact, evaluation: Artifact, trained: Mapping[str, Artifact | None]
) -> Diagnosis:
    """What a run's measurements show to be wrong, and what it took.

    Args:
        recipe: Its resolved settings.
        run: The pipeline run, under way.
        data: The artifact of data validation.
        evaluation: That of the evaluation.
        trained: Those of the training stages, by name.
    """
    measured = measurements(recipe, data, evaluation, trained, tracked_resources(run))
    return Diagnosis(findings=tuple(diagnose(measured)), resources=tuple(resources(measured)))
