"""Benchmarks of every model of a run, document by document."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preflow.artifacts import write_json
from preflow.benchmarks.harness import DocumentResult, Harness, Runner
from preflow.benchmarks.scores import Results, benchmark_report
from preflow.benchmarks.tasks import tasks_of
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.evaluation.models import ModelSet
from preflow.observer import Observer
from preflow.specs import BenchmarkSpec, EvaluateSpec


def run_benchmarks(spec: BenchmarkSpec, out: Path, observer: Observer) -> None:
    """Let every model of the run do the recipe's tasks.

    Writes ``benchmarks.json`` (by task: metric, every model's mean with its interval, the last model's paired
    difference to the one that it was trained from), ``documents.json`` (by model and task: each document's digest and
    value) and ``metrics.json``.

    Raises:
        ConfigError: A task cannot be loaded.
    """
    recipe = spec.recipe
    settings = recipe.evaluation.benchmarks
    assert settings is not None, "the stage runs where a recipe names tasks"
    models = ModelSet(EvaluateSpec(recipe=recipe, base=spec.base, data=spec.data, sft=spec.sft, dpo=spec.dpo))
    results = {}
    for done, name in enumerate(models.names, start=1):
        results[name] = do_tasks(models, name, settings, runner())
        observer.progress(done, len(models.names), f"benchmarks: {name} model")
    evaluation = recipe.evaluation
    report = benchmark_report(results, evaluation.confidence, evaluation.bootstrap_samples, recipe.seed)
    write_json(out / "benchmarks.json", report)
    documents = {
        name: {task: [[each.id, each.value] for each in rows] for task, rows in found.items()}
        for name, found in results.items()
    }
    write_json(out / "documents.json", documents)
    write_json(out / "metrics.json", benchmark_metrics(report))


def runner() -> Runner:
    """What does the tasks."""
    return Harness()


def do_tasks(models: ModelSet, name: str, settings: BenchmarkSettings, does: Runner) -> Results:
    """One model's results, by task."""
    found: Mapping[str, list[DocumentResult]] = does.run(
        models.use(name), models.tokenizer, tasks_of(settings.tasks), settings
    )
    return found


def benchmark_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a report: ``bench/<task>/<metric>_<model>`` and ``bench/<task>/delta``."""
    metrics: dict[str, float] = {}
    for task, found in report.items():
        for model, share in found["models"].items():
            metrics[f"bench/{task}/{found['metric']}_{model}"] = float(share["value"])
        if "delta" in found:
            metrics[f"bench/{task}/delta"] = float(found["delta"]["difference"]["value"])
    return metrics
