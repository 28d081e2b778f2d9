"""Making and saving adapters."""

import copy
import difflib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from preflow.artifacts import CARD, write_json
from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.distributed import is_rank0
from preflow.errors import ConfigError, UnfitModelError
from preflow.models.loading import LanguageModel
from preflow.models.resolve import ModelRef
from preflow.models.sharding import full_weights, is_sharded

#: Layers that can have an adapter.
_ADAPTABLE = (torch.nn.Linear, Conv1D, torch.nn.Embedding, torch.nn.Conv1d)


def new_adapter(model: LanguageModel, settings: TrainingSettings, seed: int) -> LanguageModel:
    """Wrap a base model in a fresh LoRA adapter (B or A is zero, so the outputs do not change yet)."""
    from peft import LoraConfig, get_peft_model

    targets, start = settings.lora_target_modules, settings.init_lora_weights
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        init_lora_weights=False if start == "zero_a" else start,
    )
    torch.manual_seed(seed)
    adapted: LanguageModel = get_peft_model(model, config)
    if start == "zero_a":  # PEFT draws A and B, and has no start of its own with A alone at zero that trains both
        for name, parameter in adapted.named_parameters():
            if ".lora_A." in name or ".lora_embedding_A" in name:
                torch.nn.init.zeros_(parameter.data)
    return adapted


def require_targets(config: Any, base: ModelRef, recipe: Recipe) -> None:
    """Check that every entry of ``lora_target_modules`` names layers of the model, before its weights are loaded.

    The names are those of the modules that transformers builds on the meta device; a model of its own code, which would
    have to run, is left to PEFT.

    Args:
        config: The model's.
        base: The model; one that brings its own adapter has that adapter's modules.
        recipe: What to adapt.

    Raises:
        ConfigError: An entry matches nothing, or what is no layer; lists the names of the model's layers.
        UnfitModelError: The configuration is that of no causal language model.
    """
    asked = {
        stage: settings.lora_target_modules
        for stage, settings in recipe.training_sections
        if settings.lora_target_modules != "all-linear"
    }
    own_code = recipe.trust_remote_code and getattr(config, "auto_map", None)
    if recipe.tuning == "full" or base.adapter is not None or not asked or own_code:
        return
    try:
        with torch.device("meta"):
            model: LanguageModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UnfitModelError(
            f"model_name {recipe.model_name} is of type {config.model_type!r}, which transformers cannot load as a "
            "causal language model: name one that it can"
        ) from error
    head = model.get_output_embeddings()
    modules = {name: module for name, module in model.named_modules() if name and module is not head}
    for stage, targets in asked.items():
        _require_matches(f"{stage}.lora_target_modules", targets, modules, base.name)


def _require_matches(
    setting: str, targets: str | Sequence[str], modules: Mapping[str, torch.nn.Module], model: str
) -> None:
    layers = {name for name, module in modules.items() if isinstance(module, _ADAPTABLE)}
    names = sorted({name.rpartition(".")[2] for name in layers})
    for target in [targets] if isinstance(targets, str) else targets:
        matched = {name for name in modules if _matches(target, name, pattern=isinstance(targets, str))}
        if matched and matched <= layers:
            continue
        other = next(iter(sorted(matched - layers)), None)
        near = difflib.get_close_matches(target, names, n=1, cutoff=0.6)
        hint = f"did you mean '{near[0]}'? Its" if near else "its"
        what = (
            "matches no layer" if other is None else f"matches {other}, a {type(modules[other]).__name__} and no layer,"
        )
        beside = ""
        if isinstance(targets, str):
            beside = " (a pattern must match whole names, as .*[.]q_proj)"
        elif re.search(r"[*+?|()\[\]\\]", target):
            beside = " (a list has names; a pattern is a text of its own)"
        raise ConfigError(
            f"{setting} has '{target}', which {what} of {model}{beside}: {hint} layers are {', '.join(names)}"
        )


def _matches(target: str, name: str, *, pattern: bool) -> bool:
    """As PEFT matches: a text as a pattern of the whole name, an entry of a list as the name or its end."""
    return re.fullmatch(target, name) is not None if pattern else name == target or name.endswith(f".{target}")


def save_model(
    model: LanguageModel, tokenizer: PreTrainedTokenizerBase, base: ModelRef, end_ids: Sequence[int], folder: Path
) -> None:
    """Save an adapter or full weights, with the tokenizer, so that the same weights give the same bytes.

    The adapter's config names the base as the recipe does, not by a path of this machine. Every rank
    calls this, since each may hold a part of the weights; process 0 writes.

    Args:
        model: The model, or PEFT's wrapper around it.
        tokenizer: Saved beside it.
        base: What an adapter was trained over.
        end_ids: Token ids at which a response ends, in the tokenizer and in the template.
        folder: Where to write.
    """
    weights = full_weights(model) if is_sharded(model) else None
    if not is_rank0():
        return
    model.save_pretrained(str(folder), safe_serialization=True, state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    _normalise(folder / "adapter_config.json", base)
    save_generation_config(model, end_ids, folder)
    tokenizer.save_pretrained(str(folder))


def save_generation_config(model: LanguageModel, end_ids: Sequence[int], folder: Path) -> None:
    """Write the base's generation settings, in which generation also ends where a response was taught to end.

    A chat template may end a turn with another token than the tokenizer's EOS. Transformers reads this file beside full
    weights by itself; beside an adapter, ``GenerationConfig.from_pretrained`` reads it. Settings that transformers
    would not save (a temperature without sampling) are the base's own, and stay.
    """
    config = copy.deepcopy(inner_model(model).generation_config)
    known = [] if config.eos_token_id is None else config.eos_token_id
    ids = sorted({*(known if isinstance(known, list) else [known]), *end_ids})
    config.eos_token_id = ids if len(ids) > 1 else ids[0]
    (folder / "generation_config.json").write_text(config.to_json_string(), encoding="utf-8")


def inner_model(model: LanguageModel) -> LanguageModel:
    """The causal language model itself, without PEFT's wrapper."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def keeping(model: LanguageModel, positions: int) -> dict[str, int]:
    """The argument by which a model projects its last positions alone; none for models that do not know it."""
    known = "logits_to_keep" in inspect.signature(inner_model(model).forward).parameters
    return {"logits_to_keep": positions} if known else {}


def _normalise(config: Path, base: ModelRef) -> None:
    """Name the base in an adapter's config, and sort its lists: PEFT writes sets, in an order of each process's own."""
    if config.is_file():
        values = json.loads(config.read_text(encoding="utf-8"))
        values |= {"base_model_name_or_path": base.weights_name, "inference_mode": True}
        write_json(config, {name: sorted(v) if isinstance(v, list) else v for name, v in values.items()})


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training would change, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def describe(model: LanguageModel) -> dict[str, int]:
    """How many parameters there are, packed ones counted as what they stand for, and how many train."""
    inner = inner_model(model)
    return {
        "parameters": inner.num_parameters(),
        "trainable_parameters": inner.num_parameters(only_trainable=True),
    }


def write_card(folder: Path, base: ModelRef, stage: str) -> None:
    """Say in a small file what the model is and how it is loaded."""
    write_json(folder / CARD, {"base": base.weights_name, "base_digest": base.digest, "stage": stage})
