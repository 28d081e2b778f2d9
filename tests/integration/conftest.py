"""Pieces of the integration tests: a recipe with two rows, a pipeline in a process of its own, its tracked runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """
model_name: tiny
sft: {dataset: sft.jsonl}
dpo: {dataset: dpo.jsonl}
"""


@dataclass
class Pipeline:
    """Starts the fake pipeline in processes that share one home folder."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def calls(self) -> list[str]:
        log = self.folder / "calls"
        return log.read_text().split() if log.exists() else []

    def start(
        self, *arguments: str, module: str = "tests.integration.fakes", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the pipeline to its end; files instead of pipes, which an orphaned server would hold open."""
        command = [sys.executable, "-m", module, *arguments]
        out, err = self.folder / "out", self.folder / "err"
        own = {"PREFLOW_HOME": str(self.home), "FAKE_CALLS": str(self.folder / "calls"), "COLUMNS": "100"}
        with out.open("w") as stdout, err.open("w") as stderr:
            done = subprocess.run(
                command,
                stdout=stdout,
                stderr=stderr,
                env={**clean_environment(), **own, **environment},
                cwd=ROOT,
                check=False,
                timeout=400,
                start_new_session=True,
            )
        return subprocess.CompletedProcess(command, done.returncode, out.read_text(), err.read_text())

    def runs(self) -> list[Any]:
        """Every MLflow run of this home, parents first."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.home}/mlflow/mlflow.db")
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
        return sorted(runs, key=lambda run: "mlflow.parentRunId" in run.data.tags)

    def steps(self, run_id: str, metric: str) -> list[int]:
        """The steps at which a metric was recorded, in order of recording."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.home}/mlflow/mlflow.db")
        return [m.step for m in client.get_metric_history(run_id, metric)]


def clean_environment() -> dict[str, str]:
    """This process's environment without what the test run itself set for its own home."""
    own = ("PREFECT_", "MLFLOW_", "PREFLOW_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def write_recipe(folder: Path) -> Path:
    """A recipe and its two data files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sft.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (folder / "dpo.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)
    return recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


@pytest.fixture
def start(pipeline: Pipeline, recipe: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Start the pipeline on the recipe and expect it to end well."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = pipeline.start(str(recipe), *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done

    return run
