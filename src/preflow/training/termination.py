"""An order to end (SIGTERM) while a trainer runs: it is obeyed after a checkpoint, not in the middle of a step.

transformers' own ``enable_jit_checkpoint`` is not used: it swallows the order, after which a training that had to
end looks like one that ran to its end; it waits three seconds before it looks, and knows no other ranks.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from preflow import distributed
from preflow.observer import Observer

#: Seconds for the step and the checkpoint, below the 45 that a worker and the 30 that torchrun leave a process.
GRACE = 25.0


class CheckpointAtTermination(TrainerCallback):
    """Ends a training with a checkpoint after the step in which an order to end came."""

    def __init__(self, trainer: Trainer) -> None:
        """Watch the steps of ``trainer``."""
        self.device = trainer.args.device
        self.asked = False
        self.overdue = False
        self.saved: int | None = None
        self._previous: Any = signal.SIG_DFL
        self._limit = threading.Timer(GRACE, self._end_now)
        self._limit.daemon = True

    def install(self) -> None:
        """Take over orders to end."""
        self._previous = signal.signal(signal.SIGTERM, self._handle)

    def restore(self) -> None:
        """Hand them back, with the order that came meanwhile."""
        self._limit.cancel()
        signal.signal(signal.SIGTERM, self._previous)
        if self.asked and not self.overdue:
            signal.raise_signal(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Remember the order; one that could not be obeyed in time is passed on. torchrun repeats it to its ranks."""
        if self.overdue:
            self.restore()
            signal.raise_signal(signal.SIGTERM)
        elif not self.asked:
            self.asked = True
            self._limit.start()

    def _end_now(self) -> None:
        self.overdue = True
        os.kill(os.getpid(), signal.SIGTERM)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop, after a step that is logged: a checkpoint forgets what was not."""
        due = distributed.any_rank(self.asked, self.device)
        if due and (control.should_log or state.global_step == state.max_steps):
            control.should_save = control.should_training_stop = True
            self.asked, self.saved = True, state.global_step


@contextmanager
def checkpoint_at_termination(trainer: Trainer, stage: str, observer: Observer | None) -> Iterator[None]:
    """A block in which an order to end a trainer is obeyed after a checkpoint of the step that it does.

    The order then takes the way that it would have taken: Prefect's, the terminal's, or the system's. A step and a
    checkpoint that together take longer than ``GRACE`` are not waited for. Outside of the main thread, and where orders
    to end are ignored, nothing is changed.

    Args:
        trainer: Any of the trainers.
        stage: How the note names it.
        observer: Receives a note of where training goes on.
    """
    ignored = signal.getsignal(signal.SIGTERM) in (signal.SIG_IGN, None)
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    callback = CheckpointAtTermination(trainer)
    trainer.add_callback(callback)
    callback.install()
    try:
        yield
        if callback.saved is not None and observer is not None:
            observer.note(f"{stage}: told to end; it goes on from a checkpoint of step {callback.saved}")
    finally:
        trainer.remove_callback(callback)
        callback.restore()
