"""A finished run's model goes to MLflow's registry, as the challenger, with a description made of its artifacts."""

import shlex
from collections.abc import Mapping
from typing import Any

from flows.running.summary import columns, legend, metric_rows, result_sentence
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.models.resolve import ModelRef
from preflow.redaction import code_span
from tasks.tracking.pipeline_run import PipelineRun, register
from tasks.tracking.registry.package import Candidate

_STAGES = {"sft": "SFT", "dpo": "DPO"}


def register_model(
    run: PipelineRun, recipe: Recipe, base: ModelRef, evaluation: Artifact, model: Artifact | None
) -> None:
    """Register the model that a run made, once MLflow takes it; a run is finished without that."""
    assert model is not None, "every strategy trains a model"
    stage, _ = recipe.training_sections[-1]
    text = version_description(recipe, base, model, evaluation.load("evaluation.json"))
    name = recipe.registered_model
    register(run, Candidate(name=name, stage=stage, artifact=model, recipe=recipe, base=base, description=text))


def version_description(recipe: Recipe, base: ModelRef, model: Artifact, report: dict[str, Any]) -> str:
    """What a registered version shows: what it is made of, by digests, and its measures, as Markdown."""
    head = columns(report)
    table = [head, ["---"] * len(head), *([row[column] for column in head] for row in metric_rows(report))]
    stage = _STAGES[recipe.training_sections[-1][0]]
    lines = [
        f"# {recipe.name}",
        "",
        f"{stage} model, {recipe.tuning}, over {code_span(base.weights_name)}.",
        "",
        f"- {stage} artifact: {code_span(model.digest)}",
        f"- base: {code_span(base.digest)}",
        f"- recipe: {code_span(recipe.settings_digest())}",
        "",
        result_sentence(report),
        "",
        *(f"| {' | '.join(cells)} |" for cells in table),
        "",
        legend(report),
        "",
        *(f"- **Warning:** {text}" for text in report["warnings"]),
    ]
    return "\n".join([*lines, ""])


def promotion_lines(recipe: Recipe, named: str, overrides: Mapping[str, Any], model: Artifact) -> list[tuple[str, str]]:
    """Where the model is in the registry, and the command that makes it the champion.

    Args:
        recipe: The resolved recipe.
        named: The recipe as the command line named it.
        overrides: Settings that the command line gave.
        model: The artifact that holds the model.
    """
    from tasks.tracking.registry.versions import find

    found, name = find(recipe.registered_model, model.digest), recipe.registered_model
    where = "registered once MLflow answers (preflow sync)" if found is None else f"version {found.number} of {name}"
    sets = [part for setting, value in overrides.items() for part in ("--set", f"{setting}={value}")]
    return [("registry", where), ("promote", shlex.join(["preflow", "promote", named, *sets]))]
