"""What watches DPO besides: a training that goes too far, or no further up, goes back to its best weights."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from preflow import distributed
from preflow.config.training import DpoSettings
from preflow.dpo.best_weights import BestWeights
from preflow.dpo.kl_monitor import HeldOutMetrics, HeldOutMonitor
from preflow.models.loading import LanguageModel
from preflow.observer import Observer

_EXPECTED = "expected.safetensors"


class KlEarlyStopping(BestWeights):
    """Measures the KL from the reference every few steps, keeps the best weights, stops a training beyond the limit.

    A measurement within the KL limit becomes the best where its reward margin exceeds that of the best so far by more
    than its standard error: of ten measurements on few pairs the luckiest would be no better than the others. The start
    of training, which is the reference itself, is the first.
    """

    stage = "dpo"
    remedy = "lower the learning rate, raise beta"

    def __init__(self, model: LanguageModel, scratch: Path, settings: DpoSettings, observer: Observer) -> None:
        """Watch ``model``, with the best weights kept under ``scratch``."""
        super().__init__(model, scratch, settings, observer)
        self.held_out: HeldOutMonitor | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the start, which is the reference: what it expects, and its weights, which later ones have to beat."""
        if self.held_out is None:
            return
        if state.global_step > 0:
            self.held_out.load_snapshot(self.scratch / _EXPECTED)
            if state.is_world_process_zero:
                self._forget_after(state.global_step)
            return
        self.held_out.snapshot_reference()
        if state.is_world_process_zero:
            self.scratch.mkdir(parents=True, exist_ok=True)
            self._forget_after(-1)
            self.held_out.save(self.scratch / _EXPECTED)
        state.log_history.append({"step": 0, **_entries(HeldOutMetrics(0.0, 0.0, 0.0, 0.0, 0.0))})
        self._keep(0, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure, keep the best, stop."""
        due = self.settings.eval_steps and state.global_step % self.settings.eval_steps == 0
        if self.held_out is None or not (due or state.global_step == state.max_steps):
            return
        metrics: HeldOutMetrics = distributed.broadcast_from_rank0(self.held_out.measure())
        before = self._best(state)
        state.log_history.append({"step": state.global_step, **_entries(metrics)})
        self.observer.metrics({f"dpo/{k}": v for k, v in _entries(metrics).items()}, state.global_step)
        self.steps, self.reason = state.global_step, self._why_stop(state, metrics.kl)
        if self.reason is not None:
            control.should_training_stop = True
        elif self._best(state) != before:
            self._keep(state.global_step, state)

    def finish(self, state: TrainerState) -> dict[str, float]:
        """After training: where it was stopped, go back to the best weights and report it, and the last measurement."""
        last: dict[str, float] = next((e for e in reversed(state.log_history) if "eval_kl" in e), {})
        report = {f"dpo/{name}": value for name, value in last.items() if name != "step" and math.isfinite(value)}
        return {**report, **super().finish(state)}

    def _why_stop(self, state: TrainerState, kl: float) -> str | None:
        if (too_far := super()._why_stop(state, kl)) is not None:
            return too_far
        patience = self.settings.early_stop_patience
        since = [e["step"] for e in state.log_history if "eval_kl" in e and e["step"] > self._best(state)]
        if patience and len(since) >= patience:
            return (
                f"the reward margin rose by no more than its standard error in {len(since)} measurements "
                "(dpo.early_stop_patience)"
            )
        return None

    def _best(self, state: TrainerState) -> int:
        """The step of the best measurement, decided one after the other, so that only its weights need to be kept."""
        step, margin = 0, 0.0
        for entry in state.log_history:
            within = entry.get("eval_kl", math.inf) <= self.settings.kl_limit
            if within and entry["eval_reward_margin"] - entry["eval_reward_margin_se"] > margin:
                step, margin = int(entry["step"]), entry["eval_reward_margin"]
        return step


def _entries(metrics: HeldOutMetrics) -> dict[str, float]:
    return {f"eval_{name}": value for name, value in asdict(metrics).items()}
