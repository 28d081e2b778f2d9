"""Watches RLOO on held-out prompts and pairs: stops beyond the KL limit, and goes back to the best weights."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from preflow.artifacts import write_json
from preflow.config.training import DpoSettings
from preflow.dpo.early_stopping import unneeded_weights
from preflow.dpo.kl_monitor import HeldOutMetrics, HeldOutMonitor
from preflow.models.loading import LanguageModel
from preflow.models.sharding import put_back, trained_weights
from preflow.observer import Observer
from preflow.rlhf.answer_rewards import Sampled
from preflow.rlhf.rloo_trainer import STAGE

_EXPECTED, _BEFORE = "expected.safetensors", "before.json"


class RewardStopping(TrainerCallback):
    """Measures KL and rewards every few steps, keeps the best weights, stops a training beyond the KL limit.

    The best are those of the highest mean reward on held-out prompts within the limit; the start, which is the
    reference, is the first. Measurements stand in the trainer's log, which checkpoints carry, so a resumed training
    decides as an uninterrupted one.
    """

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
        self.model, self.scratch, self.settings = model, scratch, settings
        self.held_out, self.sampled, self.observer = held_out, sampled, observer
        self.before: list[float] = []
        self.reason: str | None = None
        self.steps = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Keep the start: what the reference expects, its rewards, and its weights, which later ones have to beat."""
        if state.global_step > 0:
            self._read_start()
            for late in (path for step, path in self._kept().items() if step > state.global_step):
                late.unlink()
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        for abandoned in self._kept().values():  # of a try that was killed before its first checkpoint
            abandoned.unlink()
        self.held_out.snapshot_reference()
        self.held_out.save(self.scratch / _EXPECTED)
        start = self.sampled()
        self.before = start.rewards.tolist()
        write_json(self.scratch / _BEFORE, self.before)
        state.log_history.append({"step": 0, **_entries(HeldOutMetrics(0.0, 0.0, 0.0, 0.0, 0.0), start)})
        self._keep(0)

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
        self.steps, self.reason = state.global_step, self._why_stop(entries["eval_kl"])
        if self.reason is not None:
            control.should_training_stop = True
        elif self._best(state) != before:
            self._keep(state.global_step)

    def stopped_before(self, checkpoint: str | None) -> TrainerState | None:
        """Where a training ended that was stopped and then killed before it could go back to its best weights.

        Args:
            checkpoint: The newest whole one, if there is any.

        Returns:
            The state in which it was stopped; none where training has to go on.
        """
        if checkpoint is None:
            return None
        state: TrainerState = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        last = next((each for each in reversed(state.log_history) if "eval_kl" in each), None)
        if last is None or last["step"] != state.global_step:
            return None
        self.steps, self.reason = state.global_step, self._why_stop(last["eval_kl"])
        if self.reason is None:
            return None
        self._read_start()
        return state

    def finish(self, state: TrainerState) -> dict[str, float]:
        """After training: where it was stopped, go back to the best weights and report it."""
        if self.reason is None:
            return {}
        step = self._best(state)
        put_back(self.model, self._file(step))
        self.observer.note(
            f"{STAGE}: stopped at step {self.steps}: {self.reason}. The weights of step {step} are kept"
            + (", which are the reference's: nothing was learnt within the limit" if step == 0 else "")
        )
        return {f"{STAGE}/stopped_at_step": float(self.steps), f"{STAGE}/kept_step": float(step)}

    def _read_start(self) -> None:
        self.held_out.load_snapshot(self.scratch / _EXPECTED)
        self.before = json.loads((self.scratch / _BEFORE).read_text(encoding="utf-8"))

    def _why_stop(self, kl: float) -> str | None:
        limit = self.settings.kl_limit
        if not math.isfinite(kl):
            return "the KL from the reference on held-out responses is no number any more; lower the learning rate"
        if kl > limit:
            return (
                f"the KL from the reference on held-out responses is at least {kl:.2f} nats per response, above "
                f"dpo.kl_limit {limit:g}; lower rloo.learning_rate, raise rloo.beta, or raise the limit"
            )
        return None

    def _best(self, state: TrainerState) -> int:
        """The step of the highest mean reward within the limit; of equal ones the first."""
        within = [each for each in state.log_history if each.get("eval_kl", math.inf) <= self.settings.kl_limit]
        return int(max(within, key=lambda each: (each["eval_reward"], -each["step"]))["step"])

    def _file(self, step: int) -> Path:
        return self.scratch / f"best-{step}.safetensors"

    def _keep(self, step: int) -> None:
        """Write the weights of a step; those of the start and of every checkpoint's time stay beside them."""
        kept = list(self._kept().values())
        partial = self.scratch / "best.partial"
        save_file(trained_weights(self.model), partial)
        partial.rename(self._file(step))
        for old in unneeded_weights(self.scratch, kept):
            old.unlink()

    def _kept(self) -> dict[int, Path]:
        return {int(path.stem.partition("-")[2]): path for path in self.scratch.glob("best-*.safetensors")}


def _entries(held_out: HeldOutMetrics, sampled: Sampled) -> dict[str, float]:
    measured = {**asdict(held_out), **sampled.measures()}
    return {f"eval_{name}": value for name, value in measured.items()}
