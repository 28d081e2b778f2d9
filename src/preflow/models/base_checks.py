"""What a model's small files say against training it: read without torch, before anything is downloaded or loaded."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preflow.config import Recipe
from preflow.errors import UnfitModelError
from preflow.redaction import quoted

#: Files of which every tokenizer has one.
_TOKENIZERS = ("tokenizer.json", "tekken.json", "*.model", "*.tiktoken", "*vocab*.json", "*vocab*.txt")
#: Endings of the classes that predict the next token with a head of their own.
_CAUSAL = ("ForCausalLM", "LMHeadModel")
#: Settings that only models with eyes or ears have.
_SENSES = (
    "vision_config", "audio_config", "speech_config", "vision_tower", "mm_vision_tower", "vision_encoder", "visual",
    "img_processor",
)  # fmt: skip
#: Model types that read a text in both directions, unless their configuration makes them decoders.
_ENCODERS = frozenset(
    {
        "albert", "bert", "big_bird", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm",
        "eurobert", "longformer", "modernbert", "mpnet", "nomic_bert", "roberta", "roformer", "xlm-roberta",
        "xlm-roberta-xl",
    }
)  # fmt: skip
#: How quantized formats are called by the names of their configuration.
_FORMATS = {
    "gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "fbgemm_fp8": "FP8", "finegrained_fp8": "FP8", "mxfp4": "MXFP4",
    "compressed-tensors": "compressed-tensors", "modelopt": "ModelOpt",
}  # fmt: skip
#: What of a configuration is looked into, and what it must be where it is given.
_KINDS = {"architectures": list, "auto_map": dict, "model_type": str}
_OWN_CODE = "trust_remote_code: true runs it, in a run alone and never in a plan"
_UNQUANTIZED = "name the model that it was quantized from (use_4bit: true then loads that in 4 bits)"


def require_trainable(name: str, folder: Path, recipe: Recipe) -> None:
    """Check that a folder of full weights holds a causal language model, with a tokenizer, that can be trained.

    Args:
        name: What the recipe, or an adapter's configuration, calls it.
        folder: Its files; weights may be absent.
        recipe: Says whether weights are quantized, and whether the model's own code runs.

    Raises:
        UnfitModelError: It does not; names what it holds instead, and what would help.
    """
    config = _config(folder)
    if (kind := _other_kind(config, own_code=recipe.trust_remote_code)) is not None:
        raise UnfitModelError(
            f"{name} is {kind}, expected a causal language model (a class that ends in ForCausalLM). Name one, as the "
            "text model that it was made of"
        )
    _require_plain_weights(name, config, use_4bit=recipe.use_4bit)
    if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
        raise UnfitModelError(
            f"{name} is a folder without a tokenizer ({folder} has neither tokenizer.json nor tokenizer.model): copy "
            "the tokenizer's files of the model that it was made of beside its weights"
        )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise UnfitModelError(
            f"{folder} holds no config.json that can be read (found: {names}): expected the folder of a model of "
            "transformers, as save_pretrained writes it"
        )
    found = json_settings(path)
    for name, kind in _KINDS.items():
        value = found.get(name)
        if value is not None and not isinstance(value, kind):
            raise UnfitModelError(
                f"{path}: {name} is {quoted(value)}, expected {kind.__name__}. Fetch the model's files again"
            )
    return found


def json_settings(path: Path) -> dict[str, Any]:
    """The settings that a model's folder holds as one JSON object.

    Raises:
        UnfitModelError: The file cannot be read, or holds anything else.
    """
    again = "Fetch the model's files again"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnfitModelError(f"{path} cannot be read: {error.strerror or error}. {again}") from error
    except (ValueError, RecursionError) as error:
        raise UnfitModelError(f"{path} is no JSON: {quoted(str(error))}. {again}") from error
    if not isinstance(found, dict):
        raise UnfitModelError(f"{path} holds {type(found).__name__}, expected an object. {again}")
    return found


def _other_kind(config: Mapping[str, Any], *, own_code: bool) -> str | None:
    """What a model is that is no causal language model, in words; none for one that is, or may be."""
    classes = [str(name) for name in config.get("architectures") or ()]
    name = f"{classes[0]}, " if classes else ""
    if any(config.get(setting) is not None for setting in _SENSES):
        return f"{name}a model of pictures or sound with text"
    if config.get("is_encoder_decoder") is True:
        return f"{name}an encoder-decoder (sequence-to-sequence) model"
    if config.get("model_type") in _ENCODERS and config.get("is_decoder") is not True:
        return f"{name}an encoder, which reads a text in both directions"
    if not classes or any(each.endswith(_CAUSAL) for each in classes):
        return None
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        return None if own_code else f"{name}a model of its own code ({_OWN_CODE})"
    others = (("Classification", "a classifier"), ("Reward", "a reward model"), ("Conditional", "a model of two parts"))
    return name + next((kind for part, kind in others if part in classes[0]), "a model without a head for next tokens")


def _require_plain_weights(name: str, config: Mapping[str, Any], *, use_4bit: bool) -> None:
    """Refuse weights that are quantized in any way but the one that a recipe can ask for."""
    found = next((q for q in _quantizations(config) if q), None)
    if found is None:
        return
    if not isinstance(found, dict):  # its name alone
        found = {"quant_method": found}
    method = str(found.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in found else "an unknown format"))
    if method != "bitsandbytes":
        raise UnfitModelError(
            f"{name} holds weights quantized with {_FORMATS.get(method.lower(), method)}, which "
            f"cannot be trained here: {_UNQUANTIZED}"
        )
    if found.get("load_in_4bit") is not True:
        raise UnfitModelError(
            f"{name} holds weights in 8 bits (bitsandbytes), expected plain ones or 4 bits: {_UNQUANTIZED}"
        )
    if not use_4bit:
        raise UnfitModelError(
            f"{name} holds weights in 4 bits (bitsandbytes), but use_4bit is false: set "
            "use_4bit: true, or name the model that it was quantized from"
        )


def _quantizations(config: Mapping[str, Any]) -> Iterator[Any]:
    """Where configurations say how weights are quantized; a model of several parts says it below."""
    yield config.get("quantization_config")
    yield config.get("compression_config")
    text = config.get("text_config")
    yield text.get("quantization_config") if isinstance(text, dict) else None
