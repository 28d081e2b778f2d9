"""Pieces of the integration tests: a recipe with two rows, a pipeline in a process of its own, its tracked runs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
RECIPE = """
model_name: tiny
sft: {dataset: sft.jsonl}
dpo: {dataset: dpo.jsonl}
"""


@dataclass
class Pipeline:
    """Starts the fake pipeline in processes that share one home folder.

    Attributes:
        folder: Where the home folder is, and what is written beside it.
        server: Address of the Prefect server that they use; each starts one of its own where none is given.
    """

    folder: Path
    server: str | None = None

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
        if self.server is not None:
            own["PREFECT_API_URL"] = self.server
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


@pytest.fixture(scope="session")
def home_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose databases have their tables and nothing else.

    MLflow and Prefect take ten seconds each to make them: once for all processes of the test run. A first run on an
    empty folder has tests of its own.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    home = folder / "home-with-tables"
    with FileLock(f"{home}.lock"):
        if not home.exists():
            made = tmp_path_factory.mktemp("tables") / "home"
            own = {"PREFLOW_HOME": str(made), "PREFECT_HOME": str(made / "prefect")}
            tables = ["-c", "from tasks.tracking.client import prepare_store; prepare_store()"]
            for command in (tables, ["-m", "prefect", "server", "database", "upgrade", "--yes"]):
                environment = {**clean_environment(), **own}
                subprocess.run([sys.executable, *command], env=environment, cwd=ROOT, check=True, capture_output=True)
            made.rename(home)
    return home


@pytest.fixture
def pipeline(tmp_path: Path, home_with_tables: Path) -> Pipeline:
    """Each process starts the Prefect server that it needs."""
    shutil.copytree(home_with_tables, tmp_path / "home")
    return Pipeline(tmp_path)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, home_with_tables: Path) -> Iterator[str]:
    """Address of a Prefect server for tests about something else: to start one takes as long as the rest of a run."""
    from flows.operation.server_processes import prefect_command
    from tests.fixtures.ports import free_port
    from tests.integration.servers.commands import running, wait_for

    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(home_with_tables / "prefect", folder / "prefect")
    port = free_port()
    own = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with running(prefect_command(port), {**clean_environment(), **own}, folder / "log"):
        wait_for(f"http://127.0.0.1:{port}/api/health")
        yield f"http://127.0.0.1:{port}/api"


@pytest.fixture
def served(pipeline: Pipeline, prefect_server: str) -> Pipeline:
    """All processes use one Prefect server."""
    pipeline.server = prefect_server
    return pipeline


@pytest.fixture
def start(pipeline: Pipeline, recipe: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Start the pipeline on the recipe and expect it to end well."""

    def run(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
        done = pipeline.start(str(recipe), *arguments, **options)
        assert done.returncode == 0, done.stderr
        return done

    return run
