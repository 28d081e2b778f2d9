"""Digests of code that are remembered: under the digest of all files, and never past a change of one."""

import json
import os
from pathlib import Path

import pytest

from preflow.errors import CodeChangedError
from preflow.fingerprints.code import CodeGraph, SourceTree, digests
from preflow.fingerprints.code.digests import _Digests

ROOT = ("pkg.main:run",)


def tree(folder: Path, number: int = 1, *, as_imported: bool = False) -> SourceTree:
    package = folder / "sources" / "pkg"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(f"def run(): return {number}\n")
    return SourceTree({"pkg": package}, as_imported=as_imported)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of remembered digests, a new one."""
    monkeypatch.setattr(digests, "digests_folder", lambda: tmp_path / "records")
    return tmp_path / "records"


def test_a_remembered_digest_is_served_without_taking_the_code_apart(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _Digests(tree(tmp_path)).digest(ROOT)
    assert first == CodeGraph(tree(tmp_path)).digest(*ROOT)
    monkeypatch.setattr(CodeGraph, "reached", lambda *given: pytest.fail("taken apart"))
    assert _Digests(tree(tmp_path)).digest(ROOT) == first


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pkg.main:ru'])
def test_a_damaged_record_is_not_served(tmp_path: Path, records: Path, text: str) -> None:
    first = _Digests(tree(tmp_path)).digest(ROOT)
    (record,) = records.glob("code-*.json")
    record.write_text(text)
    assert _Digests(tree(tmp_path)).digest(ROOT) == first
    assert json.loads(record.read_text())[ROOT[0]]["digest"] == first, "it is written anew"


def test_a_record_of_other_files_is_not_served(tmp_path: Path, records: Path) -> None:
    """Neither a changed source nor a new data file finds it, whatever the record's file says."""
    first = _Digests(tree(tmp_path, 1)).digest(ROOT)
    second = _Digests(tree(tmp_path, 2)).digest(ROOT)
    assert second != first
    assert second == CodeGraph(tree(tmp_path, 2)).digest(*ROOT)
    (tmp_path / "sources" / "pkg" / "words.txt").write_text("some")
    assert _Digests(tree(tmp_path, 2)).digest(ROOT) not in {first, second}
    assert len(list(records.glob("code-*.json"))) == 3


def test_a_remembered_digest_of_code_that_changed_since_the_start_is_an_error(
    tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tree(tmp_path, as_imported=True)
    written = max(path.stat().st_ctime_ns for path in sources.all_files().values())
    monkeypatch.setattr("preflow.STARTED_NS", written)
    remembered = _Digests(sources)
    remembered.digest(ROOT)
    (record,) = records.glob("code-*.json")
    main = sources.folders["pkg"] / "main.py"
    os.utime(main, ns=(written + 10**9, written + 10**9))
    for each in (remembered, _Digests(sources)):
        with pytest.raises(CodeChangedError, match=r"main\.py was changed at"):
            each.digest(ROOT)
    assert record.is_file()
