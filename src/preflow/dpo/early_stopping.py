"""What watches DPO besides: a training that goes too far, or no further up, goes back to its best weights."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from preflow import distributed
from preflow.config.training import DpoSettings
from preflow.dpo.kl_monitor import HeldOutMetrics, HeldOutMonitor
from preflow.models.loading import LanguageModel
from preflow.models.sharding import put_back, trained_weights
from preflow.observer import Observer

_EXPECTED = "expected.safetensors"


class KlEarlyStopping(TrainerCallback):
    """Measures the KL from the reference every few steps, keeps the best weights, stops a training beyond the limit.

    A measurement within the KL limit becomes the best where its reward margin exceeds that of the best so far by more
    than its standard error: of ten measurements on few pairs the luckiest would be no better than the others. The start
    of training, which is the reference itself, is the first. Measurements stand in the trainer's log, which checkpoints
    carry, so a resumed training decides as an uninterrupted one.
    """

    def __init__(self, model: LanguageModel, scratch: Path, settings: DpoSettings, observer: Observer) -> None:
        """Watch ``model``, with the best weights kept under ``scratch``."""
        self.model, self.scratch, self.settings, self.observer = model, scratch, settings, observer
        self.held_out: HeldOutMonitor | None = None
        self.reason: str | None = None
        self.steps = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the start, which is the reference: what it expects, and its weights, which later ones have to beat."""
        if self.held_out is None:
            return
        if state.global_step > 0:
            self.held_out.load_snapshot(self.scratch / _EXPECTED)
            if state.is_world_process_zero:  # those after the checkpoint are of a try whose log is gone
                for late in (path for step, path in self._kept().items() if step > state.global_step):
                    late.unlink()
            return
        self.held_out.snapshot_reference()
        if state.is_world_process_zero:
            self.scratch.mkdir(parents=True, exist_ok=True)
            for abandoned in self._kept().values():  # of a try that was killed before its first checkpoint
                abandoned.unlink()
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

    def stopped_before(self, checkpoint: str | None) -> TrainerState | None:
        """Where a training ended that was stopped and then killed before it could go back to its best weights.

        Args:
            checkpoint: The newest whole one, if there is any.

        Returns:
            The state in which it was stopped; none where training has to go on.
        """
        if checkpoint is None:
            return None
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        last = next((e for e in reversed(state.log_history) if "eval_kl" in e), None)
        if last is None or last["step"] != state.global_step:
            return None
        self.steps, self.reason = state.global_step, self._why_stop(state, last["eval_kl"])
        return None if self.reason is None else state

    def finish(self, state: TrainerState) -> dict[str, float]:
        """After training: where it was stopped, go back to the best weights and report it.

        Returns:
            What to report: the last measurement, and where training stopped and which step's weights are kept.
        """
        last: dict[str, float] = next((e for e in reversed(state.log_history) if "eval_kl" in e), {})
        report = {f"dpo/{name}": value for name, value in last.items() if name != "step" and math.isfinite(value)}
        if self.reason is None:
            return report
        step = self._best(state)
        put_back(self.model, self._file(step))
        self.observer.note(
            f"dpo: stopped at step {self.steps}: {self.reason}. The weights of step {step} are kept"
            + (", which are the reference's: nothing was learnt within the limit" if step == 0 else "")
        )
        return {**report, "dpo/stopped_at_step": float(self.steps), "dpo/kept_step": float(step)}

    def _why_stop(self, state: TrainerState, kl: float) -> str | None:
        limit, patience = self.settings.kl_limit, self.settings.early_stop_patience
        if not math.isfinite(kl):
            return "the KL from the reference on held-out responses is no number any more; lower the learning rate"
        if kl > limit:
            return (
                f"the KL from the reference on held-out responses is at least {kl:.2f} nats per response, above "
                f"dpo.kl_limit {limit:g}; lower the learning rate, raise beta, or raise the limit"
            )
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

    def _file(self, step: int) -> Path:
        return self.scratch / f"best-{step}.safetensors"

    def _keep(self, step: int, state: TrainerState) -> None:
        weights = trained_weights(self.model)  # in every process: each may hold a part
        if not state.is_world_process_zero:
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        kept = list(self._kept().values())
        partial = self.scratch / "best.partial"
        save_file(weights, partial)
        partial.rename(self._file(step))
        for old in unneeded_weights(self.scratch, kept):
            old.unlink()

    def _kept(self) -> dict[int, Path]:
        """Weights that are stored there, by step."""
        return {int(path.stem.partition("-")[2]): path for path in self.scratch.glob("best-*.safetensors")}


def unneeded_weights(scratch: Path, kept: Sequence[Path]) -> list[Path]:
    """Weights to which no kill can send training back: neither the start, nor the best of a checkpoint's time.

    Args:
        scratch: Where the checkpoints are.
        kept: Weights of the best so far, each named ``best-STEP.safetensors``.
    """
    steps = {int(path.stem.partition("-")[2]): path for path in kept}
    checkpoints = [int(path.name.partition("-")[2]) for path in scratch.glob("checkpoint-*")]
    needed = {max(step for step in steps if step <= end) for end in (0, *checkpoints, max(steps, default=0)) if steps}
    return [path for step, path in steps.items() if step not in needed]


def _entries(metrics: HeldOutMetrics) -> dict[str, float]:
    return {f"eval_{name}": value for name, value in asdict(metrics).items()}
