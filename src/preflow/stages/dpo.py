"""Direct Preference Optimization against stored reference log-probs, after the start-up checks of the reference."""

from pathlib import Path

from transformers import TrainerState

from preflow.artifacts import SCRATCH, write_json
from preflow.config.training import DpoSettings
from preflow.data.tokens.chat_template import Renderer
from preflow.dpo import start_checks
from preflow.dpo.early_stopping import KlEarlyStopping
from preflow.dpo.kl_monitor import HeldOutMonitor
from preflow.dpo.start import load_start, prove_reference
from preflow.dpo.trainer import IDS, StoredReferenceTrainer, logits, make_trainer, policy_scores, token_scores
from preflow.dpo.weight_checks import check_policy_weights
from preflow.estimates.training import loaded_model_memory
from preflow.estimates.workload import common_prefix_length
from preflow.logprobs.scored_pairs import PairTable, read_pairs
from preflow.models.adapters import describe, inner_model, save_model, write_card
from preflow.models.cpu.switch import kernels_wanted
from preflow.models.loading import LanguageModel, load_tokenizer
from preflow.models.precision import Precision, choose_precision
from preflow.models.resolve import adapted_modules
from preflow.observer import Observer
from preflow.specs import DpoSpec
from preflow.training.checkpoints import resume_point
from preflow.training.loop import PredictedMemory, clean_log, final_mean, run_training
from preflow.training.out_of_memory import retry_with_smaller_batches


def run_dpo(spec: DpoSpec, out: Path, observer: Observer) -> None:
    """Check the reference, then train with TRL's DPOTrainer and write the aligned model into ``out``.

    The policy is the SFT artifact itself, trained further: its adapter, or a copy of its full weights; without an SFT
    artifact, the named model with a fresh adapter. Writes ``model/``, ``training.json``, ``report.json`` and
    ``metrics.json``. Resumes from the last complete checkpoint under ``out``.

    Raises:
        ProofError: The reference is not what it should be; its subclass names the cause.
        DpoCheckpointError: The SFT model is a checkpoint of a DPO run.
        NonFiniteLossError: The loss is NaN or infinite.
    """
    retry_with_smaller_batches(
        spec.recipe, "dpo", lambda recipe: _prove_and_train(spec.model_copy(update={"recipe": recipe}), out, observer),
        observer,
    )  # fmt: skip


def _prove_and_train(spec: DpoSpec, out: Path, observer: Observer) -> None:
    settings = _settings(spec)
    precision = choose_precision(spec.recipe)
    pairs = read_pairs(spec.reference.file("train.parquet"))
    if settings.disable_dropout and settings.lora_dropout > 0:
        observer.note(f"dpo: lora_dropout {settings.lora_dropout} has no effect, dpo.disable_dropout is true")

    evidence, weights = prove_reference(spec, settings, pairs, precision)
    tokenizer = load_tokenizer(spec.base, spec.recipe)
    start = load_start(spec, settings, precision)
    dtypes = start_checks.adapter_dtypes(start)
    predicted = _estimate(spec, start, pairs, precision)

    trainer = make_trainer(spec, start, tokenizer, pairs, out, observer)
    policy: LanguageModel = trainer.model
    start_checks.check_dtypes(policy, dtypes)
    evidence["weights_compared"] = float(check_policy_weights(policy, weights))
    evidence |= _check_policy(spec, trainer, pairs, precision, observer)
    size = describe(trainer.model)  # before the weights are sharded
    stopping = _monitor(spec, trainer, precision, out, observer)

    log, ended = _train(spec, trainer, stopping, out, observer, predicted)
    trainer.accelerator.wait_for_everyone()
    stopped = stopping.finish(ended)

    save_model(trainer.model, tokenizer, spec.base, Renderer(tokenizer, spec.recipe.rendering).end_ids, out / "model")
    if not trainer.is_world_process_zero():
        return
    write_card(out / "model", spec.base, "dpo")
    write_json(out / "training.json", log)
    write_json(out / "report.json", {"proof": evidence, "model": size, "pairs": len(pairs)})
    write_json(out / "metrics.json", {**_headline(log, ended.global_step, len(pairs), evidence), **stopped})


def _settings(spec: DpoSpec) -> DpoSettings:
    assert spec.recipe.dpo is not None, "run_dpo needs a recipe with a DPO section"
    return spec.recipe.dpo


def _estimate(spec: DpoSpec, start: LanguageModel, pairs: PairTable, precision: Precision) -> PredictedMemory | None:
    """What training is estimated to take at its peak; None for a model whose sizes are not known."""
    settings = _settings(spec)
    lengths = list(zip(*(pairs.lengths(name).tolist() for name in IDS), strict=True))
    common = common_prefix_length((ids.as_py() for ids in pairs.table.column(IDS[0])), lengths, settings.max_seq_length)
    targets = adapted_modules(spec.base, settings)
    return loaded_model_memory(inner_model(start), spec.recipe, settings, lengths, precision, common, targets)


def _check_policy(
    spec: DpoSpec,
    trainer: StoredReferenceTrainer,
    pairs: PairTable,
    precision: Precision,
    observer: Observer,
) -> dict[str, float]:
    """Check that the policy trains, and gives every pair its stored log-probs."""
    policy: LanguageModel = trainer.model
    trainable = start_checks.check_trainable(policy)
    gap = start_checks.check_policy(
        pairs,
        lambda chunk: policy_scores(trainer, chunk, precision),
        precision.compute,
        start_checks.BATCH,
        observer,
        spec.reference,
    )
    return {"trainable": float(trainable), "policy_gap": gap}


def _monitor(
    spec: DpoSpec, trainer: StoredReferenceTrainer, precision: Precision, out: Path, observer: Observer
) -> KlEarlyStopping:
    """Early stopping by the KL on held-out pairs, added to the trainer where there are pairs to measure it on.

    Validation pairs, where there are any, so that the test pairs choose nothing.
    """
    settings = _settings(spec)
    stopping = KlEarlyStopping(trainer.model, out / SCRATCH, settings, observer)
    validation = spec.reference.file("validation.parquet")
    choosing = validation if validation.is_file() else spec.reference.file("eval.parquet")
    held_out = start_checks.sample(read_pairs(choosing), settings.eval_pairs or 1)
    if held_out and settings.eval_pairs:
        stopping.held_out = HeldOutMonitor(
            held_out,
            lambda chunk: token_scores(trainer, chunk, precision),
            lambda row: logits(trainer, row, precision),
            settings.beta,
            settings.eval_batch_size,
        )
        trainer.add_callback(stopping)
        trainer.judged_elsewhere = True
    else:
        what = "dpo.eval_pairs is 0" if held_out else "no pair is held out"
        observer.note(f"dpo: {what}, so KL is not measured and dpo.kl_limit stops nothing")
    return stopping


def _train(
    spec: DpoSpec,
    trainer: StoredReferenceTrainer,
    stopping: KlEarlyStopping,
    out: Path,
    observer: Observer,
    predicted: PredictedMemory | None,
) -> tuple[list[dict[str, float]], TrainerState]:
    """Train, unless an earlier attempt was stopped early before it was killed; the log and the final state."""
    ended = stopping.stopped_before(resume_point(out / SCRATCH))
    if ended is not None:
        return clean_log(ended.log_history), ended
    log = run_training(trainer, out, observer, predicted, keep_heap=kernels_wanted(_settings(spec)))
    return log, trainer.state


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
