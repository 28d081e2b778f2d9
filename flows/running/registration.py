"""A finished run's model goes to MLflow's registry, as the challenger, with a description made of its artifacts."""

import shlex
from collections.abc import Mapping
from typing import Any

from preflow.artifacts import Artifact
from preflow.card_sections import version_description
from preflow.config import Recipe
from preflow.data.validated import REPORT
from preflow.model_card import CardFacts, model_card
from preflow.models.resolve import ModelRef
from tasks.tracking.pipeline_run import PipelineRun, log_card, register
from tasks.tracking.registry.package import Candidate


def describe_model(run: PipelineRun, recipe: Recipe, base: ModelRef, made: Mapping[str, Artifact | None]) -> str:
    """Leave the model card of what was made, and give it.

    Args:
        run: The run under way.
        recipe: The resolved recipe, as the run has recorded it.
        base: The base model.
        made: Artifacts of the stages, by name, in their order; none of a stage that the recipe does not have.
    """
    there = {name: artifact for name, artifact in made.items() if artifact is not None}
    facts = CardFacts(
        recipe=recipe,
        base_digest=base.digest,
        stages={name: artifact.digest for name, artifact in there.items()},
        data=there["validate"].load(REPORT),
        evaluation=there["evaluate"].load("evaluation.json"),
        judge=there["judge"].load("judge.json") if "judge" in there else None,
        benchmarks=there["benchmarks"].load("benchmarks.json") if "benchmarks" in there else None,
    )
    card = model_card(facts)
    log_card(run, card)
    return card


def register_model(run: PipelineRun, recipe: Recipe, base: ModelRef, model: Artifact | None, card: str) -> None:
    """Register the model that a run made, once MLflow takes it; a run is finished without that."""
    assert model is not None, "every strategy trains a model"
    stage, _ = recipe.training_sections[-1]
    text, name = version_description(card), recipe.registered_model
    register(run, Candidate(name=name, stage=stage, artifact=model, recipe=recipe, base=base, description=text))


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
