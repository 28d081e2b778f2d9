"""What a recipe names is found, digested and named; what is missing or unknown is one clear error."""

import os
from pathlib import Path

import pytest

from preflow.data.files.sources import DataSource, resolve_sources, source_names
from preflow.errors import DataFileError


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").touch()
    with pytest.raises(DataFileError, match=r"No such file.*pairs\.jsonl"):
        resolve_sources([str(tmp_path / "pair.jsonl")])


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataFileError, match=r"'\.txt'.*\.jsonl"):
        resolve_sources([str(tmp_path / "a.txt")])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch(mode=0)
    with pytest.raises(DataFileError, match="Permission denied"):
        resolve_sources([str(tmp_path / "a.jsonl")])


def test_a_folder_gives_its_data_files_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv", "README.md", ".hidden.jsonl", "sub/c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [Path(source.path).name for source in resolve_sources([str(tmp_path)])] == ["a.csv", "b.jsonl", "c.json"]


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="holds no data file"):
        resolve_sources([str(tmp_path)])


def test_digest_is_of_the_contents(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", "x"), ("b.jsonl", "x"), ("c.jsonl", "y")):
        (tmp_path / name).write_text(text)
    a, b, c = (source.digest for source in resolve_sources([str(tmp_path)]))
    assert a == b != c


def test_names_are_short_unique_and_tell_nothing_of_the_place() -> None:
    paths = ["/x/one/a.jsonl", "/x/two/a.jsonl", "/x/b.csv", "/x/b.csv", "owner/set:train@abc"]
    sources = [DataSource(path=path, digest="") for path in paths]
    assert source_names(sources) == ["one/a.jsonl", "two/a.jsonl", "b.csv", "b.csv (2)", "owner/set:train"]
