"""The folder of ``python -m flows.validate``: what no check wrote is never removed, and nothing blocks a name."""

from pathlib import Path

import pytest

from flows.running.output_folder import result_folder
from preflow.data.files.raw_rows import DataSource
from preflow.errors import ConfigError
from tests.conftest import preference_rows, write_jsonl
from tests.unit.flows.commands.test_validate import report, run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def checked(tmp_path: Path) -> Path:
    """The folder of a check that quarantined rows."""
    rows = preference_rows(40)
    rows[3]["chosen"] = " "
    assert report(str(write_jsonl(tmp_path / "p.jsonl", rows)), "--out", str(tmp_path / "out"))[0] == 0
    return tmp_path / "out"


@pytest.mark.slow
def test_a_file_in_the_folder_is_refused_and_stays(tmp_path: Path) -> None:
    out = checked(tmp_path)
    before = contents(out)
    code, found = report(str(out / "quarantine.jsonl"), "--out", str(out))
    assert (code, found["error"]) == (2, "ConfigError")
    assert "--out" in found["message"]
    assert contents(out) == before


@pytest.mark.slow
def test_a_file_in_the_folder_that_is_read_through_a_link_stays(tmp_path: Path) -> None:
    out = checked(tmp_path)
    before = contents(out)
    link = tmp_path / "link.jsonl"
    link.symlink_to(out / "preferences.train.jsonl")
    code, found = report(str(link), "--out", str(out))
    assert (code, found["error"]) == (2, "ConfigError")
    assert contents(out) == before


def test_a_source_that_is_named_by_a_link_into_the_folder_stays(tmp_path: Path) -> None:
    """Commands resolve their sources before; the folder does not rely on it."""
    out = tmp_path / "out"
    out.mkdir()
    rows = write_jsonl(out / "rows.jsonl", preference_rows(2))
    link = tmp_path / "link.jsonl"
    link.symlink_to(rows)
    source = DataSource(path=str(link), digest="d")
    with pytest.raises(ConfigError, match=r"link\.jsonl is read and is in"), result_folder(out, [source]):
        pass


def test_an_edited_quarantine_in_the_default_folder_stays(tmp_path: Path, home: Path) -> None:
    folder = home / "validation" / "quarantine.jsonl"
    folder.mkdir(parents=True)
    file = write_jsonl(folder / "quarantine.jsonl", preference_rows(40))
    assert report(str(file))[0] == 2
    assert file.exists()


@pytest.mark.slow
@pytest.mark.parametrize("change", ["edited", "added", "folder"])
def test_an_earlier_report_that_was_changed_is_not_replaced(tmp_path: Path, change: str) -> None:
    out = checked(tmp_path)
    if change == "edited":
        (out / "quarantine.jsonl").write_text("hours of work\n")
    elif change == "added":
        (out / "notes.txt").write_text("hours of work")
    else:
        (out / "more").mkdir()
        (out / "more" / "notes.txt").write_text("hours of work")
    before = contents(out)
    code, found = report(str(tmp_path / "p.jsonl"), "--out", str(out))
    assert code == 2
    assert {"edited": "quarantine.jsonl", "added": "notes.txt", "folder": "more"}[change] in found["message"]
    assert contents(out) == before


def test_a_project_with_a_report_of_its_own_stays(tmp_path: Path) -> None:
    (tmp_path / "proj" / "src").mkdir(parents=True)
    for name in ("report.json", "quarantine.jsonl", "written.json", "src/main.py"):
        (tmp_path / "proj" / name).write_text("{}")
    before = contents(tmp_path / "proj")
    file = write_jsonl(tmp_path / "p.jsonl", preference_rows(40))
    assert report(str(file), "--out", str(tmp_path / "proj"))[0] == 2
    assert contents(tmp_path / "proj") == before


@pytest.mark.slow
def test_an_unchanged_report_is_replaced_whole(tmp_path: Path) -> None:
    out = checked(tmp_path)
    assert (out / "quarantine.jsonl").read_text()
    code, _ = report(str(write_jsonl(tmp_path / "p.jsonl", preference_rows(40))), "--out", str(out))
    assert code == 0
    assert not (out / "quarantine.jsonl").read_text()
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.slow
def test_a_failed_check_leaves_nothing_and_an_earlier_report_as_it_was(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "q.csv"
    file.write_text('prompt,chosen,rejected\n"a,b,c\n')
    assert report(str(file), "--kind", "preferences")[0] == 2
    assert not list((home / "validation").iterdir())
    file.write_text("prompt,chosen,rejected\n" + "".join(f"how {n} is?,yes {n},no {n}\n" for n in range(40)))
    assert report(str(file))[0] == 0
    before = contents(home / "validation" / "q.csv")
    file.write_text('prompt,chosen,rejected\n"a,b,c\n')
    assert report(str(file), "--kind", "preferences")[0] == 2
    assert contents(home / "validation" / "q.csv") == before


@pytest.mark.slow
def test_an_interrupted_check_leaves_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("expectations.gate._split", interrupted)
    file = write_jsonl(tmp_path / "p.jsonl", preference_rows(40))
    assert run(str(file), "--out", str(tmp_path / "out"))[0] != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl"]


@pytest.mark.parametrize("out", ["p.jsonl", "p.jsonl/below", "/proc/preflow"])
def test_a_folder_that_cannot_be_made_is_one_clear_message(tmp_path: Path, out: str) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", preference_rows(40))
    code, found = report(str(file), "--out", str(tmp_path / out))
    assert (code, found["error"]) == (2, "ConfigError")
    assert "--out" in found["message"]
    assert len(file.read_text().splitlines()) == 40
