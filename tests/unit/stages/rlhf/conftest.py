"""A reward model that is made once, and rewards in its place."""

import pytest

from preflow.artifacts import Artifact, build
from preflow.observer import Silent
from preflow.specs import RewardModelSpec
from preflow.stages.rlhf import rloo as stage
from preflow.stages.rlhf.reward_model import run_reward_model
from tests.fixtures.prepared_run import Run
from tests.unit.stages.rlhf.rloo_support import Worth, recipe


@pytest.fixture(scope="session")
def judge(prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    spec = RewardModelSpec(recipe=recipe(prepared), base=prepared.base, data=prepared.data, sft=prepared.sft)
    return build(tmp_path_factory.mktemp("judge") / "made", lambda out: run_reward_model(spec, out, Silent()))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "AnswerRewards", Worth)
