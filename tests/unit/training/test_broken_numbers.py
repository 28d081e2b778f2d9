"""Broken numbers stop a training before they reach the weights, and the rows that bring them are named."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from preflow.artifacts import SCRATCH
from preflow.dpo.start import load_start
from preflow.dpo.trainer import make_trainer
from preflow.errors import NonFiniteLossError
from preflow.logprobs.scored_pairs import read_pairs
from preflow.models.loading import load_tokenizer
from preflow.models.precision import choose_precision
from preflow.observer import Silent
from preflow.specs import SftSpec
from preflow.stages import dpo, sft
from preflow.stages.dpo import run_dpo
from preflow.stages.sft import run_sft
from preflow.training.checkpoints import resume_point
from tests.fixtures.prepared_run import Run
from tests.unit.support import COMMON, recipe_for

pytestmark = pytest.mark.slow  # each test trains


def spec_with(run: Run, **settings: Any) -> Any:
    return run.dpo(recipe=recipe_for(run.base, dpo={**COMMON, "learning_rate": 1e-3, **settings}))


def break_row(trainer: Any, step: int, place: int) -> None:
    """From the given training forward on, the model gives NaN for one row of that forward's batch, in any batch."""
    inner = trainer.model
    own = inner.forward
    calls, bad = 0, torch.zeros(0)

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, bad
        calls += torch.is_grad_enabled()
        ids, lengths = kwargs["input_ids"], kwargs["attention_mask"].sum(-1)
        if calls == step and torch.is_grad_enabled():
            bad = ids[place, : lengths[place]]
        output = own(*args, **kwargs)
        factors = [math.nan if line[:n].equal(bad) else 1.0 for line, n in zip(ids, lengths, strict=True)]
        output.log_probs = output.log_probs * torch.tensor(factors)[:, None]
        return output

    inner.forward = forward


#: Files that the rows of a stage come from.
SOURCES = {"dpo": "p.jsonl", "sft": "d.jsonl"}


def named_by(run: Run, out: Path, stage: str, **changes: Any) -> str:
    """What a stage says when one row breaks its numbers; it names that row alone."""
    settings = {**COMMON, "learning_rate": 1e-3, **({"eval_pairs": 0} if stage == "dpo" else {}), **changes}
    recipe = recipe_for(run.base, **{stage: settings})
    sft, preferences = SftSpec(recipe=recipe, base=run.base, data=run.data), run.dpo(recipe=recipe)
    train = partial(run_sft, sft) if stage == "sft" else partial(run_dpo, preferences)
    with pytest.raises(NonFiniteLossError) as caught:
        train(out, Silent())
    told = str(caught.value)
    assert told.count(SOURCES[stage]) == 1, "it names more rows than the broken one"
    return told


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_broken_row_is_named_and_the_last_checkpoint_is_whole(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    module: Any = dpo if stage == "dpo" else sft
    own = module.run_training
    seen: list[Any] = []

    def broken(trainer: Any, out: Path, *rest: Any, **options: Any) -> Any:
        break_row(trainer, step=5, place=1)
        compute = trainer.compute_loss

        def noted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(int(inputs["row"][1]))
            return compute(model, inputs, *args, **kwargs)

        trainer.compute_loss = noted
        return own(trainer, out, *rest, **options)

    monkeypatch.setattr(module, "run_training", broken)
    told = named_by(prepared, tmp_path, stage)
    source = SOURCES[stage]
    assert f"{stage}: the loss is nan at step 5" in told
    assert f"{source}:{seen[-1]};" in told.replace(f"{source}:{seen[-1]} ", f"{source}:{seen[-1]};")
    checkpoint = resume_point(tmp_path / SCRATCH)
    assert checkpoint is not None
    assert checkpoint.endswith("checkpoint-4")
    assert all(torch.isfinite(t).all() for t in load_file(Path(checkpoint) / "adapter_model.safetensors").values())


def test_a_broken_gradient_never_reaches_the_weights(prepared: Run, tmp_path: Path) -> None:
    spec = spec_with(prepared, eval_steps=0)
    pairs = read_pairs(prepared.reference.file("train.parquet"))
    model = load_start(spec, spec.recipe.dpo, choose_precision(spec.recipe))
    trainer = make_trainer(spec, model, load_tokenizer(prepared.base, spec.recipe), pairs, tmp_path, Silent())
    policy: Any = trainer.model
    weights = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in weights.items()}
    next(iter(weights.values())).register_hook(lambda grad: grad * math.inf)
    with pytest.raises(NonFiniteLossError, match=r"the gradient is (inf|nan) at step 1, .* on p\.jsonl") as told:
        trainer.train()
    assert "no checkpoint was written yet" in str(told.value)
    assert all(before[name].equal(p) for name, p in weights.items())


class _BreaksBackward(torch.autograd.Function):
    """Its value is its input, its gradient infinite."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * math.inf


@pytest.mark.parametrize("stage", ["sft", pytest.param("dpo", marks=pytest.mark.slow)])
def test_the_row_of_a_broken_gradient_is_named(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """One row of a step of two forwards of two has a loss that is a number, and a gradient that is none."""
    module: Any = dpo if stage == "dpo" else sft
    own = module.run_training
    seen: list[int] = []

    def broken(trainer: Any, out: Path, *rest: Any, **options: Any) -> Any:
        compute, inner, bad = trainer.compute_loss, trainer.model, []
        forward = inner.forward

        def noted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not seen:
                seen.append(int(inputs["row"][1]))
                bad.append(inputs["input_ids"][1, : int(inputs["attention_mask"][1].sum())])
            return compute(model, inputs, *args, **kwargs)

        def half_broken(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            ids, lengths = kwargs["input_ids"], kwargs["attention_mask"].sum(-1)
            lines = zip(output.log_probs, ids, lengths, strict=True)
            parts = [_BreaksBackward.apply(line) if i[:n].equal(bad[0]) else line for line, i, n in lines]  # type: ignore[no-untyped-call]
            output.log_probs = torch.stack(parts)
            return output

        trainer.compute_loss, inner.forward = noted, half_broken
        return own(trainer, out, *rest, **options)

    monkeypatch.setattr(module, "run_training", broken)
    told = named_by(prepared, tmp_path, stage, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert f"{stage}: the gradient is " in told
    assert f"{SOURCES[stage]}:{seen[0]}; " in told
