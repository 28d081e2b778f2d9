"""What each stage of a run needs, and the settings with which all of them fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from flows.planning.devices import Device, on_gpu
from flows.planning.row_lengths import read_lengths, read_model
from flows.planning.stages import StageEstimate, shapes_of, stage_estimates, suggest
from flows.running.preparation import prepare_run
from preflow.config import Recipe
from preflow.errors import ConfigError, ModelError
from preflow.estimates.scoring import start_check_memory


def stages_of(file: Path, **changes: object) -> tuple[Recipe, list[StageEstimate]]:
    """The stages of a recipe on a GPU."""
    prepared = prepare_run(file, {name.replace("__", "."): value for name, value in changes.items()})
    recipe, base = prepared.recipe, read_model(prepared.recipe)
    return recipe, stage_estimates(recipe, shapes_of(recipe, base), read_lengths(prepared, base), on_gpu(recipe))


def gpu(recipe: Recipe, available: float) -> Device:
    return Device("a GPU", on_gpu(recipe), available, None)


def test_every_stage_that_computes_has_one_estimate_in_the_order_of_a_run(
    tiny_recipe_file: Callable[..., Path],
) -> None:
    _, stages = stages_of(tiny_recipe_file())
    names = ["sft", "reference", "dpo start checks", "dpo", "dpo held-out eval", "evaluate"]
    assert [stage.name for stage in stages] == names
    assert [stage.name for stage in stages if stage.steps is not None] == ["sft", "dpo"]
    assert [stage.name for stage in stages if stage.peak is None] == ["dpo held-out eval"]


def test_start_checks_that_do_not_fit_are_helped_by_the_weights_settings(
    tiny_recipe_file: Callable[..., Path],
) -> None:
    """Full weights in float32, pair by pair; available is halfway between what they need and what 4-bit ones do."""
    prepared = prepare_run(tiny_recipe_file(), {"tuning": "full", "bf16": "false"})
    recipe, base = prepared.recipe, read_model(prepared.recipe)
    shapes, rows = shapes_of(recipe, base), read_lengths(prepared, base)
    packed = recipe.model_copy(update={"tuning": "lora", "use_4bit": True})
    assert recipe.dpo is not None
    needs = [
        start_check_memory(shapes["dpo"], each, recipe.dpo, rows["dpo"].train, on_gpu(packed), 0.0).total
        for each in (recipe, packed)
    ]
    assert needs[1] < needs[0]
    device = gpu(recipe, sum(needs) / 2)
    (checks,) = (
        stage for stage in stage_estimates(recipe, shapes, rows, device.precision) if stage.name == "dpo start checks"
    )
    assert not checks.fits(recipe, device)
    change = checks.smallest_change(recipe, device)
    assert change is not None
    assert change.settings["tuning"] == "lora"


def test_a_suggestion_makes_every_stage_fit_and_nothing_is_suggested_where_nothing_helps(
    tiny_recipe_file: Callable[..., Path],
) -> None:
    """A little less than DPO needs; below the weights themselves nothing helps."""
    recipe, stages = stages_of(tiny_recipe_file(), tuning="full")
    (need,) = (stage.memory_on(recipe, gpu(recipe, 1e12)) for stage in stages if stage.name == "dpo")
    assert need is not None
    device = gpu(recipe, 0.9 * need.total)
    assert not all(stage.fits(recipe, device) for stage in stages)
    found = suggest(stages, recipe, device)
    assert found is not None
    assert found.settings
    assert all(stage.fits(found.recipe, device) for stage in stages)
    for name, value in found.settings.items():
        section, _, setting = name.rpartition(".")
        assert getattr(getattr(found.recipe, section) if section else found.recipe, setting) == value
    assert suggest(stages, recipe, gpu(recipe, 1e3)) is None


def test_a_plan_starts_from_an_adapter_as_a_run_does(
    tiny_recipe_file: Callable[..., Path], tiny_folder: Path, tmp_path: Path
) -> None:
    """The base's configuration and tokenizer, the adapter's own modules; one of another rank is refused."""
    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"])
    get_peft_model(base, config).save_pretrained(str(tmp_path / "adapter"))
    changes = {"model_name": str(tmp_path / "adapter"), "sft.lora_alpha": 32, "dpo.lora_alpha": 32}
    prepared = prepare_run(tiny_recipe_file(), changes)
    shape = shapes_of(prepared.recipe, read_model(prepared.recipe))["dpo"]
    assert shape.adapted_modules == 2 * base.config.num_hidden_layers
    with pytest.raises(ConfigError, match="lora_r is 8 but the adapter"):
        read_model(prepare_run(tiny_recipe_file(), {**changes, "sft.lora_r": 8, "dpo.lora_r": 8}).recipe)


def test_a_folder_without_a_configuration_is_one_clear_error(
    tiny_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = prepare_run(tiny_recipe_file()).recipe
    base = read_model(recipe).model_copy(update={"path": str(tmp_path)})
    with pytest.raises(ModelError, match="no configuration can be read"):
        shapes_of(recipe, base)
