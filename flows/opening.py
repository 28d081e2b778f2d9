"""How a flow that runs stages begins: obstacles first, then the run, its data, its base model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flows.operation.process_records import process_recorded
from flows.operation.slots import hold_slot, require_slot
from flows.running.machine_errors import ask_for_file_handles, clear_machine_errors
from flows.running.preparation import PreparedRun, prepare_run, with_named_prompts
from flows.running.publish import advise, announce, close_dead_runs, flow_run_id, run_name
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.models.resolve import ModelRef
from preflow.specs import LengthsSpec, ReferenceSpec, SftSpec
from tasks.fetch import fetch
from tasks.lengths import lengths
from tasks.runtime.lost_output import outlive_readers
from tasks.runtime.reporting import log_user
from tasks.sft import sft
from tasks.tracking.pipeline_run import PipelineRun, pipeline_run
from tasks.validate import validate


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run whose data are fit.

    Attributes:
        prepared: The recipe and the data it names.
        run: Its run in MLflow.
        data: The validated data.
        base: The model that training starts from.
    """

    prepared: PreparedRun
    run: PipelineRun
    data: Artifact
    base: ModelRef

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.prepared.recipe

    def fine_tuned(self) -> Artifact | None:
        """The model that SFT makes; none where the strategy has no SFT."""
        if not self.prepared.runs("sft"):
            return None
        return sft(SftSpec(recipe=self.recipe, base=self.base, data=self.data), self.run)

    def to_score(self, tuned: Artifact | None) -> ReferenceSpec:
        """The pairs to score under the model that DPO starts from: the one of SFT, or the base."""
        return ReferenceSpec(recipe=self.recipe, base=self.base, data=self.data, sft=tuned)


@contextmanager
def opened_run(
    recipe: str,
    overrides: dict[str, Any] | None,
    kind: str = "pipeline",
    require: Callable[[Recipe], object] = lambda recipe: None,
) -> Iterator[OpenedRun]:
    """Open a run inside a flow, and hold the recipe's slot while the block runs.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.
        kind: As of ``pipeline_run``.
        require: Raises where the flow cannot run the recipe, before anything starts.
    """
    outlive_readers()
    with clear_machine_errors(), process_recorded(flow_run_id()):
        ask_for_file_handles()
        prepared = prepare_run(recipe, overrides)
        settings = prepared.recipe
        require(settings)
        require_slot(settings.slot)
        sources = with_named_prompts(prepared.sources, settings, every=True)
        prepared = prepared.model_copy(update={"sources": sources})
        announce(prepared)
        given = (settings, prepared.sources, flow_run_id(), run_name(), log_user, close_dead_runs, kind)
        with pipeline_run(*given) as run:
            data = validate(prepared.sources, run)
            advise(prepared, data)
            with hold_slot(settings.slot, flow_run_id(), log_user):
                base = fetch(settings, run)
                lengths(LengthsSpec(recipe=settings, base=base, data=data), run)
                yield OpenedRun(prepared, run, data, base)
