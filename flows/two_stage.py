"""The whole chain: validate, fine-tune, store the reference, align, evaluate.

``preflow run RECIPE --set dpo.beta=0.2`` runs it, ``python -m flows.two_stage`` does the same.
"""

from typing import Any

if __name__ == "__main__":  # before all imports, which a recipe that cannot be run and ``--help`` do without
    import importlib

    import typer

    from flows.running.terminal import pipeline_command

    typer.run(pipeline_command(lambda: importlib.import_module("flows.two_stage").two_stage))

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow

from flows.operation.process_records import process_recorded
from flows.operation.slots import hold_slot, require_slot
from flows.running.machine_errors import ask_for_file_handles, clear_machine_errors
from flows.running.preparation import RunResult, benchmark_spec, prepare_run
from flows.running.publish import advise, announce, close_dead_runs, diagnosis_of, finish, flow_run_id, run_name
from flows.running.registration import describe_model, register_model
from preflow.specs import DpoSpec, EvaluateSpec, JudgeSpec, LengthsSpec, ReferenceSpec, SftSpec, TuneSpec
from tasks.benchmarks import benchmarks
from tasks.dpo import dpo
from tasks.evaluate import evaluate
from tasks.fetch import fetch
from tasks.judge import judge
from tasks.lengths import lengths
from tasks.reference import reference
from tasks.runtime.lost_output import outlive_readers
from tasks.runtime.reporting import log_user
from tasks.sft import sft
from tasks.tracking.pipeline_run import pipeline_run
from tasks.tune import with_chosen_rate
from tasks.validate import validate


@flow(name="two-stage", flow_run_name=run_name)
def two_stage(recipe: str, overrides: dict[str, Any] | None = None) -> RunResult:
    """Turn demonstrations and preference pairs into an aligned, evaluated model.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name: ``{"dpo.beta": 0.2}``.
    """
    outlive_readers()
    with clear_machine_errors(), process_recorded(flow_run_id()):
        ask_for_file_handles()
        return _run_stages(recipe, overrides)


def _run_stages(recipe: str, overrides: dict[str, Any] | None) -> RunResult:
    prepared = prepare_run(recipe, overrides)
    require_slot(prepared.recipe.slot)
    announce(prepared)
    with pipeline_run(prepared.recipe, prepared.sources, flow_run_id(), run_name(), log_user, close_dead_runs) as run:
        settings, tuned, stored, choice, aligned = prepared.recipe, None, None, None, None
        data = validate(prepared.sources, run)
        advise(prepared, data)
        with hold_slot(settings.slot, flow_run_id(), log_user):
            base = fetch(settings, run)
            lengths(LengthsSpec(recipe=settings, base=base, data=data), run)
            if prepared.runs("sft"):
                tuned = sft(SftSpec(recipe=settings, base=base, data=data), run)
            if prepared.runs("dpo"):
                given = ReferenceSpec(recipe=settings, base=base, data=data, sft=tuned)
                stored = reference(given, run)
                settings, choice = with_chosen_rate(TuneSpec(**dict(given), reference=stored), run)
                aligned = dpo(DpoSpec(**{**dict(given), "recipe": settings}, reference=stored), run)
            models = {"sft": tuned, "reference": stored, "dpo": aligned}
            verdict = evaluate(EvaluateSpec(recipe=settings, base=base, data=data, **models), run)
            benchmarked = None
            if settings.evaluation.benchmarks is not None:
                benchmarked = benchmarks(benchmark_spec(settings, base, data, sft=tuned, dpo=aligned), run)
            judged = None
            if settings.evaluation.judge is not None:
                judged = judge(JudgeSpec(recipe=settings, data=data, evaluation=verdict), run)
            made = {"validate": data, **models, "evaluate": verdict, "benchmarks": benchmarked, "judge": judged}
            card = describe_model(run, prepared.recipe, base, made)
            diagnosis = diagnosis_of(settings, run, data, verdict, {"sft": tuned, "tune": choice, "dpo": aligned})
            register_model(run, settings, base, aligned or tuned, card)
            return finish(run, made, aligned or tuned, diagnosis)
