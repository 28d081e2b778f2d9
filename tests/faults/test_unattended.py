"""A deployment is left alone: worker and servers fail under its run, which ends by itself; then its schedule fires.

Whether a schedule fires depends on versions that must agree (Prefect's scheduler fails silently under SQLAlchemy 2.1),
so the test starts what is installed, and nothing but the server can have made the scheduled run.
"""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import write_tiny_recipe
from tests.faults.checks import Ended, check
from tests.faults.injections import Fault
from tests.faults.moments import Recording, held_inside, newest_checkpoint
from tests.faults.prefect_records import Prefect
from tests.faults.services import POOL, Site, wait_until
from tests.integration.conftest import ROOT
from tests.integration.servers.commands import post, prefect, preflow

#: Seconds in which a run comes to a stage, and ends.
_PATIENCE = 500.0
_INTERVAL = 10
#: Seconds for which a server is away.
_AWAY = 5.0
BETA = ("--set", "dpo.beta=0.2")


@pytest.fixture
def folder_with_tables(tmp_path: Path, home_with_tables: Path) -> Path:
    """A site's folder whose databases have their tables."""
    shutil.copytree(home_with_tables / "prefect", tmp_path / "server")
    shutil.copytree(home_with_tables / "mlflow", tmp_path / "mlflow")
    return tmp_path


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(1800)
def test_a_run_outlives_a_stopped_worker_and_outages_of_both_servers_and_then_its_schedule_fires(
    folder_with_tables: Path, tiny_folder: Path, subtests: pytest.Subtests
) -> None:
    """The worker hands the run back in SFT and another ends it; Prefect is away in the reference, MLflow in DPO.

    The scheduled run asks for what the run before it made: it is all cached.
    """
    recipe = write_tiny_recipe(folder_with_tables, tiny_folder, {"max_steps": 12})
    with Site(folder_with_tables, "sqlite").running() as site:
        records = Prefect(site.environment["PREFECT_API_URL"])
        with subtests.test("the packaged deployments"):
            stored = packaged_deployments(site)
            assert str(ROOT) not in stored
            assert json.loads(stored)["entrypoint"] == "flows.two_stage.two_stage"
        preflow(site.environment, "deploy", str(recipe), "--pool", POOL)
        with Recording(site.home) as recording:
            preflow(site.environment, "submit", str(recipe), *BETA)
            (run,) = (found["id"] for found in post(site.environment, "flow_runs/filter", {}))
            with held_inside(recording, "sft", _PATIENCE):
                kept = newest_checkpoint(site.home, "sft")
            site.worker.stop(signal.SIGTERM)
            assert site.worker.process is not None
            assert site.worker.process.returncode == 0, site.worker.log.read_text()[-3000:]
            assert records.flow_run(run)["state"]["name"] == "AwaitingRetry"
            site.start()
            with held_inside(recording, "reference", _PATIENCE):
                site.prefect.stop(seconds=20)
            time.sleep(_AWAY)
            site.start()
            with held_inside(recording, "dpo", _PATIENCE):
                site.mlflow.kill()
            with held_inside(recording, "evaluate", _PATIENCE):
                site.start()
            found = wait_until(lambda: records.ended(run), _PATIENCE, site.worker.log.read_text()[-3000:])
        with subtests.test("it ended by itself, with the settings that it was given"):
            assert found["run_count"] == 2
            assert found["name"].startswith("tiny-beta0.2-")
            fault = Ended(site, records, found, recording, None, "sft", Fault(restarts=True), kept)
            assert list(check(fault)) == []
            assert {"tiny-summary", "tiny-metrics", "tiny-mlflow", "tiny-dpo"} <= artifacts(site)
        with subtests.test("a schedule fires"):
            preflow(site.environment, "deploy", str(recipe), "--pool", POOL, "--every", f"{_INTERVAL}s", *BETA)
            fired = wait_until(lambda: scheduled_that_ended(site), _PATIENCE, site.prefect.log.read_text()[-3000:])
            assert fired["state"]["type"] == "COMPLETED", fired["state"]
            assert fired["parameters"]["overrides"] == {"dpo.beta": "0.2"}, "as --set gives it"
            assert fired["name"].startswith("tiny-beta0.2-")


def packaged_deployments(site: Site) -> str:
    """What the server has of the nightly demo once the packaged deployments are made."""
    pool = {"name": "preflow-pool", "type": "process"}
    httpx.post(f"{site.environment['PREFECT_API_URL']}/work_pools/", json=pool, timeout=30).raise_for_status()
    prefect(site.environment, "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
    return prefect(site.environment, "deployment", "inspect", "two-stage/nightly-demo", "--output", "json")


def artifacts(site: Site) -> set[str]:
    """Names of what the runs show in Prefect."""
    return {str(artifact["key"]) for artifact in post(site.environment, "artifacts/filter", {})}


def scheduled_that_ended(site: Site) -> dict[str, Any] | None:
    """The first run that the server made by itself and that has ended."""
    asked = {"sort": "EXPECTED_START_TIME_ASC", "limit": 100}
    for run in post(site.environment, "flow_runs/filter", asked):
        if run["auto_scheduled"] and run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"):
            return dict(run)
    return None
