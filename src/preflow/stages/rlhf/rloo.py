"""Reinforcement learning from a reward model, after the start-up checks of policy and reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from preflow.artifacts import SCRATCH, Artifact, write_json
from preflow.config import Recipe
from preflow.config.training import DpoSettings
from preflow.data.rows import first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import prompt_with_room
from preflow.data.validated import Split, load_pairs, selection_split
from preflow.dpo.kl_monitor import HeldOutMonitor
from preflow.dpo.start import load_start, prove_reference
from preflow.dpo.start_checks import independent_logprobs, sample
from preflow.errors import DataUnfitError, UnfitRewardModelError
from preflow.logprobs.scored_pairs import ScoredPair, read_pairs
from preflow.maths.clusters import Rows, cluster_numbers
from preflow.maths.intervals import bootstrap_mean
from preflow.maths.spread import evenly_spaced
from preflow.models.adapters import describe, save_model, write_card
from preflow.models.loading import LanguageModel, load_tokenizer
from preflow.models.precision import Precision, choose_precision
from preflow.models.scoring import PromptResponse, response_logits
from preflow.observer import Observer
from preflow.rlhf.answer_rewards import AnswerRewards, Sampled, sample_rewards
from preflow.rlhf.reward_stopping import RewardStopping
from preflow.rlhf.rloo_checks import drop_copy, prove_start
from preflow.rlhf.rloo_trainer import STAGE, RlooTask, TokenRlooTrainer, make_rloo_trainer
from preflow.sampling.decode import Decoding
from preflow.specs import DpoSpec, RlooSpec
from preflow.training.checkpoints import resume_point
from preflow.training.loop import clean_log, final_mean, run_training

#: What a coin agrees with.
_CHANCE = 0.5


def require_fit(reward_model: Artifact) -> None:
    """Check that a reward model tells held-out pairs apart.

    Raises:
        UnfitRewardModelError: The lower bound of its accuracy is that of a coin, or less.
    """
    held_out = reward_model.load("report.json")["held_out"]
    accuracy = held_out["accuracy"]
    if not accuracy["low"] > _CHANCE:
        raise UnfitRewardModelError(
            f"the reward model agrees with {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}] of "
            f"{held_out['pairs']} held-out pairs, expected a lower bound above {_CHANCE}: RLOO would learn noise. "
            "Train it longer (reward_model.num_train_epochs, learning_rate), or hold out more pairs (dpo.eval_split)"
        )


def run_rloo(spec: RlooSpec, out: Path, observer: Observer) -> None:
    """Check policy and reference, then train with TRL's RLOOTrainer and write the model into ``out``.

    Writes ``model/``, ``training.json``, ``report.json`` (the start-up checks; prompts, those without room, and those
    that each pass leaves out because they fill no step; rewards on held-out prompts before and after, with the interval
    of their difference) and ``metrics.json``. Resumes from the last complete checkpoint under ``out``.

    Raises:
        UnfitRewardModelError: The reward model is no better than chance.
        ProofError: Policy or reference are not what they should be; its subclass names the cause.
        DataUnfitError: No prompt leaves room for an answer, or fewer do than one step takes.
        NonFiniteLossError: Loss, gradients, weights or logits are NaN or infinite.
    """
    require_fit(spec.reward_model)
    recipe = spec.recipe
    assert recipe.dpo is not None, "run_rloo needs a recipe with a DPO section"
    settings, precision = recipe.rloo.applied_to(recipe.dpo), choose_precision(recipe)
    start = DpoSpec(**{name: getattr(spec, name) for name in ("recipe", "base", "data", "reference", "sft")})
    pairs = read_pairs(spec.reference.file("train.parquet"))
    tokenizer = load_tokenizer(spec.base, recipe)
    renderer = Renderer(tokenizer, recipe.rendering)
    prompts, no_room = _prompts(spec, renderer, settings)
    unfilled = _left_out_per_pass(len(prompts), settings, recipe.rloo.num_generations)
    evidence, _ = prove_reference(start, settings, pairs, precision)
    reward_of = AnswerRewards(
        spec.reward_model.file("model"),
        renderer.end_ids,
        recipe.rloo.missing_eos_penalty,
        settings.per_device_train_batch_size,
        precision,
    )
    observer.note(
        f"{STAGE}: {len(prompts)} prompts, {no_room} left out without room for an answer; each pass leaves out "
        f"{unfilled} that fill no step"
    )
    task = RlooTask(prompts, renderer.end_ids, reward_of, tokenizer)
    policy = load_start(start, settings, precision)
    trainer = make_rloo_trainer(recipe, settings, policy, task, precision, out, observer)
    evidence |= prove_start(trainer, sample(pairs, settings.proof_sample), precision, spec.reference)
    size = describe(trainer.model)
    stopping, clusters = _watch(spec, trainer, renderer, reward_of, settings, precision, out, observer)
    ended = stopping.stopped_before(resume_point(out / SCRATCH))
    log = clean_log(ended.log_history) if ended is not None else run_training(trainer, out)
    state = ended or trainer.state
    stopped, after = stopping.finish(state), stopping.sampled()
    drop_copy(trainer.model)
    save_model(trainer.model, tokenizer, spec.base, renderer.end_ids, out / "model")
    write_card(out / "model", spec.base, STAGE)
    held_out = _held_out(recipe, stopping.before, after, clusters)
    rows = {"prompts": len(prompts), "no_room": no_room, "left_out_per_pass": unfilled}
    write_json(out / "training.json", log)
    write_json(out / "report.json", {"proof": evidence, "model": size, "rows": rows, "held_out": held_out})
    proof = {f"{STAGE}/proof_{name}": value for name, value in evidence.items()}
    headline = _headline(log, state.global_step, len(prompts), held_out)
    write_json(out / "metrics.json", {**headline, **proof, **stopped})


def _held_out(recipe: Recipe, before: Sequence[float], after: Sampled, clusters: Rows) -> dict[str, Any]:
    """What answers to held-out prompts are worth before training and after it."""
    settings = recipe.evaluation
    gain = bootstrap_mean(
        after.rewards - np.array(before), settings.confidence, settings.bootstrap_samples, recipe.seed, clusters
    )
    return {
        "prompts": len(clusters),
        "reward_before": float(np.mean(before)),
        **after.measures(),
        "reward_gain": gain.to_json(),
    }


def _prompts(spec: RlooSpec, renderer: Renderer, settings: DpoSettings) -> tuple[list[list[int]], int]:
    """Token ids of the distinct prompts of the training pairs, and how many leave no room for an answer."""
    room = spec.recipe.rloo.max_completion_length
    found: dict[tuple[int, ...], None] = {}
    left_out: set[tuple[int, ...]] = set()
    for pair in load_pairs(spec.data, "train"):
        ids = tuple(prompt_with_room(pair.prompt, renderer, settings.max_seq_length, room))
        if len(ids) + room > settings.max_seq_length:
            left_out.add(ids)
        else:
            found[ids] = None
    if not found:
        raise DataUnfitError(
            f"{STAGE}: no prompt leaves room for rloo.max_completion_length {room} tokens within dpo.max_seq_length "
            f"{settings.max_seq_length}: raise the one or lower the other"
        )
    return [list(ids) for ids in found], len(left_out)


def _left_out_per_pass(prompts: int, settings: DpoSettings, answers: int) -> int:
    """How many prompts each pass leaves out: TRL takes steps that are full alone, from prompts in a new order.

    Args:
        prompts: How many there are.
        settings: Of the training.
        answers: To each prompt.

    Raises:
        DataUnfitError: They fill no step.
    """
    batch, batches = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    step = batch * batches // answers
    if prompts < step:
        raise DataUnfitError(
            f"{STAGE}: there are {prompts} prompts, and a step takes {step} (rloo.per_device_train_batch_size {batch} "
            f"times rloo.gradient_accumulation_steps {batches} answers, rloo.num_generations {answers} to a prompt): "
            f"no step would be taken. Lower rloo.per_device_train_batch_size or rloo.gradient_accumulation_steps"
        )
    return prompts % step


def _watch(
    spec: RlooSpec,
    trainer: TokenRlooTrainer,
    renderer: Renderer,
    reward_of: AnswerRewards,
    settings: DpoSettings,
    precision: Precision,
    out: Path,
    observer: Observer,
) -> tuple[RewardStopping, Rows]:
    """What measures the policy on held-out pairs and prompts, added to the trainer; the prompts' clusters.

    Validation pairs, where there are any, so that the test pairs choose nothing.
    """
    recipe, rloo = spec.recipe, spec.recipe.rloo
    split = selection_split(spec.data, "preferences")
    held_out = sample(read_pairs(spec.reference.file(f"{split}.parquet")), settings.eval_pairs or 1)
    policy: LanguageModel = trainer.model
    monitor = HeldOutMonitor(
        held_out,
        lambda chunk: _token_scores(policy, chunk, precision),
        lambda row: _logits(policy, row, precision),
        settings.beta,
        settings.eval_batch_size,
    )
    asked = _held_out_prompts(spec, renderer, settings, split)
    decoding = Decoding(rloo.temperature, 1.0, rloo.max_completion_length, renderer.end_ids, recipe.seed)

    def sampled() -> Sampled:
        batch = settings.per_device_train_batch_size
        return sample_rewards(policy, [ids for ids, _ in asked], reward_of, decoding, batch, precision)

    stopping = RewardStopping(policy, out / SCRATCH, settings, monitor, sampled, observer)
    trainer.add_callback(stopping)
    return stopping, cluster_numbers(key for _, key in asked)


def _held_out_prompts(
    spec: RlooSpec, renderer: Renderer, settings: DpoSettings, split: Split
) -> Sequence[tuple[list[int], str]]:
    """Token ids of held-out prompts that leave room for an answer, each with its cluster."""
    room = spec.recipe.rloo.max_completion_length
    found: dict[tuple[int, ...], str] = {}
    for pair in load_pairs(spec.data, split):
        ids = tuple(prompt_with_room(pair.prompt, renderer, settings.max_seq_length, room))
        if len(ids) + room <= settings.max_seq_length:
            found[ids] = cluster_key(first_user_turn(pair.prompt))
    if not found:
        raise DataUnfitError(
            f"{STAGE}: no held-out prompt leaves room for rloo.max_completion_length {room} tokens within "
            f"dpo.max_seq_length {settings.max_seq_length}: raise the one or lower the other"
        )
    return evenly_spaced([(list(ids), key) for ids, key in found.items()], spec.recipe.rloo.eval_prompts)


def _token_scores(policy: LanguageModel, pairs: Sequence[ScoredPair], precision: Precision) -> Tensor:
    """As ``HeldOutMonitor`` asks for them, by the independent forward: shape ``(2B, T - 1)``, chosen first."""
    training = policy.training
    policy.eval()
    rows = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    values = torch.zeros(len(rows), max(len(prompt) + len(response) for prompt, response in rows) - 1)
    for place, (prompt, response) in enumerate(rows):
        first = len(prompt) - 1
        values[place, first : first + len(response)] = independent_logprobs(policy, (prompt, response), precision)
    policy.train(training)
    return values


def _logits(policy: LanguageModel, row: PromptResponse, precision: Precision) -> Tensor:
    training = policy.training
    policy.eval()
    with torch.no_grad():
        values = response_logits(policy, row, precision)
    policy.train(training)
    return values


def _headline(log: list[dict[str, float]], steps: int, prompts: int, held_out: dict[str, Any]) -> dict[str, float]:
    last = next(each for each in reversed(log) if "eval_kl" in each)
    gain = held_out["reward_gain"]
    measured = {
        "loss": final_mean(log, "loss"),
        "train_reward": final_mean(log, "reward"),
        "steps": float(steps),
        "prompts": float(prompts),
        **{name: value for name, value in last.items() if name != "step"},
        **{name: held_out[name] for name in ("reward_before", "reward", "answer_tokens", "finished")},
        "reward_gain": gain["value"],
        "reward_gain_low": gain["low"],
        "reward_gain_high": gain["high"],
    }
    return {f"{STAGE}/{name}": value for name, value in measured.items()}
