"""The kill matrix: a fault inside a stage costs a run nothing.

``python -m tests.faults`` runs cells by name and prints the table.
"""

import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import write_tiny_recipe
from tests.faults import __main__ as command
from tests.faults.cells import DATABASES, Cell, all_cells
from tests.faults.checks import Ended, check
from tests.faults.injections import FAULTS, Fault
from tests.faults.moments import Recording, held_inside, newest_checkpoint
from tests.faults.prefect_records import Prefect
from tests.faults.services import POOL, Site, wait_until
from tests.integration.servers.test_deployment import preflow

#: Seconds in which a run comes to a stage, and ends.
_PATIENCE = 500.0


@pytest.fixture
def folder_with_tables(tmp_path: Path, home_with_tables: Path) -> Path:
    """A site's folder whose databases have their tables."""
    shutil.copytree(home_with_tables / "prefect", tmp_path / "server")
    shutil.copytree(home_with_tables / "mlflow", tmp_path / "mlflow")
    return tmp_path


@pytest.mark.nightly
@pytest.mark.server
@pytest.mark.timeout(1800)
def test_a_stopped_worker_and_short_outages_of_both_servers_cost_a_run_nothing(
    folder_with_tables: Path, tiny_folder: Path
) -> None:
    """The worker hands the run back in SFT and another ends it; Prefect is away in the reference, MLflow in DPO."""
    recipe = write_tiny_recipe(folder_with_tables, tiny_folder, {"max_steps": 12})
    with Site(folder_with_tables, "sqlite").running() as site, Recording(site.home) as recording:
        preflow(site.environment, "deploy", str(recipe), "--pool", POOL)
        prefect = Prefect(site.environment["PREFECT_API_URL"])
        run = prefect.submit(prefect.deployment("two-stage/tiny"))
        with held_inside(recording, "sft", _PATIENCE):
            kept = newest_checkpoint(site.home, "sft")
        site.worker.stop(signal.SIGTERM)
        assert site.worker.process is not None
        assert site.worker.process.returncode == 0, site.worker.log.read_text()[-3000:]
        assert prefect.flow_run(run)["state"]["name"] == "AwaitingRetry"
        site.start()
        with held_inside(recording, "reference", _PATIENCE):
            site.prefect.stop()
        with held_inside(recording, "dpo", _PATIENCE):
            site.mlflow.kill()
        site.start()
        found = wait_until(lambda: prefect.ended(run), _PATIENCE, site.worker.log.read_text()[-3000:])
        assert found["run_count"] == 2
        ended = Ended(site, prefect, found, recording, None, "sft", Fault(restarts=True), kept)
        assert list(check(ended)) == []


@pytest.mark.nightly
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("database", DATABASES)
def test_every_cell_of_the_matrix_holds(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells that held when this was interrupted are not run again: their results are in ``build/faults.json``."""
    if database == "postgresql" and shutil.which("initdb") is None:
        pytest.skip("needs PostgreSQL")
    code = command.main(["--database", database, "--keep", str(tmp_path), "--again"])
    assert code == 0, capsys.readouterr().out


def test_the_matrix_has_every_stage_for_every_fault_that_can_happen_there() -> None:
    cells = all_cells()
    assert len(cells) == len(set(cells)) == 2 * 8 * 5 + 5 + 2 * 3  # PostgreSQL alone restarts it; three stages launch
    assert {cell.fault for cell in cells} == FAULTS.keys()


def test_the_table_shows_what_held_what_did_not_and_what_cannot_happen(tmp_path: Path) -> None:
    held, broken = Cell("sqlite", "rank-sigkill", "sft"), Cell("sqlite", "rank-sigkill", "dpo")
    state: command.State = {str(held): {"faults": []}, str(broken): {"faults": ["an orphan"]}}
    command.write_state(tmp_path / "state.json", state)
    cells = [held, broken, Cell("sqlite", "rank-sigkill", "reference")]
    lines = command.table(cells, command.read_state(tmp_path / "state.json")).splitlines()
    assert lines[0].split() == ["Prefect", "on", "sqlite", "validate", "sft", "reference", "dpo", "evaluate"]
    assert lines[1].split() == ["rank-sigkill", "-", "ok", "not", "run", "FAILED", "-"]
