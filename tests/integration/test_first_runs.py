"""Two first runs at once on a home folder that does not exist yet: both make databases, and both succeed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, clean_environment, write_recipe

#: What MLflow's and Prefect's migrations leave in the output where two of them run at once.
BROKEN = ("OperationalError", "startup failed", "Traceback")


@pytest.mark.slow
@pytest.mark.server
def test_two_first_runs_at_once_both_succeed(tmp_path: Path) -> None:
    names = ("one", "two")
    environment = {**clean_environment(), "PREFLOW_HOME": str(tmp_path / "home"), "COLUMNS": "100"}
    runs = {}
    for me, other in (names, names[::-1]):
        recipe = write_recipe(tmp_path / "recipes" / me)
        recipe = recipe.rename(recipe.with_stem(me))
        command = [sys.executable, "-m", "tests.integration.first_runs", me, other, str(tmp_path), str(recipe)]
        with (tmp_path / f"{me}.log").open("w") as log:
            runs[me] = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
    try:
        codes = {me: run.wait(timeout=400) for me, run in runs.items()}
    finally:
        for run in runs.values():
            run.kill()
    logs = {me: (tmp_path / f"{me}.log").read_text() for me in names}
    assert codes == dict.fromkeys(names, os.EX_OK), logs
    assert not [line for log in logs.values() for line in log.splitlines() if any(word in line for word in BROKEN)]

    from mlflow import MlflowClient

    store = MlflowClient(f"sqlite:///{tmp_path}/home/mlflow/mlflow.db")
    found = {e.name: store.search_runs([e.experiment_id]) for e in store.search_experiments()}
    for me in names:
        assert {run.info.status for run in found[me]} == {"FINISHED"}
        assert len(found[me]) == 7, "the run and its six stages"
