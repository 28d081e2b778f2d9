"""A setting of another tool names its neighbour here, or what to do instead."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from preflow.config import Recipe
from preflow.config.explain import _ELSEWHERE, _FOREIGN, _INSTEAD, _SECTIONS, _USUAL, _VALUES
from preflow.config.training import DpoSettings, SftSettings
from tests.unit.config.recipe_files import TWO_STAGE, refused

SECTIONS: list[type[BaseModel]] = [Recipe, *_SECTIONS.values()]
KNOWN = {name for section in SECTIONS for name in section.model_fields}


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"output_dir": "out"}, "a run's models are in its home (PREFLOW_HOME), and preflow export writes one"),
        ({"resume_from_checkpoint": True}, "a run that is started again resumes from its last whole checkpoint"),
        ({"modules_to_save": ["lm_head"]}, "tuning: full trains all weights, embeddings and head too"),
        ({"sft": {"packing": True}}, "sft.packing: unknown setting; rows are packed without padding by themselves"),
        (
            {"dpo": {"rpo_alpha": 1.0}},
            "dpo.rpo_alpha: unknown setting; give loss_type: [sigmoid, sft] and loss_weights",
        ),
        ({"pad_token": "<pad>"}, "it is the tokenizer's own (its EOS token where it has none)"),
        ({"deepspeed": "ds.json"}, "give launch.config: a configuration of accelerate"),
        ({"torch_dtype": "bfloat16"}, "give bf16: true, false or auto"),
        ({"quantization_bit": 4}, "give use_4bit: true (NF4)"),
        ({"load_in_4bit": True}, "did you mean 'use_4bit'?"),
        ({"prompt_column": "q"}, "give it with the data set, as dataset: {path: ..., format: ..., columns: {prompt"),
        ({"export_dir": "out"}, "preflow export writes one to a folder"),
        ({"stop_tokens": ["x"]}, "valid names here: "),  # no name is near
        ({"dpo": {"load_in_4bit": True}}, "did you mean 'use_4bit', at the top level?"),
        ({"fsdp": "full_shard"}, "did you mean launch.config?"),
        ({"cutoff_len": 512}, "did you mean 'max_seq_length'?"),
        ({"num-epochs": 3}, "did you mean 'num_train_epochs'?"),
        ({"lora_rank": 8}, "did you mean 'lora_r'?"),
        ({"r": 8}, "did you mean 'lora_r'?"),
        ({"target_modules": "all"}, "did you mean 'lora_target_modules'?"),
        ({"model_name_or_path": "m"}, "did you mean 'model_name'?"),
        ({"dpo": {"pref_beta": 0.1}}, "did you mean 'beta'?"),
        ({"sft": {"pref_beta": 0.1}}, "did you mean dpo.beta?"),
        ({"micro_batch_size": 2}, "did you mean 'per_device_train_batch_size'?"),
        ({"early_stopping_patience": 3}, "did you mean 'early_stop_patience'?"),
        ({"num_gpus": 2}, "did you mean launch.num_processes?"),
        ({"template": "llama3"}, "a family of templates is chat_template: llama3"),
        ({"Seed": 2}, "did you mean 'seed'?"),
    ],
)
def test_a_setting_of_another_tool_names_its_neighbour(tmp_path: Path, values: dict[str, Any], hint: str) -> None:
    assert hint in refused(tmp_path, {**TWO_STAGE, **values})


def test_the_tables_name_settings_that_exist_and_every_foreign_name_once() -> None:
    """A setting that has such a name itself would never be unknown."""
    assert _ELSEWHERE.keys() <= KNOWN
    written = [name for names in (*_ELSEWHERE.values(), *_INSTEAD.values()) for name in names.split()]
    assert len(written) == len({*written})
    everywhere = {*Recipe.model_fields, *SftSettings.model_fields, *DpoSettings.model_fields}
    assert not everywhere & {*_USUAL, *_FOREIGN}
    assert _USUAL.keys() >= _VALUES.keys()
