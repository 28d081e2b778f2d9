"""How a stage tells the outside what it is doing, without knowing who listens."""

from collections.abc import Mapping
from typing import Protocol


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
