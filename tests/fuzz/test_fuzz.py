"""The fuzzer makes the same cases again, and tells an error of Preflow's own from any other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preflow.errors import ConfigError
from tests.fuzz import worker
from tests.fuzz.targets import Target, targets


def reading(read: Callable[[bytes], None]) -> dict[str, Target]:
    return {"one": Target({"a.txt": b"some words of a file\n" * 9}, lambda name, data, folder: read(data))}


def outcome(read: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch, folder: Path, base: int = 1 << 40) -> Any:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "tell", lambda line: lines.append(json.loads(json.dumps(line))))
    worker.one(0, 7, reading(read), folder, base)
    assert lines[0]["case"] == 7
    return lines[1]


def test_a_seed_gives_the_same_cases_and_another_seed_others() -> None:
    chosen = reading(len)  # type: ignore[arg-type]
    first = [worker.case(3, number, chosen) for number in range(50)]
    assert first == [worker.case(3, number, chosen) for number in range(50)]
    assert first != [worker.case(4, number, chosen) for number in range(50)]
    assert len({data for _, _, data in first}) > 40


def test_an_error_of_preflow_is_a_refusal_and_any_other_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(data: bytes) -> None:
        raise ConfigError("no")

    def fail(data: bytes) -> None:
        raise RecursionError("planted")

    assert outcome(refuse, monkeypatch, tmp_path)["outcome"] == "refused"
    found = outcome(fail, monkeypatch, tmp_path)
    assert found["outcome"] == "fault"
    assert "RecursionError: planted" in found["fault"]


def test_memory_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = outcome(lambda data: None, monkeypatch, tmp_path, base=-(2 << 20))
    assert "MiB more than before its first case" in found["fault"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows", "recipe", "template", "model"])
def test_every_file_is_read_where_nothing_is_changed(name: str, tmp_path: Path) -> None:
    """What no change of a file could get past would hide what is behind it."""
    found = targets(tmp_path)[name]
    for number, (file, data) in enumerate(found.seeds.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.read(file, data, folder)
