"""8-bit and paged optimizers train, and hold the bytes that the plan says."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from bitsandbytes.optim.optimizer import GlobalOptimManager
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig

from preflow.config.training import DpoSettings
from preflow.dpo.trainer import make_trainer
from preflow.estimates.flops import shape_of
from preflow.estimates.memory import peak_memory
from preflow.estimates.workload import packed_works
from preflow.models.adapters import new_adapter
from preflow.observer import Silent
from preflow.training.loop import run_training
from tests.conftest import make_tokenizer
from tests.unit.equivalence.trainer_pairs import CPU, spec_of, with_reference
from tests.unit.models.architectures import EDGES, rows_of

#: Every matrix of its adapter of rank 16 has 4096 numbers or more: bitsandbytes leaves smaller ones in 32 bits.
CONFIG = LlamaConfig(
    vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, tie_word_embeddings=True,
)  # fmt: skip

REST = [pytest.param(name, marks=pytest.mark.slow) for name in ("adamw_8bit", "paged_adamw_32bit", "adamw_torch")]


def trained_with(optim: str, out: Path, *, lora: bool) -> Any:
    """Preflow's DPO trainer after four steps."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(CONFIG, dtype=torch.float32)  # type: ignore[no-untyped-call]
    spec, rows = spec_of("dpo", lora, {"optim": optim, "max_steps": 4, "lora_r": 16}), rows_of(EDGES, 0)
    pairs = with_reference(model.eval(), rows)
    policy = new_adapter(model, spec.recipe.dpo, 42) if lora else model
    trainer = make_trainer(spec, policy, make_tokenizer(), pairs, out, Silent())
    run_training(trainer, out)
    return trainer


def bytes_held(trainer: Any) -> int:
    """Bytes of the optimizer's state; tables that all its tensors share count once."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # accelerate wraps it
    tensors = [each for state in optimizer.state.values() for each in state.values() if torch.is_tensor(each)]
    return sum({each.data_ptr(): each.numel() * each.element_size() for each in tensors}.values())


@pytest.fixture(autouse=True)
def _no_old_exceptions() -> None:
    """bitsandbytes remembers which parameters stay in 32 bits by their ids, which parameters made later have again."""
    GlobalOptimManager.get_instance().initialize()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("lora", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize("optim", ["paged_adamw_8bit", *REST])
def test_an_optimizer_trains_and_holds_what_the_plan_says(tmp_path: Path, optim: str, lora: bool) -> None:
    """bitsandbytes runs on the CPU too, where nothing is paged. Losses are those of AdamW within 0.1 %."""
    trainer = trained_with(optim, tmp_path, lora=lora)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    plain = trained_with("adamw_torch", tmp_path / "plain", lora=lora)
    expected = [entry["loss"] for entry in plain.state.log_history if "loss" in entry]
    assert losses[-1] < 0.9 * losses[0]
    assert losses == pytest.approx(expected, rel=1e-3)
    recipe, (work,) = trainer_recipe(optim, lora), packed_works([(4, 3, 5)])
    predicted = peak_memory(shape_of(CONFIG), recipe, cast(DpoSettings, recipe.dpo), work, CPU).optimizer
    held = bytes_held(trainer)
    assert predicted == pytest.approx(held, rel=0.03)
    assert ("8bit" in optim) == (held < 0.4 * bytes_held(plain))


def trainer_recipe(optim: str, lora: bool) -> Any:
    return spec_of("dpo", lora, {"optim": optim, "lora_r": 16}).recipe
