"""The store's tool: what it holds, and pruning by age and by reference."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from preflow.environment import logprobs_url
from preflow.logprobs.cli import app
from preflow.logprobs.identity import ReferenceIdentity
from preflow.logprobs.store import LogprobStore
from tests.unit.support import MODEL, OTHER, filled, group


def tool(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> LogprobStore:
    """Two references; of the first, five old rows and three new ones, asked by three runs."""
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("preflow.logprobs.fill.time.time", lambda: now - 40 * 24 * 3600)
        filled(logprobs_url(), [group(i) for i in range(5)])
    store, _, stats = filled(logprobs_url(), [group(i) for i in range(8)])
    store.note_usage(stats.metrics())
    filled(logprobs_url(), [group(1)], OTHER)
    return store


def rows(reference: ReferenceIdentity = MODEL) -> int:
    return len(LogprobStore(logprobs_url(), reference))


def test_it_shows_size_references_and_hit_rates(store: LogprobStore) -> None:
    shown = tool("show").output
    assert "a model" in shown
    assert "another model" in shown
    assert "62% of 8" in shown  # 5 of 8 asked were there
    assert "2 references, 18 responses" in shown


def test_nothing_is_cut_off_in_a_terminal_of_80_columns(store: LogprobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is what ``prune --reference`` wants; only a model's name may take several lines."""
    monkeypatch.setattr("preflow.logprobs.cli._OUT", Console(highlight=False, width=80))
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
        (("--reference", ""), "--reference is empty"),  # so would this
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


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; what killed writers and leases leave aside."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and "leases" not in p.parts
    }


PRUNES = [
    ("--older-than", "0"),
    ("--older-than", "0", "--dry-run"),
    ("--reference", "my"),
    ("--reference", MODEL.digest()[:8], "--dry-run"),
]


@pytest.mark.parametrize("arguments", PRUNES, ids=" ".join)
def test_folders_that_are_no_references_are_left_alone(store: LogprobStore, arguments: tuple[str, ...]) -> None:
    """Foreign data, a copy of a reference under another name, a reference without its name: none is touched."""
    place = Path(logprobs_url())
    (place / "mydata").mkdir()
    (place / "mydata" / "train.parquet").write_bytes(b"rows")
    (place / "mydata" / "reference.json").write_text("{}")
    shutil.copytree(store.shards.path, place / "my-copy")
    shutil.copytree(store.shards.path, place / ("0" * 32))
    (place / ("0" * 32) / "reference.json").unlink()
    kept = ("mydata", "my-copy", "0" * 32)
    before = {name: contents(place / name) for name in kept}
    done = tool("prune", *arguments)
    assert f"ignored, no references (no valid reference.json): {'0' * 32}, my-copy, mydata" in done.output
    assert {name: contents(place / name) for name in kept} == before


@pytest.mark.parametrize("arguments", [("show",), ("prune", "--older-than", "1000", "--dry-run")], ids=" ".join)
def test_looking_changes_nothing(store: LogprobStore, arguments: tuple[str, ...]) -> None:
    """A damaged shard stays where it is too: only who computes it again moves it away."""
    shard = sorted(Path(store.shards.path).glob("*.parquet"))[0]
    shard.write_bytes(b"damaged")
    before = contents(Path(logprobs_url()))
    assert tool(*arguments).exit_code == 0
    assert contents(Path(logprobs_url())) == before
    assert f"damaged: {MODEL.digest()[:8]}/{shard.name}" in tool("show").output


def test_damaged_files_are_named_and_pruned_by_age(store: LogprobStore) -> None:
    folder = Path(store.shards.path)
    (folder / "usage-1-bad.json").write_text("{")
    (folder / "x.parquet").symlink_to(folder / "nowhere")
    old, new = folder / "old.parquet.broken", folder / "new.parquet.broken"
    for path in (old, new):
        path.write_bytes(b"damaged")
    os.utime(old, (time.time() - 60 * 24 * 3600,) * 2)
    shown = tool("show")
    assert shown.exit_code == 0
    for name in ("usage-1-bad.json", "x.parquet", old.name, new.name):
        assert f"{MODEL.digest()[:8]}/{name}" in shown.output
    assert "removed 10 of 16 responses and 1 damaged files" in tool("prune", "--older-than", "30").output
    assert (old.exists(), new.exists()) == (False, True)


def test_a_damaged_description_is_no_reference(store: LogprobStore) -> None:
    (Path(store.shards.path) / "reference.json").write_text("{")
    shown = tool("show")
    assert shown.exit_code == 0
    assert "1 references, 2 responses" in shown.output
    assert f"ignored, no references (no valid reference.json): {MODEL.digest()[:32]}" in shown.output


def test_a_row_in_two_shards_is_counted_once(store: LogprobStore) -> None:
    """Two writers behind a URL may both compute a row; of those, the old one goes and the new one stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogprobStore, "find", lambda self, keys: np.full(len(keys), -1))
        filled(logprobs_url(), [group(0)])  # an old row, again
    assert "2 references, 18 responses" in tool("show").output
    assert "would remove 8 of 16" in tool("prune", "--older-than", "30", "--dry-run").output
    assert "removed 8 of 16" in tool("prune", "--older-than", "30").output
    assert rows() == 8


@pytest.mark.parametrize("scheme", ["memory://", "dir::file://"])
def test_a_store_behind_a_url_is_shown_and_pruned(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}{tmp_path}/store"
    filled(url, [group(i) for i in range(5)])
    filled(url, [group(1)], OTHER)
    assert "2 references, 12 responses" in tool("show", "--url", url).output
    assert "removed 2 of 2" in tool("prune", "--reference", OTHER.digest()[:8], "--url", url).output
    assert "removed 10 of 10" in tool("prune", "--older-than", "0", "--url", url).output
    assert "0 responses" in tool("show", "--url", url).output


def test_no_login_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflow.logprobs.inventory.inventory", lambda url: ([], []))
    for arguments in (("show",), ("prune", "--older-than", "1")):
        for url in ("ftp://me:secret@host/store", "dir::ftp://me:secret@host/store"):
            shown = tool(*arguments, "--url", url).output
            assert "host/store" in shown
            assert "secret" not in shown


@pytest.mark.slow
def test_the_module_is_the_tool() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "preflow.stages.reference", "--help"], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in ("show", "prune", "compute"))
