"""Two first runs at once on a fresh home folder both succeed, and one of them alone makes MLflow's tables."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, Pipeline, clean_environment


def two_at_once(pipeline: Pipeline, argument: str) -> list[str]:
    """Run two processes on one home folder; what each of them printed where it failed."""
    own = {"PREFLOW_HOME": str(pipeline.home), "MEETING": str(pipeline.folder / "meeting"), "COLUMNS": "100"}
    logs = [pipeline.folder / f"log-{number}" for number in range(2)]
    processes = []
    for log in logs:
        with log.open("w") as output:  # no pipes, which an orphaned server would hold open
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.integration.first_run", argument],
                    stdout=output,
                    stderr=output,
                    env={**clean_environment(), **own},
                    cwd=ROOT,
                    start_new_session=True,
                )
            )
    try:
        codes = [process.wait(400) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [log.read_text() for log, code in zip(logs, codes, strict=True) if code]


@pytest.mark.slow
def test_two_processes_make_mlflows_database_at_once(pipeline: Pipeline) -> None:
    assert two_at_once(pipeline, "store") == []
    assert len(list((pipeline.folder / "meeting" / "mlflow").iterdir())) == 2, "they met"


@pytest.mark.nightly
@pytest.mark.server
def test_two_first_runs_at_once_both_succeed(pipeline: Pipeline, recipe: Path) -> None:
    assert two_at_once(pipeline, str(recipe)) == []
    assert [run.info.status for run in pipeline.runs() if "mlflow.parentRunId" not in run.data.tags] == ["FINISHED"] * 2
