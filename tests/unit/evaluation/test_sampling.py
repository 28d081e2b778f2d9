"""How answers of held-out prompts are sampled, and how models take turns to give them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from preflow.artifacts import build
from preflow.config import EvaluationSettings
from preflow.evaluation import generation
from preflow.evaluation.generation import generate, held_out_prompts
from preflow.evaluation.models import ModelSet
from preflow.models.precision import Precision
from preflow.models.scoring import response_logits
from preflow.observer import Silent
from preflow.specs import EvaluateSpec
from preflow.stages.evaluation import run_evaluation
from tests.fixtures.prepared_run import Run
from tests.unit.support import EVAL_PAIRS


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
