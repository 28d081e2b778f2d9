"""An order to end that comes during training: obeyed after a checkpoint, passed on, never lost."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from preflow.training import termination
from preflow.training.termination import CheckpointAtTermination, checkpoint_at_termination


class Ended(BaseException):
    """What an order to end raises here, as Prefect's does."""


def _end(*_: object) -> None:
    raise Ended


class Notes:
    """Remembers the notes."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        """Remember it."""
        self.said.append(message)


class Steps:
    """What of a trainer is used here."""

    def __init__(self) -> None:
        self.args = SimpleNamespace(device="cpu")
        self.callbacks: list[CheckpointAtTermination] = []
        self.add_callback, self.remove_callback = self.callbacks.append, self.callbacks.remove

    def step(self, number: int, *, logs: bool = True) -> TrainerControl:
        """End a step."""
        control = TrainerControl(should_log=logs)
        state: Any = TrainerState(global_step=number, max_steps=9)
        for callback in self.callbacks:
            callback.on_step_end(self.args, state, control)  # type: ignore[arg-type]
        return control


@pytest.fixture
def order() -> Iterator[Callable[[], None]]:
    before = signal.signal(signal.SIGTERM, _end)
    yield lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert signal.signal(signal.SIGTERM, before) is _end, "the handler was not put back"


def train(trainer: Steps, notes: Notes, steps: Callable[[], None]) -> None:
    """Do some steps, and end as the order says."""
    given: Any = trainer, "sft", notes
    with checkpoint_at_termination(*given):
        steps()


def test_the_order_is_passed_on_after_the_checkpoint(order: Callable[[], None]) -> None:
    trainer, notes = Steps(), Notes()
    controls: list[TrainerControl] = []

    def steps() -> None:
        controls.append(trainer.step(3))
        order()
        order()  # torchrun sends it again to each rank
        controls.append(trainer.step(4, logs=False))  # a checkpoint here would forget what was not logged
        controls.append(trainer.step(5))

    with pytest.raises(Ended):
        train(trainer, notes, steps)
    assert [(c.should_save, c.should_training_stop) for c in controls] == [(False, False), (False, False), (True, True)]
    assert notes.said == ["sft: told to end; it goes on from a checkpoint of step 5"]
    assert trainer.callbacks == []


def test_an_order_survives_an_error_of_the_training(order: Callable[[], None]) -> None:
    """A retry with smaller batches would train on otherwise."""

    def steps() -> None:
        order()
        raise MemoryError

    with pytest.raises(Ended):
        train(Steps(), Notes(), steps)


def test_a_long_step_is_not_waited_for(order: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "GRACE", 0.05)
    passed: list[bool] = []

    def steps() -> None:
        order()
        threading.Event().wait(60)
        passed.append(True)

    with pytest.raises(Ended):
        train(Steps(), Notes(), steps)
    assert passed == [], "the order came after the step"


def test_without_an_order_nothing_changes(order: Callable[[], None]) -> None:
    trainer, notes = Steps(), Notes()
    controls: list[TrainerControl] = []
    train(trainer, notes, lambda: controls.append(trainer.step(1)))
    assert not controls[0].should_training_stop
    assert notes.said == []
    with pytest.raises(Ended):
        order()


def test_an_ignored_order_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        train(Steps(), Notes(), lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
