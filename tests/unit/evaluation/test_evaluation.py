"""What the evaluation says, against values worked out by hand or by another way."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from preflow.artifacts import build, write_json
from preflow.config import EvaluationSettings
from preflow.data.rows import content_id, first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.validated import load_demonstrations, load_pairs
from preflow.evaluation import generation
from preflow.evaluation.generation import answer_report, generate, held_out_prompts
from preflow.evaluation.models import ModelSet
from preflow.evaluation.preferences import PairScores, compare, preference_report
from preflow.models.precision import Precision
from preflow.models.scoring import response_logits
from preflow.observer import Silent
from preflow.specs import EvaluateSpec
from preflow.stages.evaluation import run_evaluation
from tests.fixtures.prepared_run import Run
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
def test_sampling_takes_fewer_at_once_when_out_of_memory(spec: EvaluateSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    models, asked, notes = ModelSet(spec), [], []
    own = generation.generate

    def small_card(models: ModelSet, name: str, prompts: list[list[int]], *args: int, **options: bool) -> Any:
        asked.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return own(models, name, prompts, *args, **options)

    class Recorder(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    monkeypatch.setattr(generation, "generate", small_card)
    prompts = held_out_prompts(spec, models)[0][:5]
    settings = EvaluationSettings(max_new_tokens=4, generation_batch_size=8)
    rows = generation._sampled(models, "base", prompts, settings, Recorder())
    assert [prompt for prompt, _ in rows] == [prompt.ids for prompt in prompts]
    assert asked == [5, 2, 2, 1]
    assert notes == ["evaluate: out of memory with 5 answers at once; trying 2"]


def test_sampling_ignores_the_settings_a_model_ships_with(spec: EvaluateSpec) -> None:
    """With a shipped top_k of 1, sampling would be greedy: every seed would give the same response."""
    models = ModelSet(spec)
    prompt = held_out_prompts(spec, models)[0][0].ids
    responses = set()
    for seed in range(4):
        model = models.use("dpo")
        model.generation_config = GenerationConfig(do_sample=True, top_k=1, temperature=0.1)  # type: ignore[no-untyped-call]
        torch.manual_seed(seed)
        responses.add(tuple(generate(models, "dpo", [prompt], 6, sample=True)[0]))
    assert len(responses) > 1


@pytest.mark.slow
def test_sampling_is_from_the_models_whole_distribution(spec: EvaluateSpec) -> None:
    """4,096 first tokens against their known probabilities: a cut tail or another temperature is many errors away."""
    models = ModelSet(spec)
    prompt = held_out_prompts(spec, models)[0][0].ids
    with torch.no_grad():
        logits = models.use("base")(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    torch.manual_seed(5)
    tokens = torch.tensor(generate(models, "base", [prompt] * 4096, 1, sample=True))[:, 0]
    logps = logits.log_softmax(-1)
    probs, order = logps.exp(), logps.argsort(descending=True)
    nucleus = order[: int((probs[order].cumsum(0) < 0.9).sum()) + 1]
    for kept in (order[:50], nucleus):
        tail = 1 - float(probs[kept].sum())
        assert 0.02 < tail < 0.5
        outside = float(torch.isin(tokens, kept, invert=True).double().mean())
        assert abs(outside - tail) < 5 * (tail * (1 - tail) / 4096) ** 0.5
    seen = logps[tokens]
    assert abs(float(seen.mean() - (probs * logps).sum())) < 5 * float(seen.std()) / 4096**0.5


def test_adapters_take_turns_over_one_base(spec: EvaluateSpec, prepared: Run) -> None:
    models = ModelSet(spec)
    row = (held_out_prompts(spec, models)[0][0].ids, [5, 6, 7])
    values: dict[str, torch.Tensor] = {}
    for name in ("base", "dpo", "sft", "base", "sft", "dpo"):
        logits = response_logits(models.use(name), row, models.precision)
        assert torch.equal(values.setdefault(name, logits), logits)
    assert not torch.equal(values["base"], values["sft"])
    assert not torch.equal(values["sft"], values["dpo"])


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
def test_held_out_prompts_without_room_for_an_answer_are_named(spec: EvaluateSpec, tmp_path: Path) -> None:
    """The prompts end in up to three "please": the longest leave no room when the limit is their own length."""
    models = ModelSet(spec)
    longest = max(len(prompt.ids) for prompt in held_out_prompts(spec, models)[0])
    assert spec.recipe.dpo is not None
    dpo = spec.recipe.dpo.model_copy(update={"max_seq_length": longest})
    tight = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"dpo": dpo})})
    report = build(tmp_path / "evaluation", lambda out: run_evaluation(tight, out, Silent())).load("evaluation.json")
    assert report["prompts"]["held_out"] == EVAL_PAIRS
    named = report["prompts"]["too_long"]
    assert "p.jsonl:27" in named  # the first of those held out with three "please"
    assert len(named) < EVAL_PAIRS
    assert any("p.jsonl:27" in warning for warning in report["warnings"])


def test_prompts_beyond_learned_positions_are_not_asked(
    spec: EvaluateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ModelSet(spec)
    longest = max(len(prompt.ids) for prompt in held_out_prompts(spec, models)[0])
    answer = spec.recipe.evaluation.max_new_tokens
    for positions, named in ((longest + answer, False), (longest + answer - 1, True)):
        monkeypatch.setattr(generation, "position_limit", lambda base, recipe, found=positions: found)
        assert bool(held_out_prompts(spec, models)[1]) == named


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


def test_full_weights_take_turns_on_a_device(spec: EvaluateSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three models of 8B parameters in float32 would not fit on one GPU."""
    models = ModelSet(spec)
    models.precision = Precision(torch.device("cuda"), torch.float32, torch.float32)

    class Whole:
        def __init__(self) -> None:
            self.at = torch.device("cuda")

        def to(self, device: torch.device | str) -> None:
            self.at = torch.device(device)

    models._full = {name: Whole() for name in ("base", "sft", "dpo")}
    monkeypatch.setattr(models, "_find", models._full.__getitem__)
    for name in ("dpo", "base", "sft", "dpo"):
        used = models.use(name)
        assert [key for key, model in models._full.items() if model.at.type == "cuda"] == [name]
        assert used is models._full[name]


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
