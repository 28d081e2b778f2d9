"""Which layers get an adapter, and what is saved beside its weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PretrainedConfig

from preflow.config import Recipe
from preflow.errors import ConfigError, UnfitModelError
from preflow.models.adapters import new_adapter, require_targets, save_model
from preflow.models.loading import load_tokenizer, load_weights, model_config
from preflow.models.precision import choose_precision
from preflow.models.resolve import ModelRef
from tests.fixtures.prepared_run import Run
from tests.unit.dpo.start_models import going_on
from tests.unit.models.architectures import CONFIGS

LAYERS = "layers are down_proj, embed_tokens, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


def test_an_adapter_names_its_base_as_the_recipe_does(prepared: Run, tmp_path: Path) -> None:
    """A path of this machine would mean nothing elsewhere, and would give the same weights another digest."""
    base = prepared.base.model_copy(update={"name": "owner/name"})
    save_model(going_on(prepared), load_tokenizer(prepared.base, prepared.recipe), base, [1], tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "owner/name"
    assert str(prepared.base.path) not in json.dumps(config)


@pytest.mark.parametrize("start", [True, "gaussian", "zero_a"])
def test_a_fresh_adapter_changes_no_output_and_all_of_it_trains(prepared: Run, start: Any) -> None:
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": "m", "init_lora_weights": start, "lora_r": 4})
    assert recipe.dpo is not None
    plain = load_weights(prepared.base.path, recipe, choose_precision(recipe))
    ids = torch.arange(12)[None]
    before = plain(input_ids=ids).logits
    adapted = new_adapter(plain, recipe.dpo, recipe.seed)
    after = adapted(input_ids=ids).logits
    assert torch.equal(before, after)
    parts = {letter: [p for n, p in adapted.named_parameters() if f".lora_{letter}." in n] for letter in "AB"}
    zero, drawn = ("A", "B") if start == "zero_a" else ("B", "A")
    assert not any(bool(part.any()) for part in parts[zero])
    assert all(bool(part.any()) for part in parts[drawn])
    for step in range(2):  # the part at zero moves first; with it the other one has a gradient
        adapted.zero_grad()
        adapted(input_ids=ids, labels=ids).loss.backward()
        moving = [part for letter in "AB" for part in parts[letter] if part.grad is not None and bool(part.grad.any())]
        assert len(moving) == (len(parts["A"]) if step == 0 else 2 * len(parts["A"]))
        with torch.no_grad():
            for part in moving:
                part.sub_(0.1 * part.grad)


def adapting(model: ModelRef, targets: Any, **settings: Any) -> Recipe:
    values = {"strategy": "dpo", "model_name": model.path, "lora_target_modules": targets, **settings}
    return Recipe.model_validate(values)


@pytest.mark.parametrize(
    ("targets", "part"),
    [
        (["q_porj"], "has 'q_porj', which matches no layer of tiny: did you mean 'q_proj'? Its"),
        (["q_proj", "c_attn"], "has 'c_attn', which matches no layer of tiny: its"),
        (["self_attn"], "has 'self_attn', which matches model.layers.0.self_attn, a LlamaAttention and no layer"),
        ("(q_proj|v_proj)", "matches no layer of tiny (a pattern must match whole names, as .*[.]q_proj)"),
        ([".*1.*q_proj"], "matches no layer of tiny (a list has names; a pattern is a text of its own)"),
        (".*layers.0.*", "matches model.layers.0, a LlamaDecoderLayer and no layer"),
    ],
)
def test_modules_that_match_no_layer_are_refused_before_weights_are_loaded(
    tiny: ModelRef, targets: Any, part: str
) -> None:
    """PEFT refuses them too, but when the weights are there, and passes over an entry beside one that matches."""
    recipe = adapting(tiny, targets)
    with pytest.raises(ConfigError) as caught:
        require_targets(model_config(tiny, recipe), tiny.model_copy(update={"name": "tiny"}), recipe)
    assert "dpo.lora_target_modules has" in str(caught.value)
    assert part in str(caught.value)
    assert LAYERS in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "adapted"),
    [
        ("all", 14),
        ("q_proj,v_proj", 4),
        (["layers.1.self_attn.q_proj"], 1),
        (".*[.](q|v)_proj", 4),
        ("model.layers.0.mlp.(up|down)_proj", 2),
    ],
)
def test_modules_that_are_let_through_are_those_that_get_adapters(tiny: ModelRef, targets: Any, adapted: int) -> None:
    """Two layers of seven matrices; what is let through, PEFT takes."""
    recipe = adapting(tiny, targets)
    assert recipe.dpo is not None
    require_targets(model_config(tiny, recipe), tiny, recipe)
    model = new_adapter(load_weights(tiny.path, recipe, choose_precision(recipe)), recipe.dpo, seed=0)
    assert len([name for name, _ in model.named_parameters() if "lora_A" in name]) == adapted


def test_layers_of_gpt_2_are_layers_too_and_other_ways_of_training_ask_for_none(tiny: ModelRef, tmp_path: Path) -> None:
    CONFIGS["gpt2"].save_pretrained(str(tmp_path))
    older = ModelRef(name="gpt2", path=str(tmp_path), digest="")
    require_targets(CONFIGS["gpt2"], older, adapting(older, ["c_attn"]))
    wrong = adapting(tiny, ["q_porj"], tuning="full")
    require_targets(model_config(tiny, wrong), tiny, wrong)
    adapter = tiny.model_copy(update={"adapter": tiny.path})
    require_targets(model_config(tiny, wrong), adapter, adapting(tiny, ["q_porj"]))


def test_a_configuration_of_no_causal_model_is_refused_by_its_type(tiny: ModelRef) -> None:
    class Nonesuch(PretrainedConfig):  # type: ignore[no-untyped-call]
        model_type = "nonesuch"

    with pytest.raises(UnfitModelError, match="'nonesuch', which transformers cannot load as a causal language model"):
        require_targets(Nonesuch(), tiny, adapting(tiny, ["q"]))
