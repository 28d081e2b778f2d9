"""A model that is handed over stops where it was taught to, in plain transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from flows.commands.export import export
from preflow.artifacts import build
from preflow.config import Recipe
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from preflow.specs import SftSpec
from preflow.stages.sft import run_sft
from tasks.tracking.past_runs import PastRun
from tests.conftest import make_tokenizer
from tests.fixtures.prepared_run import Run
from tests.unit.support import COMMON, recipe_for

NEW_TOKENS = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """A model whose every next token is the template's end of turn, which is not its tokenizer's EOS.

    All embeddings are nearly the vector of ones, so the last hidden state is too; the row of the end of turn in the
    head is the vector of ones, those of all other tokens are small.
    """
    folder = tmp_path_factory.mktemp("base")
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    end, eos = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=eos,
        pad_token_id=eos,
        initializer_range=0.02,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight += 1
        model.lm_head.weight[end] = 1
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return resolve_model(Recipe(strategy="sft", model_name=str(folder)), Silent())


def trained(base: ModelRef, prepared: Run, folder: Path, **changes: Any) -> PastRun:
    """One step of SFT."""
    recipe = recipe_for(base, strategy="sft", dpo=None, sft={**COMMON, "max_steps": 1}, **changes)
    spec = SftSpec(recipe=recipe, base=base, data=prepared.data)
    made = build(folder / "sft", lambda out: run_sft(spec, out, Silent()))
    return PastRun(run_id="r", recipe=recipe, artifacts={"sft": made, "validate": prepared.data})


def answer(model: Any, folder: Path) -> list[int]:
    """What a model answers, with nothing said about where to stop."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Where is it?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
    return list(output[0, prompt["input_ids"].shape[1] :].tolist())


def ends(base: ModelRef) -> tuple[int, int]:
    """The end of turn and the EOS."""
    tokenizer: Any = AutoTokenizer.from_pretrained(base.path)
    return tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id


def test_an_adapter_and_its_merged_weights_stop_at_the_end_of_turn(
    base: ModelRef, prepared: Run, tmp_path: Path
) -> None:
    end, eos = ends(base)
    plain = AutoModelForCausalLM.from_pretrained(base.path)
    assert answer(plain, Path(base.path)) == [end] * NEW_TOKENS, "the base does not know its own end of turn"
    run = trained(base, prepared, tmp_path)
    folder = run.artifacts["sft"].file("model")
    model: Any = PeftModel.from_pretrained(plain, folder)
    model.generation_config = GenerationConfig.from_pretrained(folder)  # as the README shows it
    assert answer(model, folder) == [end]
    export(run, tmp_path / "merged")
    assert answer(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), tmp_path / "merged") == [end]
    for place in (folder, tmp_path / "merged"):
        kept = json.loads((place / "generation_config.json").read_text(encoding="utf-8"))
        assert kept["eos_token_id"] == sorted((end, eos)), "the base's own ends stay"


def test_full_weights_stop_at_the_end_of_turn(base: ModelRef, prepared: Run, tmp_path: Path) -> None:
    run = trained(base, prepared, tmp_path, tuning="full")
    folder = run.artifacts["sft"].file("model")
    assert answer(AutoModelForCausalLM.from_pretrained(folder), folder) == [ends(base)[0]]
