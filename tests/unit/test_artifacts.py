"""A folder that exists is whole; one that is not is never used."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflow.artifacts import Artifact, build, find, verify
from preflow.errors import ArtifactError
from preflow.fingerprints.files import json_digest


def write(out: Path) -> None:
    (out / "sub").mkdir(exist_ok=True)
    (out / "a.txt").write_text("one", encoding="utf-8")
    (out / "sub" / "b.json").write_text('{"x": 1}', encoding="utf-8")


def test_the_digest_depends_on_contents_and_names_not_on_the_place(tmp_path: Path) -> None:
    first, second = build(tmp_path / "first", write), build(tmp_path / "elsewhere" / "second", write)
    assert first.digest == second.digest
    assert first.bytes == 3 + 8
    assert first.load("sub/b.json") == {"x": 1}

    def other(out: Path) -> None:
        write(out)
        (out / "a.txt").rename(out / "c.txt")

    assert build(tmp_path / "third", other).digest != first.digest


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    build(tmp_path / "x", write)

    def fail(out: Path) -> None:
        raise AssertionError("made again")

    assert build(tmp_path / "x", fail) == find(tmp_path / "x")


def edit(folder: Path) -> None:
    stat = (folder / "a.txt").stat()
    (folder / "a.txt").write_text("two", encoding="utf-8")  # same size, and the same time of change:
    os.utime(folder / "a.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def remove(folder: Path) -> None:
    (folder / "sub" / "b.json").unlink()


def add(folder: Path) -> None:
    (folder / "extra").write_text("", encoding="utf-8")


def damage(folder: Path) -> None:
    (folder / "manifest.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize("harm", [edit, remove, add, damage])
def test_a_broken_folder_is_renamed_and_made_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    whole = build(tmp_path / "x", write)
    harm(tmp_path / "x")
    with pytest.raises(ArtifactError):
        verify(tmp_path / "x")
    assert find(tmp_path / "x") is None
    assert len(list(tmp_path.glob("x.broken-*"))) == 1
    assert build(tmp_path / "x", write) == whole


def test_a_failed_stage_leaves_no_folder_but_its_work(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        (out / "scratch").mkdir()
        (out / "scratch" / "checkpoint").write_text("half", encoding="utf-8")
        raise RuntimeError("out of luck")

    def go_on(out: Path) -> None:
        assert (out / "scratch" / "checkpoint").read_text(encoding="utf-8") == "half"
        write(out)

    with pytest.raises(RuntimeError, match="out of luck"):
        build(tmp_path / "x", fail)
    assert find(tmp_path / "x") is None
    artifact = build(tmp_path / "x", go_on)
    assert not artifact.file("scratch").exists()


KILLED = """
import sys, time
from pathlib import Path
from preflow.artifacts import build

def write(out):
    (out / "a.txt").write_text("one")
    print("writing", flush=True)
    time.sleep(60)

build(Path(sys.argv[1]), write)
"""


def test_a_killed_writer_leaves_no_folder_and_no_lock(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert find(tmp_path / "x") is None
    assert build(tmp_path / "x", write).bytes == 11


def test_artifacts_are_small_json_values(tmp_path: Path) -> None:
    artifact = build(tmp_path / "x", write)
    assert Artifact.model_validate_json(artifact.model_dump_json()) == artifact
    assert len(artifact.model_dump_json()) < 500


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_json_digest_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert json_digest(value) == json_digest(dict(reversed(value.items())))
    assert json_digest(value) == json_digest(json.loads(json.dumps(value)))


def test_json_digest_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_digest({"x": float("nan")})
