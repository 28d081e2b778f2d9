"""Supervised fine-tuning: SFT examples (demonstrations) in, an adapter or full weights out."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from preflow.artifacts import write_json
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import TokenizedDemonstration, tokenize_demonstrations
from preflow.data.validated import load_demonstrations
from preflow.errors import DataUnfitError
from preflow.estimates.training import loaded_model_memory
from preflow.estimates.workload import common_prefix_length
from preflow.models.adapters import describe, inner_model, new_adapter, save_model, write_card
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.cpu.switch import kernels_wanted, untested_torch
from preflow.models.loading import load_policy, load_tokenizer
from preflow.models.packed.support import unsupported_reason
from preflow.models.precision import choose_precision
from preflow.models.resolve import adapted_modules
from preflow.models.trl_forward import pack_sequences, score_responses_only
from preflow.observer import Observer
from preflow.specs import SftSpec
from preflow.training.arguments import apply_precision, preserve_trainable_weights, training_arguments
from preflow.training.callbacks import StageCallback
from preflow.training.loop import final_mean, run_training
from preflow.training.numerical_checks import ROW, NumericalChecks
from preflow.training.out_of_memory import retry_with_smaller_batches
from preflow.training.token_budget import TokenBudgetBatching


class CheckedSFTTrainer(NumericalChecks, TokenBudgetBatching, SFTTrainer):
    """TRL's trainer, stopped by a loss or gradient that is NaN or infinite."""


def run_sft(spec: SftSpec, out: Path, observer: Observer) -> None:
    """Train with TRL's SFTTrainer on response tokens alone and write the model into ``out``.

    Writes ``model/`` (adapter, or full weights), ``training.json`` (the log of every step), ``report.json`` (rows in =
    rows used + rows dropped by reason) and ``metrics.json``. Resumes from the last complete checkpoint under ``out``.

    Args:
        spec: The base model, the rows and the settings.
        out: The stage's partial folder.
        observer: Receives progress and metrics.

    Raises:
        DataUnfitError: No row is left to train on.
        NonFiniteLossError: The loss is NaN or infinite.
    """
    assert spec.recipe.sft is not None, "run_sft needs a recipe with an SFT section"
    retry_with_smaller_batches(
        spec.recipe, "sft", lambda recipe: _train(spec.model_copy(update={"recipe": recipe}), out, observer), observer
    )


def _train(spec: SftSpec, out: Path, observer: Observer) -> None:
    recipe, settings = spec.recipe, spec.recipe.sft
    assert settings is not None
    tokenizer = load_tokenizer(spec.base, recipe)
    renderer = Renderer(tokenizer, recipe.rendering)
    rows, counts = tokenize_demonstrations(
        load_demonstrations(spec.data, "train"),
        renderer,
        settings.max_seq_length,
        settings.overlong_response,
        train_on=settings.train_on,
    )
    observer.note(f"sft: {counts}")
    if not rows:
        raise DataUnfitError(f"sft: no demonstration is left to train on: {counts}")
    precision = choose_precision(recipe)
    model = load_policy(spec.base, None, recipe, precision, trainable=True)
    if recipe.tuning == "lora" and spec.base.adapter is None:
        model = new_adapter(model, settings, recipe.seed)
    lengths = [(len(row.input_ids), sum(row.response_mask)) for row in rows]
    prompts = (row.input_ids[: row.response_mask.index(True)] for row in rows)
    common = common_prefix_length(prompts, lengths, settings.max_seq_length)
    targets = adapted_modules(spec.base, settings)
    predicted = loaded_model_memory(inner_model(model), recipe, settings, lengths, precision, common, targets)
    trainer = _trainer(spec, model, tokenizer, rows, out, observer)
    size = describe(model)  # before the weights are sharded
    log = run_training(trainer, out, observer, predicted, keep_heap=kernels_wanted(settings))
    save_model(model, tokenizer, spec.base, renderer.end_ids, out / "model")
    if not trainer.is_world_process_zero():
        return
    write_card(out / "model", spec.base, "sft")
    write_json(out / "training.json", log)
    write_json(out / "report.json", {"rows": counts.to_json(), "model": size})
    metrics = {
        "sft/loss": final_mean(log, "loss"),
        "sft/steps": float(trainer.state.global_step),
        "sft/rows": float(len(rows)),
        "sft/response_tokens": float(sum(sum(row.response_mask) for row in rows)),
    }
    write_json(out / "metrics.json", metrics)


def _trainer(
    spec: SftSpec, model: Any, tokenizer: Any, rows: list[TokenizedDemonstration], out: Path, observer: Observer
) -> Any:
    settings = spec.recipe.sft
    assert settings is not None
    # Labels by position: the pad token may be the EOS token, so no id can stand for "not trained on".
    columns: dict[str, list[Any]] = {
        ROW: list(range(len(rows))),
        "input_ids": [row.input_ids for row in rows],
        "labels": [
            [token if counts else -100 for token, counts in zip(row.input_ids, row.response_mask, strict=True)]
            for row in rows
        ],
    }
    precision = choose_precision(spec.recipe)
    arguments = training_arguments(spec.recipe, settings, precision, out)
    config = SFTConfig(**arguments, packing=False)
    apply_precision(config, precision)
    with preserve_trainable_weights(model):
        trainer = CheckedSFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
            callbacks=[StageCallback("sft", observer)],
        )
    trainer.watch("sft", [str(row.source) for row in rows])
    inner = inner_model(trainer.model)
    reason = unsupported_reason(inner)
    trainer.batch(settings, [len(row.input_ids) for row in rows], padded=reason is not None)
    kernels = kernels_wanted(settings)
    if note := untested_torch(settings, precision.device):
        observer.note(f"sft: {note}")
    if reason is None:
        pack_sequences(inner, cpu_kernels=kernels)
        if kernels:
            fuse_lora(trainer.model)
            use_cpu_kernels(trainer.model)
    else:
        score_responses_only(inner)
        observer.note(f"sft: rows are padded to the longest of their batch: {reason}")
    return trainer
