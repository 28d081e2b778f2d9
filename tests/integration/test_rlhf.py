"""``preflow reward-model`` and ``preflow rlhf`` around their stages: order, kills, cache, what is tracked and shown."""

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


RLHF = ["validate", "lengths", "sft", "reference", "reward_model", "rloo"]


@pytest.mark.slow
def test_rlhf_shares_what_a_reward_model_took_and_goes_on_after_a_kill(pipeline: Pipeline, recipe: Path) -> None:
    made = pipeline.start(str(recipe), **COMMAND)
    assert made.returncode == 0, made.stderr
    killed = pipeline.start(str(recipe), FAKE_COMMAND="rlhf.rlhf", FAKE_KILL="rloo")
    assert killed.returncode == -signal.SIGKILL
    done = pipeline.start(str(recipe), FAKE_COMMAND="rlhf.rlhf")
    assert done.returncode == 0, done.stderr
    assert pipeline.calls == [*STAGES, "reference", "rloo", "rloo"], "SFT and the reward model are there already"
    said = " ".join(done.stdout.split())
    assert "reward gain 0.500 [0.250, 0.750] on 16 held-out prompts" in said
    assert "stopped at step 40, kept 20" in said
    (parent,) = [run for run in pipeline.runs() if run.data.tags.get("kind") == "rlhf"]
    mine = [run for run in pipeline.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["stage"] for run in mine} == set(RLHF)
    assert {run.info.status for run in mine} == {"FINISHED"}
    refused = pipeline.start(str(recipe), "--set", "rloo.max_completion_length=5000", FAKE_COMMAND="rlhf.rlhf")
    assert refused.returncode == 2
    assert "leaves no token for a prompt" in " ".join(refused.stderr.split())


STRATEGIES = ["validate", "lengths", "sft", "reference", "dpo", "reward_model", "rloo", "evaluate", "evaluate"]


@pytest.mark.slow
def test_strategies_are_compared_on_what_a_run_has_computed_already(served: Pipeline, recipe: Path) -> None:
    run = served.start(str(recipe))
    assert run.returncode == 0, run.stderr
    command = {"FAKE_COMMAND": "rlhf.compare_strategies"}
    killed = served.start(str(recipe), **command, FAKE_KILL="rloo")
    assert killed.returncode == -signal.SIGKILL
    done = served.start(str(recipe), **command)
    assert done.returncode == 0, done.stderr
    ran = ["validate", "lengths", "sft", "reference", "dpo", "evaluate"]
    assert served.calls == [*ran, "reward_model", "rloo", "rloo", "evaluate"]
    said = " ".join(done.stdout.split())
    assert "base SFT DPO RLHF" in said
    assert "the reward of RLHF's answers to 16 held-out prompts changed by 0.50 [0.25, 0.75]" in said
    (parent,) = [run for run in served.runs() if run.data.tags.get("kind") == "compare-strategies"]
    mine = [run for run in served.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["stage"] for run in mine} == {*STRATEGIES, "rlhf/evaluate"}
    assert {run.info.status for run in mine} == {"FINISHED"}
    assert parent.data.metrics["strategies/preference_accuracy_rlhf"] == 0.7
