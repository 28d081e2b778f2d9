"""Watches RLOO on held-out prompts and pairs: stops beyond the KL limit, and goes back to the best weights."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from transformers import TrainerControl, TrainerState, TrainingArguments

from preflow.artifacts import write_json
from preflow.config.training import DpoSettings
from preflow.dpo.best_weights import BestWeights
from preflow.dpo.kl_monitor import HeldOutMetrics, HeldOutMonitor
from preflow.models.loading import LanguageModel
from preflow.observer import Observer
from preflow.rlhf.answer_rewards import Sampled
from preflow.rlhf.rloo_trainer import STAGE

_EXPECTED, _BEFORE = "expected.safetensors", "before.json"


class RewardStopping(BestWeights):
    """Measures KL and rewards every few steps, keeps the best weights, stops a training beyond the KL limit.

    The best are those of the highest mean reward on held-out prompts within the limit; the start, which is the
    reference, is the first.
    """

    stage = STAGE
    remedy = "lower rloo.learning_rate, raise rloo.beta"

    def __init__(
        self,
        model: LanguageModel,
        scratch: Path,
        settings: DpoSettings,
        held_out: HeldOutMonitor,
        sampled: Callable[[], Sampled],
        observer: Observer,
    ) -> None:
        """Watch ``model``, with the best weights kept under ``scratch``."""
        super().__init__(model, scratch, settings, observer)
        self.held_out, self.sampled = held_out, sampled
        self.before: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Keep the start: what the reference expects, its rewards, and its weights, which later ones have to beat."""
        if state.global_step > 0:
            self._read_start()
            self._forget_after(state.global_step)
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._forget_after(-1)
        self.held_out.snapshot_reference()
        self.held_out.save(self.scratch / _EXPECTED)
        start = self.sampled()
        self.before = start.rewards.tolist()
        write_json(self.scratch / _BEFORE, self.before)
        state.log_history.append({"step": 0, **_entries(HeldOutMetrics(0.0, 0.0, 0.0, 0.0, 0.0), start)})
        self._keep(0, state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Measure, keep the best, stop."""
        due = self.settings.eval_steps and state.global_step % self.settings.eval_steps == 0
        if not (due or state.global_step == state.max_steps):
            return
        entries, before = _entries(self.held_out.measure(), self.sampled()), self._best(state)
        state.log_history.append({"step": state.global_step, **entries})
        self.observer.metrics({f"{STAGE}/{name}": value for name, value in entries.items()}, state.global_step)
        self.steps, self.reason = state.global_step, self._why_stop(state, entries["eval_kl"])
        if self.reason is not None:
            control.should_training_stop = True
        elif self._best(state) != before:
            self._keep(state.global_step, state)

    def stopped_before(self, checkpoint: str | None) -> TrainerState | None:
        """As of every training; what was measured at the start is read again."""
        state = super().stopped_before(checkpoint)
        if state is not None:
            self._read_start()
        return state

    def _read_start(self) -> None:
        self.held_out.load_snapshot(self.scratch / _EXPECTED)
        self.before = json.loads((self.scratch / _BEFORE).read_text(encoding="utf-8"))

    def _best(self, state: TrainerState) -> int:
        """The step of the highest mean reward within the limit; of equal ones the first."""
        within = [each for each in state.log_history if each.get("eval_kl", math.inf) <= self.settings.kl_limit]
        return int(max(within, key=lambda each: (each["eval_reward"], -each["step"]))["step"])


def _entries(held_out: HeldOutMetrics, sampled: Sampled) -> dict[str, float]:
    measured = {**asdict(held_out), **sampled.measures()}
    return {f"eval_{name}": value for name, value in measured.items()}
