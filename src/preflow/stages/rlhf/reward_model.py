"""A reward model of the training pairs, and how often it agrees with held-out ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preflow.artifacts import write_json
from preflow.config.base import numbers
from preflow.config.training import DpoSettings
from preflow.data.rows import first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.row_counts import RowCounts
from preflow.data.tokens.tokenize import TokenizedPair, tokenize_pairs
from preflow.data.validated import Split, load_pairs, selection_split
from preflow.errors import DataUnfitError
from preflow.judges.classifier import RENDERING
from preflow.maths.clusters import Rows, cluster_numbers
from preflow.models.adapters import describe
from preflow.models.loading import load_policy, load_tokenizer
from preflow.models.precision import Precision, choose_precision
from preflow.observer import Observer
from preflow.rlhf.reward_start import reward_head_on, set_pad_apart, with_reward_adapter
from preflow.rlhf.reward_trainer import STAGE, make_reward_trainer
from preflow.rlhf.rewards import HeldOutRewards, held_out_rewards
from preflow.specs import RewardModelSpec
from preflow.training.loop import final_mean, run_training


def run_reward_model(spec: RewardModelSpec, out: Path, observer: Observer) -> None:
    """Train with TRL's RewardTrainer on prompt and response tokens, the end token included, and write a classifier.

    Writes ``model/`` (a whole classifier in safetensors with its tokenizer and ``rendering.json``, as the judge of kind
    ``classifier`` reads it), ``training.json`` (the log of every step), ``report.json`` (rows in = rows used + rows
    dropped by reason; the accuracy on held-out pairs with its interval) and ``metrics.json``. Held out are the
    validation pairs, or without such the test pairs. Resumes from the last complete checkpoint under ``out``.

    Raises:
        DataUnfitError: No training pair or no held-out pair is left.
        UnfitModelError: Transformers has no classifier of the model's architecture.
        NonFiniteLossError: The loss is NaN or infinite.
    """
    recipe = spec.recipe
    assert recipe.dpo is not None, "run_reward_model needs a recipe with a DPO section"
    settings, precision = recipe.reward_model.applied_to(recipe.dpo), choose_precision(recipe)
    tokenizer = load_tokenizer(spec.base, recipe)
    renderer = Renderer(tokenizer, recipe.rendering)
    split = selection_split(spec.data, "preferences")
    pairs, counts = _tokenized(spec, renderer, settings, "train", observer)
    held_out, held_out_counts = _tokenized(spec, renderer, settings, split, observer)
    clusters = _clusters(spec, held_out, split)
    pad_id = set_pad_apart(tokenizer, renderer.end_ids)
    model = _start(spec, settings, precision)
    trainer = make_reward_trainer(recipe, settings, model, tokenizer, pairs, precision, out, observer)
    size = describe(trainer.model)
    log = run_training(trainer, out)
    trained: Any = trainer.model
    finished = trained.merge_and_unload() if recipe.tuning == "lora" else trained
    finished.save_pretrained(str(out / "model"), safe_serialization=True)
    tokenizer.save_pretrained(str(out / "model"))
    write_json(out / "model" / RENDERING, {**numbers(recipe.rendering), "max_seq_length": settings.max_seq_length})
    found = held_out_rewards(finished, held_out, pad_id, settings.per_device_train_batch_size, precision)
    rows = {"train": counts.to_json(), split: held_out_counts.to_json()}
    tested = _report(spec, found, clusters, split)
    write_json(out / "training.json", log)
    write_json(out / "report.json", {"rows": rows, "model": size, "held_out": tested})
    write_json(out / "metrics.json", _headline(log, trainer.state.global_step, len(pairs), tested))


def _tokenized(
    spec: RewardModelSpec, renderer: Renderer, settings: DpoSettings, split: Split, observer: Observer
) -> tuple[list[TokenizedPair], RowCounts]:
    """The pairs of one split as DPO has them.

    Raises:
        DataUnfitError: None is left.
    """
    pairs, counts = tokenize_pairs(
        load_pairs(spec.data, split), renderer, settings.max_seq_length, settings.overlong_response, observer
    )
    observer.note(f"reward_model, {split} pairs: {counts}")
    if not pairs:
        what = "to train on" if split == "train" else "to test the reward model on"
        raise DataUnfitError(f"reward_model: no pair of the split '{split}' is left {what}: {counts}")
    return pairs, counts


def _clusters(spec: RewardModelSpec, held_out: Sequence[TokenizedPair], split: Split) -> Rows:
    keys = {pair.id: cluster_key(first_user_turn(pair.prompt)) for pair in load_pairs(spec.data, split)}
    return cluster_numbers(keys[pair.id] for pair in held_out)


def _start(spec: RewardModelSpec, settings: DpoSettings, precision: Precision) -> Any:
    """The classifier at step 0, with a fresh adapter where the recipe trains one."""
    recipe = spec.recipe
    trained = None if spec.sft is None else spec.sft.file("model")
    model = reward_head_on(load_policy(spec.base, trained, recipe, precision), spec.base, recipe.seed)
    return with_reward_adapter(model, spec.base, settings, recipe.seed) if recipe.tuning == "lora" else model


def _report(spec: RewardModelSpec, found: HeldOutRewards, clusters: Rows, split: Split) -> dict[str, Any]:
    """How often the reward model agrees with people, and how far apart its rewards lie."""
    settings = spec.recipe.evaluation
    accuracy = found.accuracy(clusters, settings.confidence, settings.bootstrap_samples, spec.recipe.seed)
    return {
        "split": split,
        "pairs": len(clusters),
        "prompts": int(clusters.max()) + 1,
        "accuracy": accuracy.to_json(),
        "margin": found.margin(),
        "mean_reward": {"chosen": float(found.chosen.mean()), "rejected": float(found.rejected.mean())},
    }


def _headline(log: list[dict[str, float]], steps: int, pairs: int, held_out: dict[str, Any]) -> dict[str, float]:
    accuracy = held_out["accuracy"]
    metrics = {
        "loss": final_mean(log, "loss"),
        "steps": float(steps),
        "pairs": float(pairs),
        "held_out_pairs": float(held_out["pairs"]),
        "accuracy": accuracy["value"],
        "accuracy_low": accuracy["low"],
        "accuracy_high": accuracy["high"],
        "margin": held_out["margin"],
    }
    return {f"{STAGE}/{name}": value for name, value in metrics.items()}
