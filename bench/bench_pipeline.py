"""What orchestration costs: a whole run's wall time against its stages' own work, and a rerun with nothing changed.

``python -m bench.bench_pipeline [RECIPE] [--quick]`` runs the flow twice in a fresh home folder (models already fetched
are used) and prints both times, each stage's own seconds, and last one JSON line. ``--quick`` trains two steps a stage.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from preflow.environment import models_folder


def main(
    recipe: Annotated[str, typer.Argument(help="The recipe.")] = "recipes/demo.yaml",
    quick: Annotated[bool, typer.Option("--quick", help="Two steps a stage, few prompts.")] = False,
) -> None:
    """Run twice and compare."""
    changes = ["sft.max_steps=2", "dpo.max_steps=2", "evaluation.kl_prompts=0"] if quick else []
    with tempfile.TemporaryDirectory(prefix="preflow-bench-") as folder:
        environment = {**os.environ, "PREFLOW_HOME": folder}
        if models_folder().is_dir():
            (Path(folder) / "models").symlink_to(models_folder().resolve())
        walls = [run(recipe, changes, environment) for _ in range(2)]
        stages = own_seconds(folder)
    for stage, seconds in stages.items():
        print(f"{stage:10s} {seconds:8.1f} s of its own work")
    work = sum(stages.values())
    print(f"first run  {walls[0]:8.1f} s, of which orchestration {walls[0] - work:.1f} s")
    print(f"second run {walls[1]:8.1f} s, every stage cached")
    values = {"first": walls[0], "stages": work, "overhead": walls[0] - work, "rerun": walls[1]}
    ratios = {"overhead_share": (walls[0] - work) / walls[0], "rerun_share": walls[1] / walls[0]}
    rounded = {f"{name}_seconds": round(value, 1) for name, value in values.items()}
    print(json.dumps({**rounded, **{name: round(value, 4) for name, value in ratios.items()}}))


def run(recipe: str, changes: list[str], environment: dict[str, str]) -> float:
    """Seconds of one run, from nothing to its table."""
    arguments = [part for change in changes for part in ("--set", change)]
    begin = time.perf_counter()
    command = [sys.executable, "-m", "flows.two_stage", recipe, *arguments]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def own_seconds(folder: str) -> dict[str, float]:
    """Per stage the wall time that its own work took, from the first run's metrics."""
    import mlflow

    store = mlflow.MlflowClient(f"sqlite:///{Path(folder) / 'mlflow' / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in store.search_experiments()]
    found: dict[str, float] = {}
    for each in store.search_runs(experiments):
        stage = each.data.tags.get("stage", "")
        seconds = each.data.metrics.get(f"{stage}/work_seconds")
        if seconds is not None:
            found[stage] = max(seconds, found.get(stage, 0.0))
    return found


if __name__ == "__main__":
    typer.run(main)
