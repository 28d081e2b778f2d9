"""How a stage tells the outside what it is doing, without knowing who listens."""

from collections.abc import Mapping
from typing import Protocol


class UserText(str):
    """A text for people that a function gives to another: why something is not done, or how often it was.

    Its wording is in no stage's identity, so code may ask whether there is one, and must not read it.
    """

    __slots__ = ()


class Observer(Protocol):
    """Receives progress, training metrics and notes of one stage."""

    def progress(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` units of ``what`` are finished; called often, so it must be cheap."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Metrics measured at optimizer step ``step``."""

    def note(self, message: str) -> None:
        """Something a person should read: a warning, an advice, a count of quarantined rows."""


class Silent:
    """An observer that listens to nothing."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Ignore."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Ignore."""

    def note(self, message: str) -> None:
        """Ignore."""
