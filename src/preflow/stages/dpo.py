"""Direct Preference Optimization against stored reference log-probs, after a proof that they are the right ones."""

import json
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

from preflow.artifacts import CARD, SCRATCH, write_json
from preflow.config.training import DpoSettings
from preflow.dpo import start_checks
from preflow.dpo.early_stopping import KlEarlyStopping
from preflow.dpo.kl_monitor import HeldOutMonitor
from preflow.errors import DpoCheckpointError
from preflow.estimates.training import common_tokens, foreseen
from preflow.logprobs.scored_pairs import PairTable, ScoredPair, read_pairs
from preflow.models.adapters import describe, inner_model, new_adapter, save_model, write_card
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.cpu.switch import kernels_wanted, untested_torch
from preflow.models.loading import LanguageModel, load_policy, load_tokenizer, without_dropout
from preflow.models.packed.attention import unsupported_reason
from preflow.models.precision import Precision, choose_precision
from preflow.models.resolve import adapted_modules, refuse_dpo_checkpoint
from preflow.models.scoring import PromptResponse, response_logits
from preflow.models.trl_forward import pack_pairs, score_responses_only
from preflow.observer import Observer
from preflow.specs import DpoSpec
from preflow.training.batching import TokenBudgetBatching, retry_with_smaller_batches
from preflow.training.loop import (
    StageCallback,
    apply_precision,
    clean_log,
    final_mean,
    preserve_trainable_weights,
    resume_point,
    run_training,
    training_arguments,
)
from preflow.training.numerical_checks import ROW, NumericalChecks

_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


class StoredReferenceTrainer(NumericalChecks, TokenBudgetBatching, DPOTrainer):
    """TRL's trainer on rows that bring their token ids and reference log-probs with them.

    TRL then neither tokenizes, nor keeps a second model, nor computes a reference; losses and metrics are its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """TRL's, but without the second model that it loads and shares out under FSDP even for stored values."""
        self._made = False
        super().__init__(*args, **kwargs)
        self._made = True

    @property
    def is_fsdp_enabled(self) -> bool:
        """Whether FSDP shares the weights out; not said while the trainer is made."""
        return self._made and self._fsdp

    @is_fsdp_enabled.setter
    def is_fsdp_enabled(self, value: bool) -> None:
        self._fsdp = value

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def run_dpo(spec: DpoSpec, out: Path, observer: Observer) -> None:
    """Prove the reference, then train with TRL's DPOTrainer and write the aligned model into ``out``.

    The policy is the SFT artifact itself going on: its adapter, or a copy of its full weights; without an SFT
    artifact, the named model with a fresh adapter. Writes ``model/``, ``training.json``, ``report.json`` and
    ``metrics.json``. Goes on from the last whole checkpoint under ``out``.

    Raises:
        ProofError: The reference is not what it should be; its subclass names the cause.
        DpoCheckpointError: The SFT model is a checkpoint of a DPO run.
        NonFiniteLossError: The loss broke.
    """
    assert spec.recipe.dpo is not None, "run_dpo needs a recipe with a DPO section"
    retry_with_smaller_batches(
        spec.recipe, "dpo", lambda recipe: _prove_and_train(spec.model_copy(update={"recipe": recipe}), out, observer),
        observer,
    )  # fmt: skip


def _prove_and_train(spec: DpoSpec, out: Path, observer: Observer) -> None:
    recipe, settings = spec.recipe, spec.recipe.dpo
    assert settings is not None
    precision = choose_precision(recipe)
    pairs = read_pairs(spec.reference.file("train.parquet"))
    if settings.disable_dropout and settings.lora_dropout > 0:
        observer.note(f"dpo: lora_dropout {settings.lora_dropout} has no effect, dpo.disable_dropout is true")
    evidence = prove_reference(spec, settings, pairs, precision)
    tokenizer = load_tokenizer(spec.base, recipe)
    start = load_start(spec, settings, precision)
    dtypes = start_checks.adapter_dtypes(start)
    lengths = list(zip(*(pairs.lengths(name).tolist() for name in _IDS), strict=True))
    common = common_tokens((ids.as_py() for ids in pairs.table.column(_IDS[0])), lengths, settings.max_seq_length)
    targets = adapted_modules(spec.base, settings)
    predicted = foreseen(inner_model(start), recipe, settings, lengths, precision, common, targets)
    trainer = make_trainer(spec, start, tokenizer, pairs, out, observer)
    policy: LanguageModel = trainer.model
    evidence["trainable"] = float(start_checks.check_trainable(policy))
    start_checks.check_dtypes(policy, dtypes)
    evidence["policy_gap"] = start_checks.check_policy(
        pairs,
        lambda chunk: policy_scores(trainer, chunk, precision),
        precision.compute,
        start_checks.BATCH,
        observer,
        spec.reference,
    )
    size = describe(policy)  # before the weights are shared out
    guard = KlEarlyStopping(policy, out / SCRATCH, settings, observer)
    held_out = start_checks.sample(read_pairs(spec.reference.file("eval.parquet")), settings.eval_pairs or 1)
    if held_out and settings.eval_pairs:
        guard.held_out = HeldOutMonitor(
            held_out,
            lambda chunk: token_scores(trainer, chunk, precision),
            lambda row: logits(trainer, row, precision),
            settings.beta,
            settings.pairs_per_look,
        )
        trainer.add_callback(guard)
        trainer.guarded = True
    else:
        what = "dpo.eval_pairs is 0" if held_out else "no pair is held out"
        observer.note(f"dpo: {what}, so KL is not looked at and dpo.kl_limit stops nothing")
    ended = guard.stopped_before(resume_point(out / SCRATCH))
    if ended is None:
        log = run_training(trainer, out, observer, predicted, keep_heap=kernels_wanted(settings))
        ended = trainer.state
    else:
        log = clean_log(ended.log_history)
    trainer.accelerator.wait_for_everyone()
    stopped = guard.finish(ended)
    save_model(policy, tokenizer, spec.base, out / "model")
    if not trainer.is_world_process_zero():
        return
    write_card(out / "model", spec.base, "dpo")
    write_json(out / "training.json", log)
    write_json(out / "report.json", {"proof": evidence, "model": size, "pairs": len(pairs)})
    write_json(out / "metrics.json", {**_headline(log, ended.global_step, len(pairs), evidence), **stopped})


def _headline(log: list[dict[str, float]], steps: int, pairs: int, evidence: dict[str, float]) -> dict[str, float]:
    return {
        "dpo/loss": final_mean(log, "loss"),
        "dpo/first_loss": next(entry["loss"] for entry in log if "loss" in entry),
        "dpo/train_reward_accuracy": final_mean(log, "rewards/accuracies"),
        "dpo/train_reward_margin": final_mean(log, "rewards/margins"),
        "dpo/steps": float(steps),
        "dpo/pairs": float(pairs),
        **{f"dpo/proof_{name}": value for name, value in evidence.items()},
    }


def load_start(spec: DpoSpec, settings: DpoSettings, precision: Precision) -> LanguageModel:
    """The policy at step 0: the SFT artifact going on, or the named model with a fresh adapter."""
    trained = spec.sft.file("model") if spec.sft is not None else None
    if trained is not None:
        refuse_dpo_checkpoint(trained)
        card = trained / CARD
        if card.is_file() and json.loads(card.read_text(encoding="utf-8"))["stage"] == "dpo":
            raise DpoCheckpointError(
                f"{trained} was made by a DPO stage, expected the SFT stage's model: DPO would measure itself against "
                "an aligned model. To align it further on purpose, name it as model_name of a recipe with strategy: dpo"
            )
    model = load_policy(spec.base, trained, spec.recipe, precision, trainable=True)
    if spec.recipe.tuning == "lora" and trained is None and spec.base.adapter is None:
        model = new_adapter(model, settings, spec.recipe.seed)
    return model


def prove_reference(
    spec: DpoSpec, settings: DpoSettings, pairs: Sequence[ScoredPair], precision: Precision
) -> dict[str, float]:
    """Check a sample of the stored values against an independent forward, and the SFT model against the base."""
    probe = start_checks.sample(pairs, settings.proof_sample)
    trained = spec.sft.file("model") if spec.sft is not None else None

    def gaps(folder: Path | None) -> list[start_checks.Gap]:
        model = load_policy(spec.base, folder, spec.recipe, precision)
        return start_checks.measure(
            probe, lambda row: start_checks.independent_logprob(model, row, precision), precision.compute
        )

    reference = gaps(trained)
    evidence = {"stored_gap": start_checks.check_stored(reference, spec.reference)}
    if trained is not None:
        evidence["sft_against_base"] = start_checks.check_not_forgotten(start_checks.apart(reference, gaps(None)))
    return evidence


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
    arguments = training_arguments(spec.recipe, settings, precision, out)
    config = DPOConfig(
        **arguments,
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
    with preserve_trainable_weights(model):
        trainer = StoredReferenceTrainer(
            model=model,
            args=config,
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
    return trainer


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


@torch.no_grad()
def policy_scores(
    trainer: DPOTrainer, pairs: Sequence[ScoredPair], precision: Precision
) -> tuple[list[float], list[float]]:
    """Log-probs of both responses by the trainer's own collator and forward, in evaluation mode, summed in float64."""
    model: LanguageModel = trainer.model
    model.eval()
    sums = token_scores(trainer, pairs, precision).double().sum(-1).tolist()
    return sums[: len(pairs)], sums[len(pairs) :]


@torch.no_grad()
def token_scores(trainer: DPOTrainer, pairs: Sequence[ScoredPair], precision: Precision) -> torch.Tensor:
    """Log-probs of every response token in evaluation mode, as TRL lays them out: shape ``(2B, T - 1)``, chosen first.

    The model is left in the mode it was in.
    """
    model: LanguageModel = trainer.model
    training = model.training
    model.eval()
    batch = trainer.data_collator([{name: getattr(pair, name) for name in _IDS} for pair in pairs])
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
