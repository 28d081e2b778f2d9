"""TRL's trainers as shipped, padded and with a live reference, beside Preflow's own over the same weights and rows."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from preflow.config import Recipe
from preflow.data.rows import Source
from preflow.data.tokens.tokenize import TokenizedDemonstration
from preflow.dpo.trainer import as_dataset, make_trainer
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.models.precision import Precision
from preflow.models.scoring import scores
from preflow.observer import Silent
from preflow.stages import sft
from tests.conftest import make_tokenizer
from tests.unit.models.architectures import Pair, model_of

CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)
SEED = 42
#: Settings that TRL and a recipe name alike.
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "gradient_checkpointing": False,
}


class TrlTrainer(DPOTrainer):
    """As shipped, on token ids: TRL itself would tokenize texts."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


@dataclass(frozen=True)
class TrainerPair:
    """Both trainers over the same weights.

    Attributes:
        trl: TRL's, in DPO with the reference as a second adapter or a second model.
        preflow: Preflow's.
        reference: The model that both start from.
    """

    trl: Any
    preflow: Any
    reference: Any

    @property
    def both(self) -> tuple[Any, Any]:
        """TRL's trainer and Preflow's."""
        return self.trl, self.preflow

    def batches(self, rows: Sequence[Pair]) -> tuple[Any, Any]:
        """Pairs as each trainer's own collator gives them."""
        stored = as_dataset(with_reference(self.reference, rows), self.preflow.ld_alpha)
        return self.trl.data_collator(list(rows)), self.preflow.data_collator([stored[i] for i in range(len(rows))])


def with_reference(reference: Any, rows: Sequence[Pair]) -> list[ScoredPair]:
    """Rows with the values that the reference stage would store."""
    groups = [(row["prompt_ids"], (row["chosen_ids"], row["rejected_ids"])) for row in rows]
    values = [[each.tolist() for each in both] for both in scores(reference, groups, CPU)]
    return [
        ScoredPair(**row, ref_chosen=chosen, ref_rejected=rejected, source="-")
        for row, (chosen, rejected) in zip(rows, values, strict=True)
    ]


def arguments(out: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """TRL's own names for what the recipe of ``spec_of`` says."""
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "dataloader_pin_memory": False}
    log = {"logging_steps": 1, "logging_first_step": True, "seed": SEED, "data_seed": SEED}
    device = {"use_cpu": True, "bf16": False, "max_length": None}
    schedule = {"lr_scheduler_type": "cosine", "warmup_steps": 0.1}
    return {"output_dir": str(out / "trl"), **quiet, **log, **device, **schedule, **COMMON, **changes}


def spec_of(stage: str, lora: bool, changes: dict[str, Any]) -> Any:
    """As much of a stage's specification as its trainer reads."""
    recipe = {"strategy": stage, "model_name": "-", "tuning": "lora" if lora else "full", "bf16": False, "seed": SEED}
    return SimpleNamespace(recipe=Recipe.model_validate({**recipe, stage: {**COMMON, **changes}}))


def dpo_trainers(architecture: str, rows: Sequence[Pair], out: Path, *, lora: bool, **changes: Any) -> TrainerPair:
    """Make both DPO trainers.

    Args:
        architecture: One of ``architectures.CONFIGS`` or ``PADDED``.
        rows: To train on.
        out: Where checkpoints go.
        lora: Whether an adapter is trained, or all weights.
        changes: Settings of both, under TRL's names.
    """
    tokenizer, reference = make_tokenizer(), model_of(architecture, lora=lora).eval()
    model = model_of(architecture, lora=lora)
    trl = TrlTrainer(
        model=model,
        ref_model=None if lora else copy.deepcopy(model),
        args=DPOConfig(**arguments(out, changes)),
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        processing_class=tokenizer,
    )
    spec, pairs = spec_of("dpo", lora, changes), with_reference(reference, rows)
    preflow = make_trainer(spec, model_of(architecture, lora=lora), tokenizer, pairs, out / "preflow", Silent())
    return TrainerPair(trl, preflow, reference)


def sft_trainers(architecture: str, rows: Sequence[Pair], out: Path, *, lora: bool, **changes: Any) -> TrainerPair:
    """Make both SFT trainers, on the prompts and chosen responses of pairs. Arguments as of ``dpo_trainers``."""
    tokenizer, reference = make_tokenizer(), model_of(architecture, lora=lora)
    ids = [row["prompt_ids"] + row["chosen_ids"] for row in rows]
    masks = [[False] * len(row["prompt_ids"]) + [True] * len(row["chosen_ids"]) for row in rows]
    labels = [[t if counts else -100 for t, counts in zip(*each, strict=True)] for each in zip(ids, masks, strict=True)]
    trl = SFTTrainer(
        model=model_of(architecture, lora=lora),
        args=SFTConfig(**arguments(out, changes)),
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": labels}),
        processing_class=tokenizer,
    )
    tokenized = [TokenizedDemonstration(*each, Source("-", 1)) for each in zip(ids, masks, strict=True)]
    spec, model = spec_of("sft", lora, changes), model_of(architecture, lora=lora)
    preflow = sft._trainer(spec, model, tokenizer, tokenized, out / "preflow", Silent())
    return TrainerPair(trl, preflow, reference)
