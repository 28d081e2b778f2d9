"""Rounds of new pairs and alignment: sample, judge, pair, align, measure, as often as the recipe says.

``preflow iterate RECIPE`` runs it. Every round is measured on the recipe's own held-out rows against the model that the
first round started from, so that KL and accuracy of all rounds can be compared.
"""

from dataclasses import dataclass
from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.augment import aligned, new_pairs, validated_union
from flows.operation.process_records import process_recorded
from flows.operation.slots import hold_slot, require_slot
from flows.running.machine_errors import ask_for_file_handles, clear_machine_errors
from flows.running.preparation import PreparedRun, prepare_run
from flows.running.publish import advise, announce, close_dead_runs, flow_run_id, run_name
from flows.running.rounds import Rounds, as_markdown, table_rows
from preflow.artifacts import Artifact
from preflow.config.checks.augment import require_augmentable
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.sources import resolve_sources
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from preflow.on_policy.rounds import Round, kept_round, round_of, stop_reason
from preflow.specs import EvaluateSpec, LengthsSpec, ReferenceSpec, SftSpec
from tasks.evaluate import evaluate
from tasks.fetch import fetch
from tasks.lengths import lengths
from tasks.reference import reference
from tasks.runtime.lost_output import outlive_readers
from tasks.runtime.reporting import artifact_key, log_user
from tasks.sft import sft
from tasks.tracking.pipeline_run import PipelineRun, log_round, log_summary, pipeline_run
from tasks.validate import validate


@flow(name="iterate", flow_run_name=run_name)
def iterate(recipe: str, overrides: dict[str, Any] | None = None) -> Rounds:
    """Align a recipe's model in rounds, each on pairs of answers that the model of the round before gave.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.
    """
    outlive_readers()
    with clear_machine_errors(), process_recorded(flow_run_id()):
        ask_for_file_handles()
        return _iterate(recipe, overrides)


def _iterate(recipe: str, overrides: dict[str, Any] | None) -> Rounds:
    prepared = prepare_run(recipe, overrides)
    settings, tuned = prepared.recipe, None
    require_augmentable(settings)
    prompts = resolve_sources(settings.augment.prompts or ())
    require_slot(settings.slot)
    announce(prepared)
    given = (settings, prepared.sources, flow_run_id(), run_name(), log_user, close_dead_runs, "iterate")
    with pipeline_run(*given) as run:
        data = validate(prepared.sources, run)
        advise(prepared, data)
        with hold_slot(settings.slot, flow_run_id(), log_user):
            base = fetch(settings, run)
            lengths(LengthsSpec(recipe=settings, base=base, data=data), run)
            if prepared.runs("sft"):
                tuned = sft(SftSpec(recipe=settings, base=base, data=data), run)
            start = ReferenceSpec(recipe=settings, base=base, data=data, sft=tuned)
            chain = _Chain(prepared, start, reference(start, run), prompts, run)
            return _finish(prepared, run, chain, chain.run())


@dataclass
class _Chain:
    """The rounds of one run.

    Attributes:
        prepared: The recipe and its data.
        start: The model that the first round starts from, and the recipe's own data.
        stored: Log-probs of the recipe's pairs under that model.
        prompts: Files of prompts; none for those of the training pairs.
        tracked: The pipeline run.
    """

    prepared: PreparedRun
    start: ReferenceSpec
    stored: Artifact
    prompts: tuple[DataSource, ...]
    tracked: PipelineRun

    def __post_init__(self) -> None:
        """Nothing was made yet."""
        self.made: list[Artifact] = []
        self.models: list[Artifact] = []
        self.rounds: list[Round] = []

    def run(self) -> str:
        """Run rounds until the recipe's number is reached, or one of them is a reason to stop; why it stopped."""
        recipe = self.prepared.recipe
        for number in range(1, recipe.augment.iterations + 1):
            if not self._round(number, self.tracked.part_of(f"round-{number}")):
                return f"round {number} made no pair"
            log_round(self.tracked, self.rounds[-1].metrics(), number)
            if why := stop_reason(self.rounds, recipe):
                return why
        return ""

    def _round(self, number: int, run: PipelineRun) -> bool:
        """One round; false where it made no pair."""
        recipe, start = self.prepared.recipe, self.start
        policy = self.models[-1] if self.models else self._first_policy()
        _, _, paired = new_pairs(recipe, start.base, start.data, policy, self.prompts, number, run)
        fixed = recipe.augment.reference == "fixed"
        self.made = [*self.made, paired] if fixed else [paired]
        if not paired.load("report.json")["pairs"]:
            return False
        union = validated_union(self.prepared, self.made, run)
        assert union is not None, "this round made pairs"
        begin: dict[str, Any] = {"base": start.base, "sft": start.sft}
        if not fixed and self.models:
            begin = {"base": self._as_base(self.models[-1]), "sft": None}
        model = aligned(ReferenceSpec(recipe=recipe, data=union, **begin), run)
        asked = EvaluateSpec(
            recipe=recipe, base=start.base, data=start.data, sft=start.sft, dpo=model, reference=self.stored
        )
        evaluation = evaluate(asked, run)
        self.models.append(model)
        self.rounds.append(round_of(number, paired, evaluation))
        return True

    def _first_policy(self) -> Artifact | None:
        if self.prepared.recipe.augment.policy == "dpo":
            return aligned(self.start, self.tracked)
        return None if self.prepared.recipe.augment.policy == "base" else self.start.sft

    def _as_base(self, model: Artifact) -> ModelRef:
        """A round's model as that from which the next one goes on: named on purpose, it may be aligned further."""
        named = self.prepared.recipe.model_copy(update={"model_name": str(model.file("model"))})
        return resolve_model(named, Silent())


def _finish(prepared: PreparedRun, run: PipelineRun, chain: _Chain, why: str) -> Rounds:
    """Leave the rounds side by side in Prefect and MLflow, and name the model that is kept."""
    kept = kept_round(chain.rounds, prepared.recipe)
    made = Rounds(
        recipe=prepared.recipe.name,
        mlflow_run_id=run.run_id,
        rounds=tuple(chain.rounds),
        wanted=prepared.recipe.augment.iterations,
        stopped=why,
        kept=kept,
        model=None if kept is None else chain.models[kept - 1],
    )
    key = artifact_key(run.recipe)
    text = as_markdown(made)
    create_markdown_artifact(text, key=f"{key}-rounds", description="Rounds of new pairs and alignment")
    create_table_artifact(table_rows(made), key=f"{key}-rounds-table", description="Rounds side by side")
    log_summary(run, text)
    return made
