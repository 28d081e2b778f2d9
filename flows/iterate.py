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

from flows.augment import aligned, new_pairs, prompts_of, validated_union
from flows.opening import OpenedRun, opened_run
from flows.running.preparation import PreparedRun
from flows.running.publish import run_name
from flows.running.rounds import Rounds, as_markdown, table_rows
from preflow.artifacts import Artifact
from preflow.data.files.raw_rows import DataSource
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from preflow.on_policy.rounds import Round, kept_round, round_of, stop_reason
from preflow.specs import EvaluateSpec, ReferenceSpec
from tasks.evaluate import evaluate
from tasks.reference import reference
from tasks.runtime.reporting import artifact_key
from tasks.tracking.pipeline_run import PipelineRun, log_round, log_summary


@flow(name="iterate", flow_run_name=run_name)
def iterate(recipe: str, overrides: dict[str, Any] | None = None) -> Rounds:
    """Align a recipe's model in rounds, each on pairs of answers that the model of the round before gave.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.
    """
    with opened_run(recipe, overrides, "iterate", prompts_of) as opened:
        start = opened.to_score(opened.fine_tuned())
        chain = _Chain(opened, start, reference(start, opened.run), prompts_of(opened.recipe))
        return _finish(opened.prepared, opened.run, chain, chain.run())


@dataclass
class _Chain:
    """The rounds of one run.

    Attributes:
        opened: The run.
        start: The model that the first round starts from, and the recipe's own data.
        stored: Log-probs of the recipe's pairs under that model.
        prompts: Files of prompts; none for those of the training pairs.
    """

    opened: OpenedRun
    start: ReferenceSpec
    stored: Artifact
    prompts: tuple[DataSource, ...]

    def __post_init__(self) -> None:
        """Nothing was made yet."""
        self.made: list[Artifact] = []
        self.models: list[Artifact] = []
        self.rounds: list[Round] = []

    def run(self) -> str:
        """Run rounds until the recipe's number is reached, or one of them is a reason to stop; why it stopped."""
        recipe = self.opened.recipe
        for number in range(1, recipe.augment.iterations + 1):
            if not self._round(number, self.opened.run.part_of(f"round-{number}")):
                return f"round {number} made no pair"
            log_round(self.opened.run, self.rounds[-1].metrics(), number)
            if why := stop_reason(self.rounds, recipe):
                return why
        return ""

    def _round(self, number: int, run: PipelineRun) -> bool:
        """One round; false where it made no pair."""
        recipe, start = self.opened.recipe, self.start
        policy = self.models[-1] if self.models else self._first_policy()
        _, _, paired = new_pairs(self.opened, policy, self.prompts, number, run)
        fixed = recipe.augment.reference == "fixed"
        self.made = [*self.made, paired] if fixed else [paired]
        if not paired.load("report.json")["pairs"]:
            return False
        union = validated_union(self.opened.prepared, self.made, run)
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
        if self.opened.recipe.augment.policy == "dpo":
            return aligned(self.start, self.opened.run)
        return None if self.opened.recipe.augment.policy == "base" else self.start.sft

    def _as_base(self, model: Artifact) -> ModelRef:
        """A round's model as that from which the next one goes on: named on purpose, it may be aligned further."""
        named = self.opened.recipe.model_copy(update={"model_name": str(model.file("model"))})
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
