"""What the evaluation says, against values worked out by hand or by another way."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preflow.artifacts import build, write_json
from preflow.config import EvaluationSettings
from preflow.data.rows import content_id, first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.validated import load_demonstrations, load_pairs
from preflow.evaluation.generation import answer_report, generate, held_out_prompts
from preflow.evaluation.models import ModelSet
from preflow.evaluation.preferences import PairScores, compare, preference_report
from preflow.models.scoring import response_logits
from preflow.observer import Silent
from preflow.specs import EvaluateSpec
from preflow.stages.evaluation import run_evaluation
from tests.unit.support import EVAL_PAIRS

SETTINGS = EvaluationSettings(bootstrap_samples=100)


def scores(chosen: list[float], rejected: list[float], lengths: tuple[list[int], list[int]]) -> PairScores:
    columns = [np.array(column, dtype=np.float64) for column in (chosen, rejected, *lengths)]
    return PairScores(*columns)


def test_preference_goes_by_log_prob_per_token() -> None:
    """-4 over 4 tokens beats -3 over 2; a tie at -1 per token is no preference."""
    score = scores([-4, -2, -9], [-3, -3, -2], ([4, 2, 3], [2, 3, 2]))
    assert score.prefers_chosen().tolist() == [True, False, False]


def test_rewards_margins_and_changes_by_hand() -> None:
    """Beta 0.5: chosen 0.5 x (-2+4) = 1 and 0.5 x (-6+5) = -0.5; rejected 0.5 x (-5+4) = -0.5 and 0.5 x (-3+3) = 0."""
    policy = scores([-2, -6], [-5, -3], ([2, 2], [1, 4]))
    reference = scores([-4, -5], [-4, -3], ([2, 2], [1, 4]))
    report = preference_report(policy, reference, 0.5, SETTINGS, seed=0)
    assert report["reward_accuracy"]["value"] == 0.5
    assert report["reward_margin"]["value"] == pytest.approx((1.5 - 0.5) / 2)
    assert report["chosen_logp_change"]["value"] == pytest.approx((1.0 - 0.5) / 2)
    assert report["rejected_logp_change"]["value"] == pytest.approx((-1.0 + 0.0) / 2)


def test_length_matched_pairs() -> None:
    """10 against 9 differs by 10 % of the longer one, 10 against 8 by 20 %."""
    score = scores([-1, -1, -1], [-2, -2, -2], ([10, 10, 8], [9, 8, 10]))
    assert score.length_matched(0.15).tolist() == [True, False, False]
    assert preference_report(score, None, 1, SETTINGS, 0)["preference_accuracy_length_matched"]["n"] == 1


def test_the_gain_is_paired() -> None:
    """On 40 pairs the new model is right wherever the old one is, and on 8 more: the gain is 0.2 and not noise."""
    ones, old_right = np.ones(40), np.arange(40) < 20
    new_right = np.arange(40) < 28
    old = PairScores(np.where(old_right, -1.0, -3.0), np.full(40, -2.0), ones, ones)
    new = PairScores(np.where(new_right, -1.0, -3.0), np.full(40, -2.0), ones, ones)
    gain = compare(new, old, EvaluationSettings(bootstrap_samples=500), seed=0)["preference_accuracy_gain"]
    assert gain["value"] == pytest.approx(0.2)
    assert 0 < gain["low"] < 0.2 < gain["high"]


def test_pairs_of_one_prompt_are_resampled_together() -> None:
    """60 pairs, every one there three times: the intervals are those of the 60, and the sign test counts 60 prompts."""
    rng = np.random.default_rng(2)
    columns = [*(rng.normal(-4, 1, 60) for _ in range(4)), np.full(60, 2.0)]
    settings = EvaluationSettings(bootstrap_samples=300)

    def measured(repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
        chosen, rejected, old_chosen, old_rejected, tokens = (np.repeat(column, repeats) for column in columns)
        new, old = (PairScores(*both, tokens, tokens) for both in ((chosen, rejected), (old_chosen, old_rejected)))
        clusters = np.repeat(np.arange(60), repeats)
        gain = compare(new, old, settings, 0, clusters)["preference_accuracy_gain"]
        return preference_report(new, old, 0.1, settings, 0, clusters), gain

    (once, gain), (thrice, same_gain) = measured(1), measured(3)
    assert all(same_gain[name] == pytest.approx(gain[name]) for name in gain.keys() - {"test"})
    for name in ("reward_margin", "chosen_logp_change"):
        assert thrice[name] == pytest.approx(once[name])
    for name in ("preference_accuracy", "reward_accuracy"):
        width, widened = (found[name]["high"] - found[name]["low"] for found in (once, thrice))
        assert widened == pytest.approx(width, rel=0.1)


def test_pairs_with_a_prompt_each_are_measured_as_without_clusters() -> None:
    rng = np.random.default_rng(4)
    new, old = (PairScores(*rng.normal(-4, 1, (2, 40)), *np.full((2, 40), 2.0)) for _ in range(2))
    alone, given = (preference_report(new, old, 0.1, SETTINGS, 3, clusters) for clusters in (None, np.arange(40)))
    assert alone == given
    assert compare(new, old, SETTINGS, 3) == compare(new, old, SETTINGS, 3, np.arange(40))


@pytest.mark.slow
def test_the_whole_report(spec: EvaluateSpec, tmp_path: Path) -> None:
    artifact = build(tmp_path / "evaluation", lambda out: run_evaluation(spec, out, Silent()))
    report, metrics = artifact.load("evaluation.json"), artifact.load("metrics.json")
    assert list(report["models"]) == ["base", "dpo", "sft"]
    assert report["n_pairs"] == EVAL_PAIRS
    for name in ("base", "sft", "dpo"):
        assert {"preference_accuracy", "perplexity", "response_tokens"} <= report["models"][name].keys()
    assert {"reward_accuracy", "reward_margin", "kl_sft", "kl_base"} <= report["models"]["dpo"].keys()
    assert "reward_accuracy" not in report["models"]["sft"]
    assert metrics["eval/kl"] == report["models"]["dpo"]["kl_sft"]["value"] > 0
    assert metrics["eval/preference_accuracy"] == report["models"]["dpo"]["preference_accuracy"]["value"]
    assert "eval/win_rate" not in metrics
    held_out = {str(row.source): row for row in load_pairs(spec.data, "eval")}
    kept = artifact.load("pairs.json")
    assert len({row["id"] for row in kept}) == len({row["prompt_id"] for row in kept}) == EVAL_PAIRS
    for row in kept:
        pair = held_out[row["source"]]
        assert row["id"] == pair.id
        assert row["prompt_id"] == content_id(pair.prompt)
        assert row["cluster"] == cluster_key(first_user_turn(pair.prompt))
    assert report["power"]["prompts"] == EVAL_PAIRS
    assert report["power"]["visible_difference"] == pytest.approx(2.801585 * 0.5 / EVAL_PAIRS**0.5, rel=1e-6)
    figures = sorted(path.name for path in artifact.file("figures").iterdir())
    expected = ["length_against_reward", "margin_over_training", "preference_margins", "rewards"]
    assert figures == [f"{name}.png" for name in expected]
    samples = artifact.load("samples.json")
    assert [set(sample["answers"]) for sample in samples] == [{"base", "sft", "dpo"}] * 3
    again = build(tmp_path / "again", lambda out: run_evaluation(spec, out, Silent()))
    assert again.digest == artifact.digest


@pytest.mark.slow
def test_kl_equals_a_float64_sum_over_the_vocabulary(spec: EvaluateSpec) -> None:
    models = ModelSet(spec)
    prompts = held_out_prompts(spec, models)[0][:2]
    settings = EvaluationSettings(max_new_tokens=5, generation_batch_size=2)
    report = answer_report(models, prompts, settings, seed=3, observer=Silent())
    torch.manual_seed(3)
    responses = generate(models, "dpo", [prompt.ids for prompt in prompts], 5, sample=True)
    totals = []
    for prompt, response in zip(prompts, responses, strict=True):
        p, q = (
            torch.log_softmax(response_logits(models.use(name), (prompt.ids, response), models.precision).double(), -1)
            for name in ("dpo", "sft")
        )
        totals.append(
            sum(math.exp(a) * (a - b) for a, b in zip(p.flatten().tolist(), q.flatten().tolist(), strict=True))
        )
    assert report["dpo"]["kl_sft"]["value"] == pytest.approx(sum(totals) / 2, rel=1e-3)


@pytest.mark.slow
def test_artifacts_hold_plain_json(spec: EvaluateSpec, tmp_path: Path) -> None:
    artifact = build(tmp_path / "evaluation", lambda out: run_evaluation(spec, out, Silent()))
    for file in Path(artifact.path).glob("*.json"):
        json.loads(file.read_text(encoding="utf-8"), parse_constant=pytest.fail)


@pytest.mark.slow
def test_held_out_demonstrations_that_do_not_fit_are_counted_not_crashed_on(spec: EvaluateSpec, tmp_path: Path) -> None:
    assert spec.recipe.sft is not None
    short = spec.recipe.sft.model_copy(update={"max_seq_length": 8})
    tight = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"sft": short})})
    report = build(tmp_path / "evaluation", lambda out: run_evaluation(tight, out, Silent())).load("evaluation.json")
    assert "perplexity" not in report["models"]["dpo"]
    assert report["demonstrations"]["used"] == 0
    assert any("no perplexity" in warning for warning in report["warnings"])


@pytest.mark.slow
def test_a_kl_of_one_prompt_has_no_error(spec: EvaluateSpec) -> None:
    models = ModelSet(spec)
    prompts = held_out_prompts(spec, models)[0]
    settings = EvaluationSettings(max_new_tokens=4)
    for count in (1, 2):
        report = answer_report(models, prompts[:count], settings, seed=1, observer=Silent())
        assert ("se" in report["dpo"]["kl_sft"]) == (count == 2)


@pytest.mark.slow
def test_a_run_that_early_stopping_ended_is_reported_as_such(spec: EvaluateSpec, tmp_path: Path) -> None:
    def stopped(out: Path) -> None:
        assert spec.dpo is not None
        shutil.copytree(spec.dpo.path, out, dirs_exist_ok=True)
        (out / "manifest.json").unlink()
        write_json(out / "metrics.json", {**spec.dpo.load("metrics.json"), "dpo/kept_step": 3.0})

    undone = spec.model_copy(update={"dpo": build(tmp_path / "stopped", stopped)})
    plain = build(tmp_path / "plain", lambda out: run_evaluation(spec, out, Silent()))
    warned = build(tmp_path / "warned", lambda out: run_evaluation(undone, out, Silent()))
    for artifact, warns in ((plain, False), (warned, True)):
        warnings = artifact.load("evaluation.json")["warnings"]
        assert any("weights of step 3 were kept" in warning for warning in warnings) == warns


@pytest.mark.slow
def test_perplexity_is_the_exponential_of_the_mean_negative_log_prob(spec: EvaluateSpec, tmp_path: Path) -> None:
    """By another way: transformers' own loss on labels that leave the prompt out, weighted by response tokens."""
    report = build(tmp_path / "evaluation", lambda out: run_evaluation(spec, out, Silent())).load("evaluation.json")
    models = ModelSet(spec)
    total, count = 0.0, 0
    for row in load_demonstrations(spec.data, "eval"):
        prompt = models.renderer.prompt_ids(row.messages[:-1])
        answer = models.tokenizer.encode(row.messages[-1].content, add_special_tokens=False)
        response = [*answer, models.tokenizer.eos_token_id]
        ids, labels = torch.tensor([prompt + response]), torch.tensor([[-100] * len(prompt) + response])
        total += float(models.use("sft")(input_ids=ids, labels=labels).loss) * len(response)
        count += len(response)
    assert report["models"]["sft"]["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
