"""A hub data set is pinned to a commit and read at it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preflow.data.files.hub_datasets import is_hub
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.errors import DataFileError
from tests.fixtures.hub_server import commit_id, hub_server
from tests.unit.data.files.reading import ROWS


@pytest.mark.parametrize(
    ("entry", "path", "digest"),
    [
        ("owner/set:test", "owner/set:test@abc123", "abc123:test"),
        ("owner/set", "owner/set:train@abc123", "abc123:train"),
        ("owner/set:main:test", "owner/set:main:test@abc123", "abc123:main:test"),
    ],
)
def test_a_hub_name_is_pinned_to_its_commit(
    monkeypatch: pytest.MonkeyPatch, entry: str, path: str, digest: str
) -> None:
    import huggingface_hub

    class Info:
        sha = "abc123"

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, revision, timeout: Info())
    (source,) = resolve_sources([entry])
    assert source == DataSource(path=path, digest=digest)
    assert is_hub(source.path)


def test_a_hub_name_without_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(self: object, name: str, revision: str | None, timeout: float) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    with pytest.raises(DataFileError, match=r"'owner/set' is no file here.*no route"):
        resolve_sources(["owner/set"])


def test_hub_rows_are_read_at_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(name: str, config: str | None, split: str, revision: str) -> list[dict[str, Any]]:
        asked.append((name, config, split, revision))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = list(read_rows(DataSource(path="owner/set:train@abc", digest="")))
    assert asked == [("owner/set", None, "train", "abc")]
    assert rows[1] == RawRow("owner/set:train", 2, ROWS[1])
    list(read_rows(DataSource(path="owner/set:main:test@abc", digest="")))
    assert asked[1] == ("owner/set", "main", "test", "abc")


#: Reads data sets as a recipe says, each on one line of standard output.
READ = """
import json, sys
from preflow.config.validation import Dataset
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.errors import PreflowError

for said in json.loads(sys.argv[1]):
    try:
        (source,) = resolve_sources([Dataset(**said)])
        rows = list(read_rows(source))
        print(json.dumps([source.path.rpartition("@")[2], len(rows), rows[0].values["ask"]]))
    except PreflowError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def read_from(hub: str, folder: Path, *said: dict[str, Any], **environment: str) -> list[Any]:
    """What a process of its own, whose hub and caches are those given, reads of data sets."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": hub, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(said)],
        env={**inherited, **own, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def lines(tag: str, count: int) -> bytes:
    return "".join(json.dumps({"ask": f"{tag} {number}?", "best": "yes"}) + "\n" for number in range(count)).encode()


@pytest.mark.slow
def test_a_hub_serves_splits_revisions_and_columns_and_says_what_it_has_not(tmp_path: Path) -> None:
    """Against a stand-in for the hub with two commits of one data set."""
    latest = {"README.md": b"# x\n", "data/train.jsonl": lines("new", 30), "data/test.jsonl": lines("held", 9)}
    with hub_server({"me/pairs": {"v1": {"data/train.jsonl": lines("old", 40)}, "v2": latest}}) as (hub, asked):
        me: dict[str, Any] = {"path": "me/pairs"}
        found = read_from(
            hub, tmp_path, me, {**me, "split": "test"}, {**me, "revision": "v1"}, {**me, "rows": 3},
            {**me, "columns": {"prompt": "aks"}}, {**me, "revision": "v9"}, {"path": "me/none"},
            {**me, "path": "me/pairs:test", "split": "test"}, {**me, "split": "tset"},
        )  # fmt: skip
    assert found[:4] == [
        [commit_id("v2"), 30, "new 0?"],
        [commit_id("v2"), 9, "held 0?"],
        [commit_id("v1"), 40, "old 0?"],
        [commit_id("v2"), 3, "new 0?"],
    ]
    words = ("did you mean 'ask'", "has no revision 'v9'", "no data set of this name", "give it once", "train.*test")
    for (kind, message), word in zip(found[4:], words, strict=True):
        assert kind == "DataFileError"
        assert re.search(word, message), message
    assert f"GET /datasets/me/pairs/resolve/{commit_id('v1')}/data/train.jsonl" in asked


@pytest.mark.slow
def test_a_hub_that_is_away_is_one_clear_error(tmp_path: Path) -> None:
    with hub_server({}) as (hub, _):
        pass
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        ((kind, message),) = read_from(hub, tmp_path, {"path": "me/pairs"}, **environment)
        assert kind == "DataFileError"
        assert "cannot be reached" in message
        assert len(message.splitlines()) == 1
