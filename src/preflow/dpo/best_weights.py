"""The best weights of a watched training: kept while it runs, gone back to where it is stopped, found after a kill."""

import math
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from preflow.config.training import DpoSettings
from preflow.models.loading import LanguageModel
from preflow.models.sharding import put_back, trained_weights
from preflow.observer import Observer


class BestWeights(TrainerCallback):
    """Keeps the best weights of a training, and puts them back where it was stopped.

    Measurements stand in the trainer's log, which checkpoints carry, so a resumed training decides as an uninterrupted
    one. Each has ``eval_kl``, the KL from the reference.

    Attributes:
        reason: Why training was stopped; none where it was not.
        steps: The step of the last measurement.
    """

    #: The stage, as messages and metrics name it.
    stage: str
    #: What to change where the KL is above the limit.
    remedy: str

    def __init__(self, model: LanguageModel, scratch: Path, settings: DpoSettings, observer: Observer) -> None:
        """Watch ``model``, with the best weights kept under ``scratch``."""
        self.model, self.scratch, self.settings, self.observer = model, scratch, settings, observer
        self.reason: str | None = None
        self.steps = 0

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
        last = next((entry for entry in reversed(state.log_history) if "eval_kl" in entry), None)
        if last is None or last["step"] != state.global_step:
            return None
        self.steps, self.reason = state.global_step, self._why_stop(state, last["eval_kl"])
        return None if self.reason is None else state

    def finish(self, state: TrainerState) -> dict[str, float]:
        """After training: where it was stopped, go back to the best weights.

        Returns:
            What to report: where training stopped and which step's weights are kept; nothing where it ran to its end.
        """
        if self.reason is None:
            return {}
        step = self._best(state)
        put_back(self.model, self._file(step))
        self.observer.note(
            f"{self.stage}: stopped at step {self.steps}: {self.reason}. The weights of step {step} are kept"
            + (", which are the reference's: nothing was learnt within the limit" if step == 0 else "")
        )
        return {f"{self.stage}/stopped_at_step": float(self.steps), f"{self.stage}/kept_step": float(step)}

    def _best(self, state: TrainerState) -> int:
        """The step of the best measurement within the limit; 0, the start, where there is none."""
        raise NotImplementedError

    def _why_stop(self, state: TrainerState, kl: float) -> str | None:
        """Why a training with this KL ends now; none where it goes on."""
        if not math.isfinite(kl):
            return "the KL from the reference on held-out responses is no number any more; lower the learning rate"
        if kl > self.settings.kl_limit:
            return (
                f"the KL from the reference on held-out responses is at least {kl:.2f} nats per response, above "
                f"dpo.kl_limit {self.settings.kl_limit:g}; {self.remedy}, or raise the limit"
            )
        return None

    def _file(self, step: int) -> Path:
        return self.scratch / f"best-{step}.safetensors"

    def _keep(self, step: int, state: TrainerState) -> None:
        """Write the weights of a step, and remove those to which no kill can send training back."""
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

    def _forget_after(self, step: int) -> None:
        """Remove the weights of later steps: they are of a try whose log is gone. All, where ``step`` is -1."""
        for late in (path for kept, path in self._kept().items() if kept > step):
            late.unlink()

    def _kept(self) -> dict[int, Path]:
        """Weights that are stored, by step."""
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
