"""The reward model: trained on our own tokens with the end seen, tested on held-out pairs, read by the judge."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from preflow.artifacts import Artifact, build
from preflow.config.evaluation.judge import JudgeSettings
from preflow.data.tokens.chat_template import Renderer
from preflow.data.validated import load_pairs
from preflow.judges.classifier import RENDERING, ClassifierJudge
from preflow.judges.verdict import Comparison, Outcome
from preflow.maths.intervals import wilson
from preflow.observer import Silent
from preflow.specs import RewardModelSpec
from preflow.stages.rlhf.reward_model import run_reward_model
from tests.fixtures.prepared_run import Run
from tests.unit.stages.rlhf.killed import KilledAt, KilledError
from tests.unit.support import EVAL_PAIRS, TRAIN_PAIRS, recipe_for

TRAINED = {"learning_rate": 3e-3, "num_train_epochs": 8, "per_device_train_batch_size": 4}


def spec_of(run: Run, sft: Artifact | None = None, **changes: Any) -> RewardModelSpec:
    settings = {**TRAINED, **changes.pop("reward_model", {})}
    recipe = recipe_for(run.base, reward_model=settings, **changes)
    return RewardModelSpec(recipe=recipe, base=run.base, data=run.data, sft=sft)


@pytest.fixture(scope="module")
def made(prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    spec = spec_of(prepared, prepared.sft)
    return build(tmp_path_factory.mktemp("reward") / "made", lambda out: run_reward_model(spec, out, Silent()))


def reward(folder: Path, ids: list[int]) -> float:
    """One row alone, read by transformers itself."""
    model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=torch.float32).eval()
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


@pytest.mark.slow
def test_it_tells_held_out_pairs_apart_and_says_how_surely(made: Artifact) -> None:
    """8 of 8 pairs, each of a prompt of its own: Wilson's interval of 8 of 8."""
    report, metrics = made.load("report.json"), made.load("metrics.json")
    held_out = report["held_out"]
    assert (held_out["split"], held_out["pairs"], held_out["prompts"]) == ("eval", EVAL_PAIRS, EVAL_PAIRS)
    assert held_out["accuracy"] == pytest.approx(wilson(8, 8).to_json())
    assert held_out["margin"] == pytest.approx(held_out["mean_reward"]["chosen"] - held_out["mean_reward"]["rejected"])
    assert metrics["reward_model/accuracy_low"] == held_out["accuracy"]["low"] > 0.5
    assert metrics["reward_model/pairs"] == TRAIN_PAIRS
    assert report["rows"]["train"]["used"] == TRAIN_PAIRS


@pytest.mark.slow
def test_rewards_are_of_the_last_token_of_our_own_rendering(made: Artifact, prepared: Run) -> None:
    """Taken by transformers alone, row by row, without padding; the end token decides the reward, too."""
    folder = made.file("model")
    renderer = Renderer(AutoTokenizer.from_pretrained(str(folder)), prepared.recipe.rendering)
    margins, seen = [], []
    for pair in load_pairs(prepared.data, "eval"):
        prompt = renderer.prompt_ids(pair.prompt)
        chosen, rejected = (renderer.response_ids(pair.prompt, said, prompt) for said in (pair.chosen, pair.rejected))
        assert chosen[-1] == renderer.closing_id
        margins.append(reward(folder, prompt + chosen) - reward(folder, prompt + rejected))
        seen.append(abs(reward(folder, prompt + chosen) - reward(folder, prompt + chosen[:-1])))
    assert made.load("report.json")["held_out"]["margin"] == pytest.approx(np.mean(margins), abs=1e-4)
    assert min(seen) > 1e-3


@pytest.mark.slow
def test_its_pad_token_ends_no_response(made: Artifact, prepared: Run) -> None:
    config = json.loads((made.file("model") / "config.json").read_text())
    tokenizer: Any = AutoTokenizer.from_pretrained(str(made.file("model")))
    assert config["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer.pad_token_id not in Renderer(tokenizer, prepared.recipe.rendering).end_ids


@pytest.mark.slow
def test_the_judge_reads_it_and_sees_the_tokens_of_training(made: Artifact, prepared: Run) -> None:
    judge = ClassifierJudge(JudgeSettings(kind="classifier", model=str(made.file("model"))))
    assert prepared.recipe.dpo is not None
    assert judge.identity["max_seq_length"] == prepared.recipe.dpo.max_seq_length
    pairs = load_pairs(prepared.data, "eval")
    texts = [(pair.prompt[0].content, side[0].content) for pair in pairs for side in (pair.chosen, pair.rejected)]
    scores = judge.scores(texts)
    margin = np.mean(np.array(scores[::2]) - np.array(scores[1::2]))
    assert margin == pytest.approx(made.load("report.json")["held_out"]["margin"], abs=1e-4)
    verdicts = judge.verdicts([Comparison(texts[0][0], texts[0][1], texts[1][1])])
    assert [verdict.outcome for _, verdict in verdicts] == [Outcome.FIRST]


@pytest.mark.slow
def test_a_classifier_without_our_rendering_is_read_as_before(made: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(made.file("model"), folder)
    (folder / RENDERING).unlink()
    first, second = (
        ClassifierJudge(JudgeSettings(kind="classifier", model=str(each))) for each in (made.file("model"), folder)
    )
    text = [("Where is order 1?", "On its way.")]
    assert first.scores(text) != second.scores(text), "the template writes a newline after the end token"
    assert first.identity != second.identity


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_resumed_it_is_the_same_byte_for_byte(prepared: Run, tmp_path: Path, tuning: str) -> None:
    """Checkpoints every 2 steps (support.COMMON); killed at step 5 of 6."""
    short = {"max_steps": 6, "gradient_accumulation_steps": 1, "center_rewards_coefficient": 0.01}
    spec = spec_of(prepared, tuning=tuning, reward_model=short)
    whole = build(tmp_path / "whole", lambda out: run_reward_model(spec, out, Silent()))
    with pytest.raises(KilledError):
        build(tmp_path / "killed", lambda out: run_reward_model(spec, out, KilledAt(5)))
    resumed = build(tmp_path / "killed", lambda out: run_reward_model(spec, out, Silent()))
    assert len(whole.load("training.json")) == 6
    assert resumed.digest == whole.digest


@pytest.mark.slow
def test_before_the_first_step_the_loss_is_that_of_equal_rewards_plus_the_centring(
    prepared: Run, tmp_path: Path
) -> None:
    """With a head of zeros both rewards are 0: -log sigmoid(0) = log 2, and nothing to centre."""
    spec = spec_of(prepared, reward_model={"max_steps": 1, "center_rewards_coefficient": 1.0, "learning_rate": 1e-9})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda shape, generator: torch.zeros(shape))
        built = build(tmp_path / "zero", lambda out: run_reward_model(spec, out, Silent()))
    assert built.load("training.json")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    held_out = built.load("report.json")["held_out"]
    assert held_out["accuracy"]["low"] <= 0.5, "equal rewards are no preference"
