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

from flows.opening import OpenedRun, opened_run
from flows.running.preparation import RunResult, benchmark_spec
from flows.running.publish import diagnosis_of, finish, run_name
from flows.running.registration import describe_model, register_model
from preflow.specs import DpoSpec, EvaluateSpec, JudgeSpec, TuneSpec
from tasks.benchmarks import benchmarks
from tasks.dpo import dpo
from tasks.evaluate import evaluate
from tasks.judge import judge
from tasks.reference import reference
from tasks.tune import with_chosen_rate


@flow(name="two-stage", flow_run_name=run_name)
def two_stage(recipe: str, overrides: dict[str, Any] | None = None) -> RunResult:
    """Turn demonstrations and preference pairs into an aligned, evaluated model.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name: ``{"dpo.beta": 0.2}``.
    """
    with opened_run(recipe, overrides) as opened:
        return _run_stages(opened)


def _run_stages(opened: OpenedRun) -> RunResult:
    settings, run, data, base = opened.recipe, opened.run, opened.data, opened.base
    stored, choice, aligned, tuned = None, None, None, opened.fine_tuned()
    if opened.prepared.runs("dpo"):
        given = opened.to_score(tuned)
        stored = reference(given, run)
        settings, choice = with_chosen_rate(TuneSpec(**dict(given), reference=stored), run)
        aligned = dpo(DpoSpec(**{**dict(given), "recipe": settings}, reference=stored), run)
    models = {"sft": tuned, "reference": stored, "dpo": aligned}
    verdict = evaluate(EvaluateSpec(recipe=settings, base=base, data=data, **models), run)
    benchmarked, judged = None, None
    if settings.evaluation.benchmarks is not None:
        benchmarked = benchmarks(benchmark_spec(settings, base, data, sft=tuned, dpo=aligned), run)
    if settings.evaluation.judge is not None:
        judged = judge(JudgeSpec(recipe=settings, data=data, evaluation=verdict), run)
    made = {"validate": data, **models, "evaluate": verdict, "benchmarks": benchmarked, "judge": judged}
    card = describe_model(run, opened.recipe, base, made)
    register_model(run, settings, base, aligned or tuned, card)
    trained = {"sft": tuned, "tune": choice, "dpo": aligned}
    diagnosis = diagnosis_of(settings, run, data, verdict, trained, judged)
    return finish(run, made, aligned or tuned, diagnosis)
