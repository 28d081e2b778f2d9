"""The store's tool: what it holds, and pruning by age and by reference."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from preflow.home import logprobs_url
from preflow.models.identity import Reference
from preflow.stages.logprob_store import LogprobStore
from preflow.stages.store_tool import app
from tests.unit.stages.support import MODEL, OTHER, filled, group


def tool(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> LogprobStore:
    """Two references; of the first, five old rows and three new ones, asked by three runs."""
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("preflow.stages.filling.time.time", lambda: now - 40 * 24 * 3600)
        filled(logprobs_url(), [group(i) for i in range(5)])
    store, _, tally = filled(logprobs_url(), [group(i) for i in range(8)])
    store.note_usage(tally.metrics())
    filled(logprobs_url(), [group(1)], OTHER)
    return store


def rows(reference: Reference = MODEL) -> int:
    return len(LogprobStore(logprobs_url(), reference))


def test_it_shows_size_references_and_hit_rates(store: LogprobStore) -> None:
    shown = tool("show").output
    assert "a model" in shown
    assert "another model" in shown
    assert "62% of 8" in shown  # 5 of 8 asked were there
    assert "2 references, 18 responses" in shown


def test_nothing_is_cut_off_in_a_terminal_of_80_columns(store: LogprobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is what ``prune --reference`` wants; only a model's name may take several lines."""
    monkeypatch.setattr("preflow.stages.store_tool._OUT", Console(highlight=False, width=80))
    shown = tool("show").output
    assert MODEL.digest()[:8] in shown
    assert "62% of 8" in shown
    assert "…" not in shown


def test_an_empty_store_is_shown_as_such() -> None:
    assert "0 references, 0 responses" in tool("show").output


def test_old_rows_are_pruned(store: LogprobStore) -> None:
    assert "would remove 10 of 16" in tool("prune", "--older-than", "30", "--dry-run").output
    assert rows() == 16
    tool("prune", "--older-than", "30")
    assert (rows(), rows(OTHER)) == (6, 2)
    assert LogprobStore(logprobs_url(), MODEL).get(group(6)) == [[-6.0, -6.0], [-6.0]]


def test_a_reference_is_pruned(store: LogprobStore) -> None:
    tool("prune", "--reference", OTHER.digest()[:8])
    assert (rows(), rows(OTHER)) == (16, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--older-than"),
        (("--reference", "zz"), "no reference begins with 'zz'"),
        (("--older-than", "-3"), "--older-than"),  # it would remove everything
    ],
)
def test_a_prune_that_names_nothing_is_refused(store: LogprobStore, arguments: tuple[str, ...], message: str) -> None:
    done = tool("prune", *arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert rows() == 16


def test_what_killed_writers_left_is_swept(store: LogprobStore) -> None:
    folder = Path(store.shards.path)
    old, new = folder / "partial-1-old", folder / "partial-1-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    tool("prune", "--older-than", "1000")
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.slow
def test_the_module_is_the_tool() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "preflow.stages.reference", "--help"], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in ("show", "prune", "compute"))
