"""Changes of a recipe with which a stage fits."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.estimates.fit import Change, nearest_fitting_settings, shortened
from preflow.estimates.flops import shape_of
from preflow.estimates.training import estimate_training
from preflow.models.precision import Precision
from tests.unit.estimates.models import CPU, EXPERTS, GPU, dpo_recipe, llama_8b

SHAPES = {"8b": llama_8b, "moe": cache(lambda: shape_of(EXPERTS["qwen3_moe"]))}
ROWS = [(1800, 150, 200), (600, 200, 100), (90, 30, 20)] * 12


def test_a_shorter_limit_cuts_prompts_and_drops_long_responses() -> None:
    assert shortened((10, 4, 2), 20) == (10, 4, 2)
    assert shortened((10, 4, 2), 8) == (4, 4, 2)
    assert shortened((10, 8, 2), 8) is None
    assert (shortened((10, 4), 8), shortened((10, 8), 8)) == ((8, 4), None)


def changed(recipe: Recipe, section: TrainingSettings, change: Change) -> tuple[Recipe, TrainingSettings]:
    top = {name: value for name, value in change.settings.items() if name in ("tuning", "use_4bit")}
    own = {name: value for name, value in change.settings.items() if name not in top}
    return recipe.model_copy(update=top), section.model_copy(update=own)


def needed(architecture: str, recipe: Recipe, section: TrainingSettings, rows: Any, device: Precision) -> float:
    held = Precision(device.device, torch.float32 if recipe.tuning == "full" else device.compute, device.compute)
    return estimate_training(SHAPES[architecture](), recipe, section, rows, held).memory.total


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    architecture=st.sampled_from(list(SHAPES)), tuning=st.sampled_from(["lora", "full"]), share=st.floats(0.0, 1.2),
    batch=st.integers(1, 9), device=st.sampled_from([CPU, GPU]), budget=st.sampled_from([None, 4096]),
)  # fmt: skip
def test_a_change_that_is_named_fits_and_one_is_named_where_any_does(
    architecture: str, tuning: str, share: float, batch: int, device: Precision, budget: int | None
) -> None:
    """Memory from nothing to more than the recipe needs. The least: every setting at its smallest."""
    batches = {"per_device_train_batch_size": batch, "max_tokens_per_batch": budget}
    recipe, section = dpo_recipe(tuning, max_seq_length=2048, **batches)
    least: dict[str, Any] = {"optim": "paged_adamw_8bit", "gradient_checkpointing": True, "max_seq_length": 128}
    least |= {"max_tokens_per_batch": 16} if budget else {}
    least |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2 * batch} if not budget else {}
    smallest, tiny = recipe.model_copy(update={"tuning": "lora", "use_4bit": True}), section.model_copy(update=least)
    floor = needed(architecture, smallest, tiny, [row for each in ROWS if (row := shortened(each, 128))], device)
    available = share * needed(architecture, recipe, section, ROWS, device)
    change = nearest_fitting_settings(SHAPES[architecture](), recipe, section, ROWS, device, available)
    if change is None:
        assert floor > available
        return
    given_recipe, given_section = changed(recipe, section, change)
    kept = [row for each in ROWS if (row := shortened(each, given_section.max_seq_length))]
    assert needed(architecture, given_recipe, given_section, kept, device) <= available
    assert len(ROWS) - len(kept) == change.dropped
    if "per_device_train_batch_size" in change.settings:
        assert given_section.per_device_train_batch_size * given_section.gradient_accumulation_steps == 2 * batch


def test_an_8b_model_with_all_weights_gets_qlora_on_16_gb() -> None:
    """Rows are only cut where nothing else helps; then it is said how many."""
    recipe, section = dpo_recipe("full", max_seq_length=2048)
    full = Precision(GPU.device, torch.float32, torch.bfloat16)
    change: Any = nearest_fitting_settings(llama_8b(), recipe, section, ROWS, full, 16e9 * 0.92)
    assert change.settings["tuning"] == "lora"
    assert change.settings["use_4bit"] is True
    assert "max_seq_length" not in change.settings
    assert "tuning: lora" in str(change)
    smallest = section.model_copy(
        update={
            "optim": "paged_adamw_8bit", "gradient_checkpointing": True, "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8,
        }
    )  # fmt: skip
    available = needed("8b", recipe.model_copy(update={"tuning": "lora", "use_4bit": True}), smallest, ROWS, GPU) - 1
    cut: Any = nearest_fitting_settings(llama_8b(), recipe, section, ROWS, full, available)
    assert cut.cut > 0
    assert f"cuts the prompts of {cut.cut} rows" in str(cut)
