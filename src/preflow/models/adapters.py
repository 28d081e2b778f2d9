"""Making and saving adapters."""

import copy
import inspect
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from preflow.artifacts import CARD, write_json
from preflow.config.training import TrainingSettings
from preflow.distributed import is_rank0
from preflow.models.loading import LanguageModel
from preflow.models.resolve import ModelRef
from preflow.models.sharding import full_weights, is_sharded


def new_adapter(model: LanguageModel, settings: TrainingSettings, seed: int) -> LanguageModel:
    """Wrap a base model in a fresh LoRA adapter (B = 0, so the outputs do not change yet)."""
    from peft import LoraConfig, get_peft_model

    targets = settings.lora_target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    torch.manual_seed(seed)
    return get_peft_model(model, config)


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
