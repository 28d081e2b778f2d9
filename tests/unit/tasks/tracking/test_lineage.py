"""Tags and parameters of a tracked run."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from preflow.config import Recipe
from tasks.tracking.lineage import git_commit, is_gone, parameters, process_tags

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
        started = process_tags() | {"pid": str(child.pid)}
        assert is_gone(started)  # the id is in use, by a process that started at another time
        assert child.stdin is not None
        child.stdin.close()
    assert is_gone(process_tags() | {"pid": str(child.pid)})


def test_a_process_elsewhere_counts_as_alive() -> None:
    assert not is_gone(process_tags() | {"host": "elsewhere", "pid": "1"})


def test_no_commit_outside_a_checkout(tmp_path: Path) -> None:
    assert psutil.pid_exists(os.getpid())
    assert git_commit(tmp_path) is None
