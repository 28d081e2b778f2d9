"""The chain up to the learning rate: validate, fine-tune, store the reference, try a few rates.

``preflow tune RECIPE`` runs it; what it computes is what ``preflow run`` finds computed.
"""

from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow

from flows.operation.process_records import process_recorded
from flows.operation.slots import hold_slot, require_slot
from flows.running.machine_errors import ask_for_file_handles, clear_machine_errors
from flows.running.preparation import prepare_run
from flows.running.publish import advise, announce, close_dead_runs, flow_run_id, run_name
from preflow.artifacts import Artifact
from preflow.errors import ConfigError
from preflow.specs import LengthsSpec, ReferenceSpec, SftSpec, TuneSpec
from tasks.fetch import fetch
from tasks.lengths import lengths
from tasks.reference import reference
from tasks.runtime.lost_output import outlive_readers
from tasks.runtime.reporting import log_user
from tasks.sft import sft
from tasks.tracking.pipeline_run import pipeline_run
from tasks.tune import tune
from tasks.validate import validate


@flow(name="tune", flow_run_name=run_name)
def tune_rate(recipe: str, overrides: dict[str, Any] | None = None) -> Artifact:
    """Choose the learning rate of a recipe's DPO stage by a range test.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.

    Returns:
        The artifact with the choice, what was measured at each rate, and the picture.
    """
    outlive_readers()
    with clear_machine_errors(), process_recorded(flow_run_id()):
        ask_for_file_handles()
        return _choose(recipe, overrides)


def _choose(recipe: str, overrides: dict[str, Any] | None) -> Artifact:
    prepared = prepare_run(recipe, overrides)
    settings, tuned = prepared.recipe, None
    if not prepared.runs("dpo"):
        raise ConfigError(
            f"strategy is '{settings.strategy}', which runs no DPO stage: its learning rate is what tune chooses"
        )
    require_slot(settings.slot)
    announce(prepared)
    with pipeline_run(settings, prepared.sources, flow_run_id(), run_name(), log_user, close_dead_runs) as run:
        data = validate(prepared.sources, run)
        advise(prepared, data)
        with hold_slot(settings.slot, flow_run_id(), log_user):
            base = fetch(settings, run)
            lengths(LengthsSpec(recipe=settings, base=base, data=data), run)
            if prepared.runs("sft"):
                tuned = sft(SftSpec(recipe=settings, base=base, data=data), run)
            given = ReferenceSpec(recipe=settings, base=base, data=data, sft=tuned)
            return tune(TuneSpec(**dict(given), reference=reference(given, run)), run)
