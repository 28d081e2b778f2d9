"""``preflow augment`` around its stages: order, kills, cache, what MLflow and the terminal have."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Pipeline

JUDGE = ("--set", "evaluation.judge={kind: function, model: 'a:b'}")
AUGMENT = ["validate", "lengths", "sft", "sample", "judge_answers", "pair", "validate"]


def stages_of(pipeline: Pipeline, kind: str) -> dict[str, Any]:
    (parent,) = [run for run in pipeline.runs() if run.data.tags.get("kind") == kind]
    mine = [run for run in pipeline.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return {run.data.tags["stage"]: run for run in mine}


@pytest.mark.slow
def test_new_pairs_are_made_once_whatever_is_killed(served: Pipeline, recipe: Path) -> None:
    killed = served.start(str(recipe), *JUDGE, FAKE_COMMAND="on_policy.augment", FAKE_KILL="sample")
    assert killed.returncode == -signal.SIGKILL
    done = served.start(str(recipe), *JUDGE, FAKE_COMMAND="on_policy.augment")
    assert done.returncode == 0, done.stderr
    assert served.calls == [*AUGMENT[:4], *AUGMENT[3:]], "what was killed alone runs again"
    stages = stages_of(served, "augment")
    assert stages.keys() == {*AUGMENT, "union/validate"}
    assert {run.info.status for run in stages.values()} == {"FINISHED"}
    assert stages["sample"].data.metrics["sample/prompts"] == 4
    said = " ".join(done.stdout.split())
    assert "1 are held out and were not (asked.jsonl:3)" in said
    assert "1 of 4 prompts (25%); without one: 2 unfinished, 1 tie" in said
    assert "warning: 50% of the answers were cut: raise augment.max_new_tokens" in said
    assert f"--set 'dpo.dataset=[{recipe.parent}/dpo.jsonl, " in said
    again = served.start(str(recipe), *JUDGE, FAKE_COMMAND="on_policy.augment")
    assert len(served.calls) == len(AUGMENT) + 1
    assert again.stderr.count(": cached") == len(AUGMENT)


@pytest.mark.slow
def test_without_a_judge_nothing_is_started(served: Pipeline, recipe: Path) -> None:
    refused = served.start(str(recipe), FAKE_COMMAND="on_policy.augment")
    assert refused.returncode == 2
    assert "no judge is named" in " ".join(refused.stderr.split())
    assert served.calls == []


ROUND = ["sample", "judge_answers", "pair", "validate", "reference", "dpo", "evaluate"]


@pytest.mark.slow
def test_rounds_go_on_after_a_kill_and_are_measured_against_the_first_model(served: Pipeline, recipe: Path) -> None:
    two = ("--set", "augment.iterations=2", *JUDGE)
    killed = served.start(str(recipe), *two, FAKE_COMMAND="on_policy.iterate", FAKE_KILL="dpo")
    assert killed.returncode == -signal.SIGKILL
    done = served.start(str(recipe), *two, FAKE_COMMAND="on_policy.iterate")
    assert done.returncode == 0, done.stderr
    before = ["validate", "lengths", "sft", "reference"]
    assert served.calls == [*before, *ROUND[:6], "dpo", "evaluate", *ROUND]
    stages = stages_of(served, "iterate")
    assert stages.keys() == {*before, *(f"round-{n}/{stage}" for n in (1, 2) for stage in ROUND)}
    assert {run.info.status for run in stages.values()} == {"FINISHED"}
    (parent,) = [run for run in served.runs() if run.data.tags.get("kind") == "iterate"]
    assert served.steps(parent.info.run_id, "iterate/accuracy") == [1, 2]
    said = " ".join(done.stdout.split())
    assert "All 2 rounds ran. The model of round 2 is kept." in said
    again = served.start(str(recipe), *two, FAKE_COMMAND="on_policy.iterate")
    assert len(served.calls) == len(before) + 2 * len(ROUND) + 1, "a rerun computes nothing"
    assert again.returncode == 0
