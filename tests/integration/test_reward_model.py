"""``preflow reward-model`` around its stages: order, kills, cache, what MLflow and the terminal have."""

import signal
from pathlib import Path

import pytest

from tests.integration.conftest import Pipeline

STAGES = ["validate", "lengths", "sft", "reward_model"]
COMMAND = {"FAKE_COMMAND": "rlhf.reward_model"}


@pytest.mark.slow
def test_a_reward_model_is_made_once_whatever_is_killed(pipeline: Pipeline, recipe: Path) -> None:
    killed = pipeline.start(str(recipe), **COMMAND, FAKE_KILL="reward_model")
    assert killed.returncode == -signal.SIGKILL
    done = pipeline.start(str(recipe), **COMMAND)
    assert done.returncode == 0, done.stderr
    assert pipeline.calls == [*STAGES, "reward_model"], "what was killed alone runs again"
    said = " ".join(done.stdout.split())
    assert "0.750 [0.600, 0.860] on 40 held-out pairs (eval) of 38 prompts" in said
    assert "no better than chance" not in said
    (folder,) = (pipeline.home / "store" / "reward_model").glob("*/model")
    assert f"evaluation.judge: {{kind: classifier, model: {folder}}}" in said
    (parent,) = [run for run in pipeline.runs() if run.data.tags.get("kind") == "reward-model"]
    mine = [run for run in pipeline.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["stage"] for run in mine} == set(STAGES)
    assert parent.data.metrics["reward_model/accuracy"] == 0.75
    other = ("--set", "reward_model.learning_rate=1e-3")
    changed = pipeline.start(str(recipe), *other, **COMMAND, FAKE_REWARD_LOW="0.45")
    assert pipeline.calls == [*STAGES, "reward_model", "reward_model"], "another rate trains it alone anew"
    assert "no better than chance" in " ".join(changed.stdout.split())
