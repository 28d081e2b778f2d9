"""4-bit weights without padding: loss and gradients are those of TRL's own trainer on the same packed weights."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from preflow.config import Recipe
from preflow.models.loading import load_weights
from tests.conftest import make_model
from tests.unit.equivalence import trainer_pairs
from tests.unit.equivalence.comparison import assert_same_step, moved
from tests.unit.equivalence.trainer_pairs import CPU, dpo_trainers
from tests.unit.models.architectures import EDGES, rows_of


def four_bit(folder: Path, *_: Any, **__: Any) -> Any:
    """A random model with packed weights (bitsandbytes needs a width of 64 on the CPU) and an adapter of rank 4."""
    values = {"strategy": "dpo", "model_name": str(folder), "use_4bit": True, "bf16": False, "dpo": {}}
    model = load_weights(folder, Recipe.model_validate(values), CPU)
    torch.manual_seed(1)
    return get_peft_model(model.requires_grad_(False), LoraConfig(r=4, target_modules="all-linear"))


@pytest.mark.slow
@pytest.mark.parametrize("common", [0, 9])
def test_gradients_over_packed_weights_equal_padded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, common: int
) -> None:
    """TRL casts such an adapter to bfloat16, which Preflow undoes; here its trainer gets the same numbers back."""
    make_model(tmp_path / "model", width=64)
    monkeypatch.setattr(trainer_pairs, "model_of", partial(four_bit, tmp_path / "model"))
    rows = rows_of(EDGES, 0, common)
    trainers = dpo_trainers("llama", rows, tmp_path, lora=True)
    for parameter in trainers.trl.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    moved(trainers)
    exact = {name: p for name, p in trainers.preflow.model.named_parameters() if p.requires_grad}
    for name, parameter in trainers.trl.model.named_parameters():
        if parameter.requires_grad:
            parameter.data = exact[name].data.clone()
    assert any(type(module).__name__ == "Linear4bit" for module in trainers.preflow.model.modules())
    assert_same_step(trainers, rows)
