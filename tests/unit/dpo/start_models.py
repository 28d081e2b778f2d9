"""Right and wrong models that a second stage could start from."""

import peft
import torch
from transformers import AutoModelForCausalLM

from preflow.models.adapters import new_adapter
from preflow.models.loading import LanguageModel
from tests.fixtures.prepared_run import Run


def adapter(run: Run) -> str:
    return str(run.sft.file("model"))


def base(run: Run) -> LanguageModel:
    return AutoModelForCausalLM.from_pretrained(run.base.path, dtype=torch.float32)


def going_on(run: Run) -> LanguageModel:
    return peft.PeftModel.from_pretrained(base(run), adapter(run), is_trainable=True)


def merged_with_new_adapter(run: Run) -> LanguageModel:
    merged = peft.PeftModel.from_pretrained(base(run), adapter(run)).merge_and_unload()
    assert run.recipe.dpo is not None
    return new_adapter(merged, run.recipe.dpo, seed=0)


def overwritten(run: Run) -> LanguageModel:
    """What ``from_pretrained(sft_adapter_dir)`` with a new ``peft_config`` comes to: the base and a fresh adapter."""
    assert run.recipe.dpo is not None
    return new_adapter(base(run), run.recipe.dpo, seed=0)


def half_precision(run: Run) -> LanguageModel:
    model = going_on(run)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model
