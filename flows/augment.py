"""New preference pairs of the model's own answers: sample, judge, pair, and through data validation.

``preflow augment RECIPE`` runs it. What it computes before it samples is what ``preflow run`` finds computed.
"""

from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.operation.process_records import process_recorded
from flows.operation.slots import hold_slot, require_slot
from flows.running.machine_errors import ask_for_file_handles, clear_machine_errors
from flows.running.new_pairs import NewPairs, as_markdown, with_new_pairs
from flows.running.preparation import PreparedRun, prepare_run
from flows.running.publish import advise, announce, close_dead_runs, flow_run_id, run_name
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.checks.augment import require_augmentable
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.sources import resolve_sources
from preflow.models.resolve import ModelRef
from preflow.specs import (
    DpoSpec,
    JudgeAnswersSpec,
    LengthsSpec,
    PairSpec,
    ReferenceSpec,
    SampleSpec,
    SftSpec,
    TuneSpec,
)
from tasks.dpo import dpo
from tasks.fetch import fetch
from tasks.lengths import lengths
from tasks.new_pairs import judge_answers, pair, sample
from tasks.reference import reference
from tasks.runtime.lost_output import outlive_readers
from tasks.runtime.reporting import artifact_key, log_user
from tasks.sft import sft
from tasks.tracking.pipeline_run import PipelineRun, log_summary, pipeline_run
from tasks.tune import with_chosen_rate
from tasks.validate import validate


@flow(name="augment", flow_run_name=run_name)
def augment(recipe: str, overrides: dict[str, Any] | None = None) -> NewPairs:
    """Make new preference pairs of the answers that a recipe's model gives to training prompts.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.
    """
    outlive_readers()
    with clear_machine_errors(), process_recorded(flow_run_id()):
        ask_for_file_handles()
        return _augment(recipe, overrides)


def _augment(recipe: str, overrides: dict[str, Any] | None) -> NewPairs:
    prepared = prepare_run(recipe, overrides)
    settings, tuned, policy = prepared.recipe, None, None
    require_augmentable(settings)
    prompts = resolve_sources(settings.augment.prompts or ())
    require_slot(settings.slot)
    announce(prepared)
    given = (settings, prepared.sources, flow_run_id(), run_name(), log_user, close_dead_runs, "augment")
    with pipeline_run(*given) as run:
        data = validate(prepared.sources, run)
        advise(prepared, data)
        with hold_slot(settings.slot, flow_run_id(), log_user):
            base = fetch(settings, run)
            lengths(LengthsSpec(recipe=settings, base=base, data=data), run)
            if prepared.runs("sft") and settings.augment.policy != "base":
                policy = tuned = sft(SftSpec(recipe=settings, base=base, data=data), run)
            if settings.augment.policy == "dpo":
                policy = aligned(ReferenceSpec(recipe=settings, base=base, data=data, sft=tuned), run)
            sampled, judged, paired = new_pairs(settings, base, data, policy, prompts, 1, run)
            union = validated_union(prepared, [paired], run.part_of("union"))
            return _finish(prepared, run, sampled, judged, paired, union)


def aligned(given: ReferenceSpec, run: PipelineRun) -> Artifact:
    """The model that DPO makes of a start and pairs: reference, learning rate, training."""
    stored = reference(given, run)
    settings, _ = with_chosen_rate(TuneSpec(**dict(given), reference=stored), run)
    return dpo(DpoSpec(**{**dict(given), "recipe": settings}, reference=stored), run)


def new_pairs(
    settings: Recipe,
    base: ModelRef,
    data: Artifact,
    policy: Artifact | None,
    prompts: tuple[DataSource, ...],
    number: int,
    run: PipelineRun,
) -> tuple[Artifact, Artifact, Artifact]:
    """Sampled answers, what the judge said of them, and the pairs that they make.

    Args:
        settings: The recipe.
        base: Its base model.
        data: The validated data of the recipe alone.
        policy: The model that answers; none where the base does.
        prompts: Files of prompts; none for those of the training pairs.
        number: Of the round.
        run: The pipeline run.
    """
    sampled = sample(SampleSpec(recipe=settings, base=base, data=data, policy=policy, prompts=prompts), run)
    judged = judge_answers(JudgeAnswersSpec(recipe=settings, base=base, data=data, answers=sampled), run)
    return sampled, judged, pair(PairSpec(recipe=settings, answers=sampled, judged=judged, round=number), run)


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
