"""New preference pairs of the model's own answers: sample, judge, pair, and through data validation.

``preflow augment RECIPE`` runs it. What it computes before it samples is what ``preflow run`` finds computed.
"""

from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.opening import OpenedRun, opened_run
from flows.running.new_pairs import NewPairs, as_markdown, with_new_pairs
from flows.running.preparation import PreparedRun
from flows.running.publish import run_name
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.checks.augment import require_augmentable
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.sources import resolve_sources
from preflow.specs import (
    DpoSpec,
    JudgeAnswersSpec,
    PairSpec,
    ReferenceSpec,
    SampleSpec,
    TuneSpec,
)
from tasks.dpo import dpo
from tasks.new_pairs import judge_answers, pair, sample
from tasks.reference import reference
from tasks.runtime.reporting import artifact_key
from tasks.tracking.pipeline_run import PipelineRun, log_summary
from tasks.tune import with_chosen_rate
from tasks.validate import validate


@flow(name="augment", flow_run_name=run_name)
def augment(recipe: str, overrides: dict[str, Any] | None = None) -> NewPairs:
    """Make new preference pairs of the answers that a recipe's model gives to training prompts.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.
    """
    with opened_run(recipe, overrides, "augment", prompts_of) as opened:
        settings, run = opened.recipe, opened.run
        prompts = prompts_of(settings)
        tuned = policy = None if settings.augment.policy == "base" else opened.fine_tuned()
        if settings.augment.policy == "dpo":
            policy = aligned(opened.to_score(tuned), run)
        sampled, judged, paired = new_pairs(opened, policy, prompts, 1, run)
        union = validated_union(opened.prepared, [paired], run.part_of("union"))
        return _finish(opened.prepared, run, sampled, judged, paired, union)


def aligned(given: ReferenceSpec, run: PipelineRun, stored: Artifact | None = None) -> Artifact:
    """The model that DPO makes of a start and pairs: reference (where it is not given), learning rate, training."""
    stored = stored or reference(given, run)
    settings, _ = with_chosen_rate(TuneSpec(**dict(given), reference=stored), run)
    return dpo(DpoSpec(**{**dict(given), "recipe": settings}, reference=stored), run)


def prompts_of(recipe: Recipe) -> tuple[DataSource, ...]:
    """Files of prompts; none for those of the training pairs.

    Raises:
        ConfigError: The recipe cannot make new pairs.
        DataFileError: A file is not there.
    """
    require_augmentable(recipe)
    return resolve_sources(recipe.augment.prompts or ())


def new_pairs(
    opened: OpenedRun, policy: Artifact | None, prompts: tuple[DataSource, ...], number: int, run: PipelineRun
) -> tuple[Artifact, Artifact, Artifact]:
    """Sampled answers, what the judge said of them, and the pairs that they make.

    Args:
        opened: The run, with the validated data of the recipe alone.
        policy: The model that answers; none where the base does.
        prompts: As of ``prompts_of``.
        number: Of the round.
        run: The part of the run that the round is.
    """
    given: dict[str, Any] = {"recipe": opened.recipe, "base": opened.base, "data": opened.data}
    sampled = sample(SampleSpec(**given, policy=policy, prompts=prompts), run)
    judged = judge_answers(JudgeAnswersSpec(**given, answers=sampled), run)
    return sampled, judged, pair(PairSpec(recipe=opened.recipe, answers=sampled, judged=judged, round=number), run)


def validated_union(prepared: PreparedRun, made: list[Artifact], run: PipelineRun) -> Artifact | None:
    """The recipe's data and new pairs, validated together; none where there is no new pair."""
    some = [each for each in made if each.load("report.json")["pairs"]]
    return validate(with_new_pairs(prepared.sources, some), run) if some else None


def _finish(
    prepared: PreparedRun,
    run: PipelineRun,
    sampled: Artifact,
    judged: Artifact,
    paired: Artifact,
    union: Artifact | None,
) -> NewPairs:
    """Leave the round's summary in Prefect and MLflow, and name what was made."""
    dpo_settings = prepared.recipe.dpo
    entries = dpo_settings.dataset if dpo_settings is not None and dpo_settings.dataset else ()
    made = NewPairs(
        recipe=prepared.recipe.name,
        mlflow_run_id=run.run_id,
        dataset=tuple(each for each in entries if isinstance(each, str))
        if all(isinstance(e, str) for e in entries)
        else (),
        sampled=sampled,
        judged=judged,
        paired=paired,
        union=union,
    )
    text = as_markdown(made)
    create_markdown_artifact(text, key=f"{artifact_key(run.recipe)}-pairs", description="New pairs of this round")
    log_summary(run, text)
    return made
