"""The two usual ways to lose the SFT model with TRL alone, done literally, and refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from preflow.artifacts import build
from preflow.dpo import start_checks
from preflow.dpo.trainer import policy_scores
from preflow.errors import PolicyMismatchError, StoredValueError
from preflow.logprobs.scored_pairs import ScoredPair, read_pairs
from preflow.models.loading import LanguageModel, load_tokenizer
from preflow.models.precision import choose_precision
from preflow.observer import Silent
from preflow.stages.dpo import run_dpo
from tests.fixtures.prepared_run import Run
from tests.unit.support import write_pairs

ROWS = Dataset.from_list([{"prompt": "Which?", "chosen": "This one.", "rejected": "No."}] * 2)


def shipped(run: Run, out: Path, model: LanguageModel, **more: Any) -> DPOTrainer:
    """TRL's own trainer, as its users start it."""
    config = DPOConfig(output_dir=str(out), report_to=[], use_cpu=True)
    tokenizer = load_tokenizer(run.base, run.recipe)
    return DPOTrainer(model=model, args=config, train_dataset=ROWS, processing_class=tokenizer, **more)


def scores(run: Run, model: LanguageModel) -> list[ScoredPair]:
    """The run's training pairs with reference values by another model."""
    precision = choose_precision(run.recipe)
    pairs = read_pairs(run.reference.file("train.parquet"))

    def tokens(prompt: list[int], response: list[int]) -> list[float]:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        picked: list[float] = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0].tolist()
        return picked

    assert precision.compute == torch.float32
    return [
        ScoredPair(
            p.prompt_ids,
            p.chosen_ids,
            p.rejected_ids,
            tokens(p.prompt_ids, p.chosen_ids),
            tokens(p.prompt_ids, p.rejected_ids),
            p.source,
        )
        for p in pairs
    ]


def test_an_adapter_folder_loaded_as_a_model_and_wrapped_anew(prepared: Run, tmp_path: Path) -> None:
    """``from_pretrained(sft_adapter_dir)`` and ``peft_config``: the SFT weights are overwritten."""
    model = AutoModelForCausalLM.from_pretrained(prepared.sft.file("model"), dtype=torch.float32)
    before = {name: p.clone() for name, p in model.named_parameters() if "lora_B" in name}
    assert any(p.abs().max() > 0 for p in before.values()), "the SFT adapter is there before TRL wraps the model"
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = shipped(prepared, tmp_path / "trl", model, peft_config=lora)
    pairs = read_pairs(prepared.reference.file("train.parquet"))
    precision = choose_precision(prepared.recipe)
    with pytest.raises(PolicyMismatchError, match="SFT adapter was overwritten"):
        start_checks.check_policy(
            pairs, lambda rows: policy_scores(trainer, rows, precision), torch.float32, 8, Silent(), prepared.reference
        )


@pytest.mark.slow
def test_a_model_merged_in_memory_whose_reference_is_loaded_by_name(prepared: Run, tmp_path: Path) -> None:
    """Without stored values TRL loads the reference from the merged model's name, which is the base's."""
    base = AutoModelForCausalLM.from_pretrained(prepared.base.path, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(prepared.sft.file("model"))).merge_and_unload()
    reference: LanguageModel = shipped(prepared, tmp_path / "trl", merged).ref_model

    def write(out: Path) -> None:
        write_pairs(out / "train.parquet", scores(prepared, reference.eval()))

    wrong = build(tmp_path / "reference", write)
    with pytest.raises(StoredValueError, match="independent forward of the reference model"):
        run_dpo(prepared.dpo(reference=wrong), tmp_path / "out", Silent())


@pytest.mark.slow
def test_the_same_model_merged_in_memory_is_a_right_reference(prepared: Run, tmp_path: Path) -> None:
    """The counter-check: values by the merged model itself pass, so the refusal above is about the wrong weights."""
    base = AutoModelForCausalLM.from_pretrained(prepared.base.path, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(prepared.sft.file("model"))).merge_and_unload()

    def write(out: Path) -> None:
        write_pairs(out / "train.parquet", scores(prepared, merged.eval()))
        write_pairs(out / "eval.parquet", read_pairs(prepared.reference.file("eval.parquet")))

    right = build(tmp_path / "reference", write)
    run_dpo(prepared.dpo(reference=right), tmp_path / "out", Silent())
