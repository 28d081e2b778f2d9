"""Each fault of a machine that can be seen beforehand is a line with its remedy."""

import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from flows.health import machine
from flows.health.check import Level
from flows.health.machine import check_disk, check_file_handles, check_gpu, check_home, check_hub_token, disk_needed


class Usage(NamedTuple):
    """As ``shutil.disk_usage`` gives it."""

    total: int
    used: int
    free: int


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "file" / "home"))
    check = check_home()
    assert check.level is Level.failed
    assert str(tmp_path / "file" / "home") in check.found
    assert "PREFLOW_HOME" in check.remedy


def test_a_state_folder_that_is_read_only_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert check_home().level is Level.failed
    assert "Read-only file system" in check_home().found


def test_a_state_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "new" / "home"))
    assert check_home().level is Level.ok
    assert list((tmp_path / "new" / "home").iterdir()) == []


@pytest.mark.parametrize(
    ("free", "needed", "level"),
    [
        (0.5e9, None, Level.failed),
        (3e9, None, Level.warning),
        (9e9, None, Level.ok),
        (3e9, 2e9, Level.ok),  # what the recipe writes is known: no warning
        (9e9, 10e9, Level.failed),
    ],
)
def test_the_disk_is_compared_with_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, needed: float | None, level: Level
) -> None:
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "not" / "there"))
    asked: list[Path] = []

    def usage(place: Path) -> Usage:
        asked.append(place)
        return Usage(10**12, 0, int(free))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert check_disk(needed).level is level
    assert asked == [tmp_path], "of the folder that is there"


def test_a_run_writes_weights_and_three_checkpoints_with_two_moments() -> None:
    """A million trained parameters: 4 MB as weights, and three times 12 MB; the base beside them."""
    assert disk_needed(10**6, 5 * 10**6) == 4e6 + 3 * 12e6 + 5e6


@pytest.mark.parametrize(("soft", "level"), [(64, Level.failed), (256, Level.warning), (1024, Level.ok)])
def test_few_file_handles_are_a_line_with_the_command(monkeypatch: pytest.MonkeyPatch, soft: int, level: Level) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 2048))
    check = check_file_handles()
    assert check.level is level
    assert check.remedy == ("" if level is Level.ok else "ulimit -n 2048"), "no more than is allowed"


@pytest.mark.parametrize(("hard", "remedy"), [(200, "raise the hard limit"), (-1, "ulimit -n 4096")])
def test_the_remedy_for_few_file_handles_is_one_that_works(
    monkeypatch: pytest.MonkeyPatch, hard: int, remedy: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    assert remedy in check_file_handles().remedy


def test_a_driver_without_a_torch_that_uses_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    check = check_gpu()
    assert check.level is Level.failed
    assert torch.__version__ in check.found


def test_no_gpu_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(machine, "_DRIVER", Path("/nowhere"))
    assert check_gpu().level is Level.ok


def hub_answers(monkeypatch: pytest.MonkeyPatch, answer: BaseException | dict[str, str]) -> None:
    """The hub's answer to a token; no request leaves this process."""

    def whoami(_: HfApi, token: str) -> dict[str, str]:
        assert token == "hf_planted"
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "whoami", whoami)


def refusal(code: int) -> HfHubHTTPError:
    response: Any = httpx.Response(code, request=httpx.Request("GET", "https://hub.invalid/api/whoami-v2"))
    return HfHubHTTPError("refused", response=response)


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ({"name": "ada"}, Level.ok),
        (refusal(401), Level.failed),
        (refusal(503), Level.warning),
        (OSError("no route, token hf_planted"), Level.warning),
    ],
    ids=["taken", "refused", "ill", "away"],
)
def test_a_hub_token_is_tried_and_never_printed(
    monkeypatch: pytest.MonkeyPatch, answer: BaseException | dict[str, str], level: Level
) -> None:
    hub_answers(monkeypatch, answer)
    check = check_hub_token()
    assert check.level is level
    assert "hf_planted" not in check.found + check.remedy


def test_a_hub_token_is_not_tried_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers(monkeypatch, AssertionError("asked"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert check_hub_token().level is Level.ok
