"""The kill matrix: a fault inside a stage costs a run nothing.

``python -m tests.faults`` runs cells by name and prints the table.
"""

import shutil
from pathlib import Path

import pytest

from tests.faults import __main__ as command
from tests.faults.cells import DATABASES, Cell, all_cells
from tests.faults.injections import FAULTS

#: Seconds in which a run comes to a stage, and ends.
_PATIENCE = 500.0


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
