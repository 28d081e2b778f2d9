"""What a reward model starts from: a causal language model whose head is replaced by one of a single output."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from preflow.config.training import DpoSettings
from preflow.errors import UnfitModelError
from preflow.models.adapters import inner_model
from preflow.models.loading import LanguageModel
from preflow.models.resolve import ModelRef, adapted_modules

#: Spread of a new head's weights where the model's configuration names none.
_SPREAD = 0.02


def reward_head_on(model: LanguageModel, base: ModelRef, seed: int) -> Any:
    """A classifier with one output over the layers of a causal language model, whose weights it takes over.

    An adapter is merged first. The head is drawn from the seed alone, in float32.

    Args:
        model: The causal language model, or PEFT's wrapper around it; not to be used afterwards.
        base: Names the model in an error.
        seed: Of the head.

    Raises:
        UnfitModelError: Transformers has no classifier of this architecture.
    """
    merged: LanguageModel = model.merge_and_unload() if inner_model(model) is not model else model
    config = copy.deepcopy(merged.config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            classifier: Any = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UnfitModelError(
            f"{base.name} cannot become a reward model: transformers has no sequence classifier for its architecture "
            f"({config.model_type}). Name a model that has one"
        ) from error
    layers = classifier.base_model_prefix
    setattr(classifier, layers, getattr(merged, merged.base_model_prefix))
    generator = torch.Generator().manual_seed(seed)
    spread = getattr(config, "initializer_range", None) or _SPREAD
    for name, head in classifier.named_children():
        if name != layers:
            head.to_empty(device=merged.device)
            for parameter in head.parameters():
                drawn = torch.randn(parameter.shape, generator=generator) * spread
                parameter.data = (drawn if parameter.dim() > 1 else torch.zeros_like(drawn)).to(merged.device)
    return classifier.requires_grad_(True)


def with_reward_adapter(classifier: Any, base: ModelRef, settings: DpoSettings, seed: int) -> Any:
    """A fresh LoRA adapter on a reward model's layers; its head trains as a whole beside it."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="SEQ_CLS",  # PEFT then trains and saves the head too
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules=adapted_modules(base, settings),
    )
    torch.manual_seed(seed)
    return get_peft_model(classifier.requires_grad_(False), config)


def set_pad_apart(tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int]) -> int:
    """Give a tokenizer a pad token at which no response ends, and return its id.

    A classifier reads the score at the last token that is no pad token: were the pad token that of the end, as many
    models have it, it would never see whether a response has ended.
    """
    pad, unknown, begin = tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id
    candidates = (pad, unknown, begin, *tokenizer.all_special_ids, *range(len(tokenizer)))
    chosen = next(each for each in candidates if isinstance(each, int) and each not in end_ids)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(chosen)
    return chosen
