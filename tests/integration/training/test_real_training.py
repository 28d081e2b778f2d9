"""Trainings of the real SmolLM2 on a few rows of the demo: what stops them, and what they take."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partialmethod
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Trainer

from preflow.config import Recipe
from preflow.errors import RuinedModelError
from preflow.logprobs.scored_pairs import read_pairs
from preflow.maths.divergence import kl_divergence
from preflow.models.loading import load_policy, load_tokenizer
from preflow.models.precision import choose_precision
from preflow.models.resolve import resolve_model
from preflow.models.scoring import response_logits
from preflow.observer import Silent
from preflow.specs import DpoSpec, SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.sft import run_sft
from tests.integration.training.smollm2 import Recorder, demo_rows, dpo_spec, recipe_for


def stopped(spec: DpoSpec, out: Path) -> dict[str, float]:
    """Metrics of a DPO that the limit of 10 nats stops, which it says."""
    recorder = Recorder()
    out.mkdir()
    run_dpo(spec, out, recorder)
    (note,) = [note for note in recorder.notes if "stopped at step" in note]
    assert "dpo.kl_limit 10" in note
    metrics: dict[str, float] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return metrics


@pytest.mark.nightly
def test_a_forced_learning_rate_is_stopped_before_it_ruins_the_model(tmp_path: Path) -> None:
    """100 times the usual rate: the limit of 10 nats is passed within a dozen steps, and earlier weights are kept.

    The divergence of what is kept is then measured in another way: over the whole vocabulary, of the saved model.
    """
    recipe = recipe_for(
        "dpo", learning_rate=5e-4, warmup_ratio=0.0, lr_scheduler_type="constant", max_steps=12,
        num_train_epochs=4, eval_steps=4, eval_pairs=3, proof_sample=1,
    )  # fmt: skip
    spec = dpo_spec(recipe, demo_rows(tmp_path, 1, 12, 3), tmp_path)
    out = tmp_path / "dpo"
    metrics = stopped(spec, out)
    assert metrics["dpo/stopped_at_step"] < 12
    assert metrics["dpo/eval_kl"] > 10
    evaluations = {
        e["step"]: e for e in json.loads((out / "training.json").read_text(encoding="utf-8")) if "eval_kl" in e
    }
    kept = int(metrics["dpo/kept_step"])
    assert 0 < kept < metrics["dpo/stopped_at_step"], "nothing was learnt within the limit"
    assert evaluations[kept]["eval_reward_accuracy"] > 0.5
    assert evaluations[kept]["eval_kl"] <= (whole := divergence(spec, out / "model")) + 1e-3, "no lower bound"
    assert whole <= 10


#: Settings at the top of a recipe and of its stage, and the model. Each way of training keeps other tensors.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "lora": ({}, {}, "short"),
    "full": ({"tuning": "full"}, {}, "middling"),
    "bf16": ({"bf16": True}, {}, "short"),
    "4-bit": ({"use_4bit": True}, {}, "short"),
    "checkpointed": ({}, {"gradient_checkpointing": True}, "short"),
    "dropout": ({}, {"lora_dropout": 0.1, "per_device_train_batch_size": 4}, "short"),
    "full, checkpointed": ({"tuning": "full"}, {"gradient_checkpointing": True}, "middling"),
}
#: Those of `make test`: each part of the estimate once (adapter, all weights, packed weights, activations made again).
EACH_TIME = {("lora", "dpo"), ("full", "sft"), ("4-bit", "sft")}


@pytest.mark.slow
def test_a_last_step_that_ruins_the_model_is_no_success(tmp_path: Path) -> None:
    """500 times the usual rate in SFT: every loss and gradient is finite, and nothing is evaluated."""
    constant = {"warmup_ratio": 0.0, "lr_scheduler_type": "constant"}
    recipe = recipe_for("sft", learning_rate=0.1, max_steps=2, per_device_train_batch_size=2, **constant)
    spec = SftSpec(recipe=recipe, base=resolve_model(recipe, Silent()), data=demo_rows(tmp_path, 4, 1, 1))
    (tmp_path / "out").mkdir()
    with pytest.raises(RuinedModelError, match=r"guessing among all tokens takes 10\.8\) after step 2"):
        run_sft(spec, tmp_path / "out", Silent())


@pytest.mark.nightly
def test_a_forced_learning_rate_is_stopped_by_the_default_evaluations(tmp_path: Path) -> None:
    """5e-4, and the defaults of what limits and schedules a training: an evaluation every 20 steps, 10 nats,
    a cosine after a tenth of warm-up. Few pairs, one by one, save time. What is kept is within the limit.
    """
    recipe = recipe_for(
        "dpo", learning_rate=5e-4, per_device_train_batch_size=1, max_steps=40, proof_sample=1,
    )  # fmt: skip
    settings: Any = recipe.dpo
    assert (settings.eval_steps, settings.eval_pairs, settings.kl_limit) == (20, 16, 10)
    assert (settings.lr_scheduler_type, settings.warmup_ratio) == ("cosine", 0.1)
    spec = dpo_spec(recipe, demo_rows(tmp_path, 1, 8, 6), tmp_path)
    assert stopped(spec, tmp_path / "dpo")["dpo/stopped_at_step"] == 20
    assert divergence(spec, tmp_path / "dpo" / "model") <= 10


@pytest.mark.parametrize(
    ("way", "stage"),
    [
        pytest.param(way, stage, marks=pytest.mark.slow if (way, stage) in EACH_TIME else pytest.mark.nightly)
        for way in WAYS
        for stage in ("sft", "dpo")
    ],
)
def test_tensors_are_what_was_estimated(tmp_path: Path, stage: str, way: str) -> None:
    """PyTorch allocates within 5 % of what was predicted, by its own profiler: the same in every run, on any machine.

    On SmolLM2's first eight layers, or a model of 32M parameters.
    """
    recipe = small_recipe(tmp_path, stage, *WAYS[way])
    peaks: list[int] = []
    with mock.patch.object(Trainer, "train", partialmethod(profiled, Trainer.train, peaks)):
        numbers = memory_numbers(tmp_path, stage, recipe)
    (peak,) = peaks
    assert numbers[f"{stage}/memory_predicted_tensors_gib"] == pytest.approx(peak / 2**30, rel=0.05)


def profiled(self: Trainer, train: Callable[..., Any], peaks: list[int], **arguments: Any) -> None:
    """Train, and note the most bytes that tensors made meanwhile held at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        train(self, **arguments)
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    made_and_freed = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    peaks.append(max(accumulate(made_and_freed)))


@pytest.mark.nightly  # test_smollm2_with_a_few_rows compares both stages each time
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_memory_is_what_was_estimated(tmp_path: Path, stage: str) -> None:
    """What the process takes above the loaded SmolLM2 is within 15 % of what was predicted; both go to MLflow.

    In a process of its own: what other tests, or the making of the model, left in this one would count.
    """
    recipe = small_recipe(tmp_path, stage, {}, {}, "whole")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        numbers = pool.submit(memory_numbers, tmp_path, stage, recipe).result()
    predicted, measured = (numbers[f"{stage}/memory_{name}_gib"] for name in ("predicted", "measured"))
    assert predicted == pytest.approx(measured, rel=0.15)


def small_recipe(tmp_path: Path, stage: str, top: dict[str, Any], section: dict[str, Any], model: str) -> Recipe:
    """Two steps on eight rows, on a model that is made here."""
    one_batch = {"per_device_train_batch_size": 8, "max_steps": 2, **section}
    evaluations = {"eval_pairs": 0, "proof_sample": 1, "disable_dropout": False} if stage == "dpo" else {}
    recipe = recipe_for(stage, **one_batch, **evaluations)
    make = {"middling": middling, "short": first_layers}.get(model)
    named = {} if make is None else {"model_name": str(make(recipe, tmp_path / "model"))}
    return recipe.model_copy(update={**top, **named})


def memory_numbers(tmp_path: Path, stage: str, recipe: Recipe) -> dict[str, float]:
    """What a training tells the observer: GiB predicted and measured among it."""
    data, out, recorder = demo_rows(tmp_path, 8, 8, 1, times=3), tmp_path / "out", Recorder()
    out.mkdir()
    if stage == "dpo":
        run_dpo(dpo_spec(recipe, data, tmp_path), out, recorder)
    else:
        run_sft(SftSpec(recipe=recipe, base=resolve_model(recipe, Silent()), data=data), out, recorder)
    return recorder.numbers


def first_layers(recipe: Recipe, folder: Path) -> Path:
    """The first eight layers of SmolLM2."""
    base = resolve_model(recipe, Silent())
    AutoModelForCausalLM.from_pretrained(base.path, num_hidden_layers=8).save_pretrained(str(folder))
    load_tokenizer(base, recipe).save_pretrained(str(folder))
    return folder


def middling(recipe: Recipe, folder: Path) -> Path:
    """A model of eight layers with SmolLM2's tokenizer and random weights."""
    tokenizer = load_tokenizer(resolve_model(recipe, Silent()), recipe)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=3, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@torch.no_grad()
def divergence(spec: DpoSpec, trained: Path) -> float:
    """Nats per held-out chosen response by which a saved model differs from its base."""
    precision = choose_precision(spec.recipe)
    pairs = read_pairs(spec.reference.file("eval.parquet"))
    models = [load_policy(spec.base, folder, spec.recipe, precision) for folder in (trained, None)]
    values = [kl_divergence(*(response_logits(m, pair.chosen, precision) for m in models)).sum() for pair in pairs]
    return float(sum(values)) / len(pairs)
