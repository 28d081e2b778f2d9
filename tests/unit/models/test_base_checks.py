"""A model that cannot be trained is refused by what its small files say, and no other is."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflow.config import Recipe
from preflow.errors import UnfitModelError
from preflow.models.base_checks import require_trainable
from preflow.models.resolve import find_model
from preflow.observer import Silent
from tests.unit.models.architectures import CONFIGS

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def folder_of(folder: Path, config: Any, *names: str) -> Path:
    """A model's folder with a configuration and a tokenizer, or other files in its place."""
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    for name in names or ("tokenizer.json",):
        (folder / name).touch()
    return folder


def found(folder: Path, **settings: Any) -> str:
    """Why a model is refused; nothing where it is not."""
    try:
        find_model(Recipe(strategy="dpo", model_name=str(folder), **settings), Silent(), weights=False)
    except UnfitModelError as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM, an encoder"),
        ({"model_type": "roberta"}, "is an encoder"),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "T5ForConditionalGeneration, an encoder-decoder",
        ),
        (
            {**LLAMA, "architectures": ["LlamaForSequenceClassification"]},
            "LlamaForSequenceClassification, a classifier",
        ),
        ({**LLAMA, "architectures": ["Qwen2ForRewardModel"]}, "a reward model"),
        ({"model_type": "mistral", "architectures": ["MistralModel"]}, "MistralModel, a model without a head"),
        (
            {
                "model_type": "gemma3",
                "architectures": ["Gemma3ForConditionalGeneration"],
                "vision_config": {"depth": 2},
            },
            "Gemma3ForConditionalGeneration, a model of pictures or sound",
        ),
        ({**LLAMA, "architectures": ["LlavaLlamaForCausalLM"], "mm_vision_tower": "clip"}, "a model of pictures"),
    ],
)
def test_what_is_no_causal_language_model_is_refused_by_name(tmp_path: Path, config: dict[str, Any], what: str) -> None:
    message = found(folder_of(tmp_path / "m", config))
    assert what in message
    assert "expected a causal language model" in message


@pytest.mark.parametrize(
    ("quantized", "what"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantized with GPTQ"),
        ({"quant_method": "awq", "bits": 4}, "quantized with AWQ"),
        ("awq", "quantized with AWQ"),
        ({"quant_method": "fp8"}, "quantized with FP8"),
        ({"quant_method": "compressed-tensors"}, "quantized with compressed-tensors"),
        ({"bits": 4}, "quantized with an unknown format"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, "weights in 8 bits"),
    ],
)
@pytest.mark.parametrize("use_4bit", [False, True])
def test_quantized_weights_are_refused_by_the_name_of_their_format(
    tmp_path: Path, quantized: dict[str, Any], what: str, use_4bit: bool
) -> None:
    message = found(folder_of(tmp_path / "m", {**LLAMA, "quantization_config": quantized}), use_4bit=use_4bit)
    assert what in message
    assert "name the model that it was quantized from" in message


def test_weights_in_4_bits_need_use_4bit(tmp_path: Path) -> None:
    quantized = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    folder = folder_of(tmp_path / "m", {**LLAMA, "quantization_config": quantized})
    assert "but use_4bit is false: set use_4bit: true" in found(folder)
    assert found(folder, use_4bit=True) == ""


def test_a_folder_without_a_tokenizer_or_a_configuration_is_refused(tmp_path: Path) -> None:
    for name, files in (("none", ("model.safetensors",)), ("settings", ("tokenizer_config.json",))):
        assert "is a folder without a tokenizer" in found(folder_of(tmp_path / name, LLAMA, *files))
    for name in ("tokenizer.model", "vocab.json", "tekken.json", "qwen.tiktoken", "spiece.model"):
        assert found(folder_of(tmp_path / name, LLAMA, name)) == ""
    (tmp_path / "empty").mkdir()
    assert "holds no config.json that can be read (found: nothing)" in found(tmp_path / "empty")
    assert "is no JSON" in found(folder_of(tmp_path / "broken", "{oops"))
    assert "architectures is 7, expected list" in found(folder_of(tmp_path / "kinds", '{"architectures": 7}'))
    assert "holds list, expected an object" in found(folder_of(tmp_path / "list", "[]"))


def test_the_base_of_an_adapter_is_judged_by_its_own_name(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", {**LLAMA, "quantization_config": {"quant_method": "gptq"}})
    (tmp_path / "adapter").mkdir()
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(base)}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    assert f"{base} (the base of the adapter {tmp_path / 'adapter'}) holds" in found(tmp_path / "adapter")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_that_is_tested_is_let_through(tmp_path: Path, name: str) -> None:
    """As ``save_pretrained`` writes it, without a class, and under names of classes that are models' own."""
    written = CONFIGS[name].to_dict()
    classes = [[f"{name}ForCausalLM"], [f"{name}LMHeadModel"], None]
    for place, architectures in enumerate(classes):
        assert found(folder_of(tmp_path / str(place), {**written, "architectures": architectures})) == ""


def test_decoders_of_encoders_families_and_models_of_their_own_code_are_let_through(tmp_path: Path) -> None:
    decoder = {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True}
    assert found(folder_of(tmp_path / "decoder", decoder)) == ""
    own = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], "auto_map": {"AutoModelForCausalLM": "m.M"}}
    folder = folder_of(tmp_path / "own", own)
    require_trainable("own", folder, Recipe(strategy="dpo", trust_remote_code=True))
    with pytest.raises(
        UnfitModelError,
        match=r"ChatGLMModel, a model of its own code \(trust_remote_code: true runs it, in a run",
    ):
        require_trainable("own", folder, Recipe(strategy="dpo"))
