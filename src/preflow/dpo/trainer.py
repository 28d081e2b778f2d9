"""TRL's DPOTrainer on stored reference log-probs, and what is computed with its own forward."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets.fingerprint import generate_random_fingerprint
from transformers import PreTrainedTokenizerBase
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from preflow.config.training import DpoSettings
from preflow.logprobs.scored_pairs import PairTable, ScoredPair
from preflow.models.adapters import inner_model
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.cpu.switch import kernels_wanted, untested_torch
from preflow.models.loading import LanguageModel, without_dropout
from preflow.models.packed.support import unsupported_reason
from preflow.models.precision import Precision, choose_precision
from preflow.models.scoring import PromptResponse, response_logits
from preflow.models.trl_forward import pack_pairs, score_responses_only
from preflow.observer import Observer
from preflow.specs import DpoSpec
from preflow.training.arguments import apply_precision, preserve_trainable_weights, training_arguments
from preflow.training.callbacks import StageCallback
from preflow.training.numerical_checks import ROW, NumericalChecks
from preflow.training.token_budget import TokenBudgetBatching

#: Columns of a pair's token ids.
IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


class StoredReferenceTrainer(NumericalChecks, TokenBudgetBatching, DPOTrainer):
    """TRL's trainer on rows that bring their token ids and reference log-probs with them.

    TRL then neither tokenizes, nor keeps a second model, nor computes a reference; losses and metrics are its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """TRL's, but without the second model that it loads and shards under FSDP even for stored values."""
        self._made = False
        super().__init__(*args, **kwargs)
        self._made = True

    @property
    def is_fsdp_enabled(self) -> bool:
        """Whether FSDP shards the weights; false while the trainer is made."""
        return self._made and self._fsdp

    @is_fsdp_enabled.setter
    def is_fsdp_enabled(self, value: bool) -> None:
        self._fsdp = value

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def make_trainer(
    spec: DpoSpec,
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[ScoredPair],
    out: Path,
    observer: Observer,
) -> StoredReferenceTrainer:
    """TRL's trainer over a policy, with the stored reference values in its rows."""
    settings = spec.recipe.dpo
    assert settings is not None
    precision = choose_precision(spec.recipe)
    with preserve_trainable_weights(model):
        trainer = StoredReferenceTrainer(
            model=model,
            args=_configuration(spec, settings, precision, out),
            train_dataset=as_dataset(pairs, settings.ld_alpha),
            processing_class=tokenizer,
            callbacks=[StageCallback("dpo", observer)],
        )
    trainer.watch("dpo", PairTable.of(pairs).table.column("source").to_pylist())
    policy: LanguageModel = trainer.model
    if settings.disable_dropout:
        without_dropout(policy)
    if "ref" in getattr(policy, "peft_config", {}):
        # TRL's frozen copy of the adapter: the stored values stand for it, and checkpoints should not carry it.
        policy.delete_adapter("ref")
    _choose_forward(trainer, settings, pairs, precision, observer)
    return trainer


def _configuration(spec: DpoSpec, settings: DpoSettings, precision: Precision, out: Path) -> DPOConfig:
    """TRL's configuration of a DPO training."""
    config = DPOConfig(
        **training_arguments(spec.recipe, settings, precision, out),
        beta=settings.beta,
        loss_type=list(settings.loss_type),
        loss_weights=None if settings.loss_weights is None else list(settings.loss_weights),
        label_smoothing=settings.label_smoothing,
        f_divergence_type=settings.f_divergence_type,
        f_alpha_divergence_coef=settings.f_alpha_divergence_coef,
        discopop_tau=settings.discopop_tau,
        ld_alpha=settings.ld_alpha,
        use_weighting=settings.use_weighting,
        disable_dropout=settings.disable_dropout,
        precompute_ref_log_probs=True,
    )
    apply_precision(config, precision)
    return config


def _choose_forward(
    trainer: StoredReferenceTrainer,
    settings: DpoSettings,
    pairs: Sequence[ScoredPair],
    precision: Precision,
    observer: Observer,
) -> None:
    """Pack each pair with its prompt once where the architecture allows it, else pad rows; batch them by their size."""
    policy: LanguageModel = trainer.model
    inner = inner_model(policy)
    reason = unsupported_reason(inner)
    trainer.batch(settings, _tokens(pairs, packed=reason is None), padded=reason is not None)
    kernels = kernels_wanted(settings)
    if note := untested_torch(settings, precision.device):
        observer.note(f"dpo: {note}")
    if reason is None:
        pack_pairs(inner, wpo=settings.use_weighting, cpu_kernels=kernels)
        if kernels:
            fuse_lora(policy)
            use_cpu_kernels(policy)
    else:
        score_responses_only(inner)
        observer.note(f"dpo: rows are padded and prompts run twice, once per response: {reason}")


def _tokens(pairs: Sequence[ScoredPair], *, packed: bool) -> list[int]:
    """Tokens that each pair takes: with its prompt once, or as two rows of the longer one's length."""
    table = PairTable.of(pairs)
    prompt, chosen, rejected = (table.lengths(f"{name}_ids") for name in ("prompt", "chosen", "rejected"))
    tokens = prompt + chosen + rejected if packed else 2 * (prompt + np.maximum(chosen, rejected))
    return [int(count) for count in tokens]


def as_dataset(pairs: Sequence[ScoredPair], ld_alpha: float | None) -> Dataset:
    """The columns that TRL's collator reads."""
    columns = PairTable.of(pairs).training_columns(ld_alpha)
    columns = columns.append_column(ROW, pa.array(np.arange(len(columns))))
    # A random fingerprint: nothing is cached under it, and the usual one would read all rows.
    return Dataset(columns, fingerprint=generate_random_fingerprint())


def policy_scores(
    trainer: DPOTrainer, pairs: Sequence[ScoredPair], precision: Precision
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Log-probs of every token of both responses by the trainer's own collator and forward, in evaluation mode.

    Returns:
        Per pair those of the chosen and of the rejected response, shapes ``(C,)`` and ``(R,)``, nats, on the CPU.
    """
    model: LanguageModel = trainer.model
    model.eval()
    values = token_scores(trainer, pairs, precision).cpu()
    first = [len(pair.prompt_ids) - 1 for pair in pairs]  # position t predicts token t + 1
    chosen, rejected = values[: len(pairs)], values[len(pairs) :]
    return [
        (c[start : start + len(pair.chosen_ids)], r[start : start + len(pair.rejected_ids)])
        for c, r, start, pair in zip(chosen, rejected, first, pairs, strict=True)
    ]


@torch.no_grad()
def token_scores(trainer: DPOTrainer, pairs: Sequence[ScoredPair], precision: Precision) -> torch.Tensor:
    """Log-probs of every response token in evaluation mode, as TRL lays them out: shape ``(2B, T - 1)``, chosen first.

    The model is left in the mode it was in.
    """
    model: LanguageModel = trainer.model
    training = model.training
    model.eval()
    batch = trainer.data_collator([{name: getattr(pair, name) for name in IDS} for pair in pairs])
    batch = trainer._prepare_inputs(batch)
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    with precision.autocast():  # the trainer itself wraps the model in autocast later, when training begins
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=labels,
            use_cache=False,
            fused_lm_head=True,
        )
    model.train(training)
    values: torch.Tensor = output.log_probs
    return values


@torch.no_grad()
def logits(trainer: DPOTrainer, row: PromptResponse, precision: Precision) -> torch.Tensor:
    """Logits over one response in evaluation mode, shape ``(R, V)``. The model is left in the mode it was in."""
    model: LanguageModel = trainer.model
    training = model.training
    model.eval()
    values = response_logits(model, row, precision)
    model.train(training)
    return values
