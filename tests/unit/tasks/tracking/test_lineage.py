"""Tags and parameters of a tracked run."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from preflow.config import Recipe
from tasks.tracking.lineage import git_commit, heartbeat_tags, is_gone, parameters, process_tags

TWO_STAGE = {"model_name": "m", "lora_r": 8, "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}}


def test_parameters_have_the_same_names_in_every_run() -> None:
    found = parameters(Recipe.model_validate(TWO_STAGE))
    assert found["beta"] == "0.1"
    assert found["loss_type"] == "sigmoid"
    assert found["lora_r"] == "8"
    assert found["lora_alpha"] == "16.0" or found["lora_alpha"] == "16"
    assert found["sft_learning_rate"] == "0.0002"
    assert found["dpo_learning_rate"] == "5e-06"
    alone = parameters(Recipe(strategy="dpo", model_name="m"))
    assert alone.keys() < found.keys()


def test_this_process_is_not_gone_and_an_ended_one_is() -> None:
    assert not is_gone(process_tags())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        earlier = (datetime.now(UTC) - timedelta(minutes=1)).isoformat(timespec="milliseconds")
        started = process_tags() | {"pid": str(child.pid), "process_started": earlier}
        assert is_gone(started)  # the id is in use, by a process that started at another time
        assert child.stdin is not None
        child.stdin.close()
    assert is_gone(process_tags() | {"pid": str(child.pid)})


@pytest.mark.parametrize("elsewhere", ["host", "boot", "pid_namespace"])
def test_a_process_elsewhere_counts_as_alive_until_it_misses_three_heartbeats(elsewhere: str) -> None:
    """With one host name two containers have two process namespaces, and a machine started anew another boot."""
    tags = process_tags() | {elsewhere: "another", "pid": "1"}
    assert not is_gone(tags), "a run of an earlier version has no heartbeat"
    for seconds, gone in ((80, False), (100, True)):
        last = datetime.now(UTC) - timedelta(seconds=seconds)
        assert is_gone(tags | {"heartbeat": last.isoformat()}) is gone


def test_a_dead_process_of_this_machine_is_gone_whatever_its_last_heartbeat() -> None:
    assert is_gone({**process_tags(), **heartbeat_tags(), "process_started": "2000-01-01T00:00:00.000+00:00"})
    assert not is_gone({**process_tags(), "heartbeat": "2000-01-01T00:00:00.000+00:00"})


def test_no_commit_outside_a_checkout(tmp_path: Path) -> None:
    assert psutil.pid_exists(os.getpid())
    assert git_commit(tmp_path) is None


def test_an_image_has_its_commit_from_its_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOW_COMMIT", "c0ffee")
    assert git_commit(tmp_path) == "c0ffee"
