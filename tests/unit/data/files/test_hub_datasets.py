"""A hub data set is pinned to a commit and read at it."""

from typing import Any

import pytest

from preflow.data.files.hub_datasets import is_hub
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.errors import DataFileError
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
