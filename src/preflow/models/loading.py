"""Loading weights: safetensors alone, in the recipe's precision, with the right adapter over the right base."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from preflow.config import Recipe
from preflow.config.checks.requirements import require_own_code_allowed
from preflow.errors import ModelError, UnfitModelError
from preflow.models.out_of_memory import free_unused
from preflow.models.precision import Precision
from preflow.models.resolve import ModelRef
from preflow.observer import UserText

#: A causal language model of transformers, or PEFT's wrapper around one: no common type says what both can do.
LanguageModel: TypeAlias = Any
#: In the names of numbers by which modules drop activations or whole layers.
_DROPS = ("dropout", "pdrop", "layerdrop")
#: In the names of tokens that stand for pictures, films or sound.
_MEDIA = ("image", "video", "audio", "vision")
#: Ways of scaling rotary positions whose configuration does not count them among ``max_position_embeddings``.
_STRETCHED = frozenset({"linear", "dynamic", "yarn"})
# PEFT and TRL use a setting's old name, which transformers 5.23 warns about.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing` is deprecated", category=FutureWarning)


def load_tokenizer(base: ModelRef, recipe: Recipe) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, with a pad token (its EOS where it has none: masks go by position).

    It carries the recipe's chat template where there is one, also into what is saved with it.

    Raises:
        UnfitModelError: It cannot be read, or has more tokens than the model's embedding.
        ModelError: It has no EOS token.
        ConfigError: The recipe asks for the model's own code, which may not run here.
    """
    own_code = _runs_own_code(recipe)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base.path, trust_remote_code=own_code)
    except (ValueError, OSError) as error:
        raise UnfitModelError(
            f"the tokenizer of {base.name} cannot be read from {base.path}: {_first_line(error)}. Copy the tokenizer's "
            "files of the model that it was made of there"
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {base.name} has no EOS token: responses could never end; set eos_token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _require_embedded(tokenizer, base, recipe)
    if recipe.chat_template is not None:
        tokenizer.chat_template = recipe.chat_template
    return tokenizer


def _runs_own_code(recipe: Recipe) -> bool:
    """Whether a model's own code may run, as both the recipe and the environment say.

    Raises:
        ConfigError: The recipe alone says it.
    """
    require_own_code_allowed(recipe)
    return recipe.trust_remote_code


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).strip().splitlines() if line.strip()), type(error).__name__).rstrip(" :.")


def _require_embedded(tokenizer: PreTrainedTokenizerBase, base: ModelRef, recipe: Recipe) -> None:
    """Refuse a tokenizer with tokens that the embedding has no row for.

    Placeholders of pictures and sound are no such tokens: Gemma 3's text models share the tokenizer of those with
    pictures, and no row of text holds them.
    """
    rows = getattr(model_config(base, recipe).get_text_config(), "vocab_size", None)
    if not isinstance(rows, int):
        return
    beyond = {token: place for token, place in tokenizer.get_vocab().items() if place >= rows}
    spare = [token for token in beyond if any(word in token.lower() for word in _MEDIA)]
    if len(spare) < len(beyond):
        named = sorted(beyond.keys() - set(spare), key=lambda token: beyond[token])
        raise UnfitModelError(
            f"the tokenizer of {base.name} has tokens up to id {max(beyond.values())} ({', '.join(named[:3])}"
            f"{', ...' if len(named) > 3 else ''}), but its embedding has {rows} rows: call resize_token_embeddings "
            "and save the model, or restore its own tokenizer"
        )


def model_config(base: ModelRef, recipe: Recipe) -> Any:
    """The base's configuration.

    Raises:
        UnfitModelError: Transformers does not know its architecture, or it cannot be read.
    """
    try:
        return AutoConfig.from_pretrained(base.path, trust_remote_code=_runs_own_code(recipe))
    except (ValueError, OSError) as error:
        raise UnfitModelError(
            f"model_name {recipe.model_name}: no configuration can be read from {base.path}: {_first_line(error)}. "
            "Name a model that this version of transformers knows"
        ) from error


def position_limit(base: ModelRef, recipe: Recipe) -> int | None:
    """How many positions a model with learned position embeddings has; none where positions are rotary or relative."""
    config = model_config(base, recipe).get_text_config()
    if getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None):
        return None
    limit: int | None = getattr(config, "max_position_embeddings", None)
    return limit


def rotary_limit(base: ModelRef, recipe: Recipe) -> int | None:
    """How many positions a model with rotary positions was trained on, its scaling included; none for any other."""
    config = model_config(base, recipe).get_text_config()
    limit, rope = getattr(config, "max_position_embeddings", None), getattr(config, "rope_parameters", None)
    if not isinstance(limit, int) or not isinstance(rope, dict):
        return None
    rope = rope.get("full_attention", rope)  # of models whose layers have rotations of their own
    factor, first = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not isinstance(factor, int | float) or rope.get("rope_type") not in _STRETCHED:
        return limit
    return max(limit, round(factor * (first if isinstance(first, int) else limit)))


def beyond_positions(tokens: Sequence[int], limit: int | None, what: str, model: str) -> UserText | None:
    """A warning of rows that are longer than any that a model with rotary positions was trained on, where there are.

    Args:
        tokens: Of each row.
        limit: As ``rotary_limit`` gives it.
        what: The rows are, as ``training pairs``.
        model: Its name.
    """
    beyond = [count for count in tokens if limit is not None and count > limit]
    if not beyond:
        return None
    return UserText(
        f"{len(beyond)} of {len(tokens)} {what} are longer than the {limit} positions that {model} was trained on "
        f"(longest: {max(beyond)} tokens), and what it computes beyond them is a guess: lower max_seq_length to "
        f"{limit}, or name a model with more positions"
    )


def load_weights(folder: str | Path, recipe: Recipe, precision: Precision) -> LanguageModel:
    """Full weights from a folder of safetensors, in 4-bit where the recipe asks for it, in evaluation mode."""
    if recipe.provider == "unsloth":
        return _load_with_unsloth(folder, recipe, precision)
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {}
    if recipe.use_4bit:
        if not is_quantized(Path(folder)):
            options["quantization_config"] = _nf4(precision)
        options["device_map"] = {"": str(precision.device)}
    model: LanguageModel = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=precision.weights,
        use_safetensors=True,
        trust_remote_code=_runs_own_code(recipe),
        **options,
    )
    model = _one_arithmetic(model, precision) if recipe.use_4bit else model.to(precision.device)
    return model.eval()


def _one_arithmetic(model: LanguageModel, precision: Precision) -> LanguageModel:
    """Compute 4-bit layers in the recipe's precision, on the CPU in training and in evaluation alike.

    bitsandbytes 0.50 switches to bfloat16 kernels in evaluation mode on processors that have them, so that a policy in
    training would differ from its own stored values in the second digit. Weights that were stored in 4 bits name
    a dtype of their own.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.compute_dtype = precision.compute
            if precision.compute is torch.float32:
                module.support_avx512bf16_for_cpu = False
    return model


def is_quantized(folder: Path) -> bool:
    """Whether a model folder holds weights that are quantized already."""
    return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config"))


def load_policy(
    base: ModelRef, trained: Path | None, recipe: Recipe, precision: Precision, *, trainable: bool = False
) -> LanguageModel:
    """The model that a stage starts from.

    Args:
        base: The recipe's base model.
        trained: Folder of what an earlier stage trained over it: an adapter, or full weights. None for the base itself
            (with its own adapter, when ``model_name`` named one).
        recipe: Precision, quantization, and whether weights or an adapter are trained.
        precision: Where and in which dtype.
        trainable: Whether the adapter's (or all) weights take gradients.

    Returns:
        A model in evaluation mode; with an adapter, a PEFT model whose one adapter is called ``default``.
    """
    free_unused()
    if trained is not None and not is_adapter(trained):
        model = load_weights(trained, recipe, precision)
        return model.requires_grad_(trainable)
    adapter = trained or (Path(base.adapter) if base.adapter else None)
    model = load_weights(base.path, recipe, precision)
    if adapter is None:
        return model.requires_grad_(trainable and recipe.tuning == "full")
    return attach_adapter(model, adapter, trainable=trainable)


def attach_adapter(model: LanguageModel, adapter: Path, *, trainable: bool, name: str = "default") -> LanguageModel:
    """Put a stored adapter over a freshly loaded base, in float32 whatever the base's dtype."""
    from peft import PeftModel

    model.requires_grad_(False)
    wrapped = PeftModel.from_pretrained(model, str(adapter), adapter_name=name, is_trainable=trainable)
    # The stored config names the base as the recipe does; PEFT would ask the hub for that name when it saves.
    wrapped.peft_config[name].base_model_name_or_path = model.name_or_path
    return wrapped.eval()


def without_dropout(model: LanguageModel) -> None:
    """Switch off the dropout that modules hold as a number, as most attention does: TRL sees dropout layers alone."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and any(part in name for part in _DROPS):
                setattr(module, name, 0.0)


def is_adapter(folder: Path) -> bool:
    """Whether a model folder holds an adapter rather than full weights."""
    return (folder / "adapter_config.json").is_file()


def _nf4(precision: Precision) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision.compute,
    )


def _load_with_unsloth(folder: str | Path, recipe: Recipe, precision: Precision) -> LanguageModel:
    from unsloth import FastLanguageModel

    _, section = recipe.training_sections[-1]
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=section.max_seq_length,
        dtype=precision.weights,
        load_in_4bit=recipe.use_4bit,
    )
    return model.eval()
