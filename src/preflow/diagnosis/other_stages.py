"""What else a run shows: supervised fine-tuning that harmed, and memory beyond its estimate."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from preflow.config.training import TrainingSettings
from preflow.diagnosis.finding import RunFinding, beyond
from preflow.diagnosis.measurements import RunMeasurements, tail
from preflow.diagnosis.remedies import Change, remedy, shorter, significant

_WORSE = 1.05
_LEARNT_BY_HEART = 0.7
#: Share of the estimate from which a training took too much: on a GPU, and on a CPU, where a process may hold a quarter
#: more than was estimated between two steps (``preflow.training.callbacks.HeapWithinEstimate``).
_ABOVE_ESTIMATE, _ABOVE_ESTIMATE_OF_A_HEAP = 1.25, 1.6
_WORK = "/work_seconds"


def fine_tuning(run: RunMeasurements) -> Iterator[RunFinding]:
    """Held-out demonstrations are less likely than before SFT, or far less likely than those it was trained on."""
    sft = run.recipe.sft
    before, after = (run.evaluation["models"].get(name, {}).get("perplexity") for name in ("base", "sft"))
    if sft is None or before is None or after is None:
        return
    _, losses = replace(run, log=run.sft_log).curve("loss")
    gap = math.log(after) - tail(losses) if len(losses) else 0.0
    evidence = f"perplexity of held-out demonstrations {before:.2f} before SFT, {after:.2f} after it"
    if sft.num_train_epochs > 1 and gap > _LEARNT_BY_HEART:
        yield RunFinding(
            "sft_memorised",
            "SFT learnt its demonstrations by heart",
            f"{evidence}, {math.exp(tail(losses)):.2f} on its own in the last steps",
            remedy(run.recipe, *shorter(run.recipe, "sft", 0.5), "more demonstrations"),
            beyond(gap / _LEARNT_BY_HEART),
        )
    elif after > _WORSE * before:
        yield RunFinding(
            "sft_made_worse",
            "SFT made held-out demonstrations less likely",
            evidence,
            remedy(run.recipe, {"sft.learning_rate": significant(sft.rate / 3)}, "other demonstrations"),
            beyond(after / before / _WORSE),
        )


def memory(run: RunMeasurements) -> Iterator[RunFinding]:
    """A training took more memory than was estimated: a larger model or a longer row may not fit."""
    for stage, section in run.recipe.training_sections:
        predicted, taken = (run.metrics.get(f"{stage}/memory_{name}_gib") for name in ("predicted", "measured"))
        if not predicted or not taken:
            continue
        has_heap = run.metrics.get(f"{stage}/memory_predicted_tensors_gib", predicted) < predicted
        most = _ABOVE_ESTIMATE_OF_A_HEAP if has_heap else _ABOVE_ESTIMATE
        if taken <= most * predicted:
            continue
        yield RunFinding(
            "memory_above_estimate",
            f"{stage} took more memory than was estimated",
            f"{taken:.2f} GiB above the loaded model, {predicted:.2f} estimated",
            remedy(run.recipe, *_less_memory(stage, section), "a smaller model"),
            beyond(taken / predicted / most),
        )


def _less_memory(stage: str, section: TrainingSettings) -> Iterator[Change]:
    """Smaller micro-batches, then recomputation, then shorter rows."""
    rows, tokens = section.per_device_train_batch_size, section.max_tokens_per_batch
    if tokens is not None:
        yield {f"{stage}.max_tokens_per_batch": max(1, tokens // 2)}
    elif rows > 1:
        yield {
            f"{stage}.per_device_train_batch_size": rows // 2,
            f"{stage}.gradient_accumulation_steps": 2 * section.gradient_accumulation_steps,
        }
    yield {f"{stage}.gradient_checkpointing": True}
    yield {f"{stage}.max_seq_length": max(8, section.max_seq_length // 2)}


def resources(run: RunMeasurements) -> list[str]:
    """What each training took against its estimate, and the stage that took most, with what would shorten it."""
    lines = [rate_sentence(run.choice)] if run.choice else []
    for stage, _ in run.recipe.training_sections:
        predicted, taken = (run.metrics.get(f"{stage}/memory_{name}_gib") for name in ("predicted", "measured"))
        if predicted and taken:
            lines.append(f"{stage} took {taken:.2f} GiB above the loaded model, {predicted:.2f} were estimated")
    seconds = {name.removesuffix(_WORK): value for name, value in run.metrics.items() if name.endswith(_WORK)}
    if seconds:
        slowest = max(seconds, key=lambda stage: seconds[stage])
        share = seconds[slowest] / sum(seconds.values())
        lines.append(f"{slowest} took {share:.0%} of the time; {_shorter(run, slowest)}")
    return lines


def rate_sentence(choice: Mapping[str, Any]) -> str:
    """What a range test chose, of which rates, and what it saw of each."""
    seen = [
        f"{each['rate']:g} (margin {each['margin']:+.3f} ± {each['margin_se']:.3f}, KL {each['whole_kl']:.2g} expected)"
        if each["whole_kl"] is not None
        else f"{each['rate']:g} (training broke down)"
        for each in choice["tried"]
    ]
    return f"the range test chose the learning rate {choice['learning_rate']:g}, {choice['why']}: {', '.join(seen)}"


def _shorter(run: RunMeasurements, stage: str) -> str:
    """The setting that would shorten a stage most."""
    section = {"sft": run.recipe.sft, "dpo": run.recipe.dpo}.get(stage)
    if section is not None:
        return f"{stage}.max_seq_length ({section.max_seq_length}) and num_train_epochs change it most"
    if stage == "evaluate":
        asked = run.recipe.evaluation
        return f"evaluation.kl_prompts ({asked.kl_prompts}) and max_new_tokens ({asked.max_new_tokens}) change it most"
    return "it is computed once: later runs read it"
