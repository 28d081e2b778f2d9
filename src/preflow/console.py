"""The terminal: what is printed there is text, never a command to it."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from preflow.redaction import escaped


class TextConsole(Console):
    """A console that shows escape sequences in what it prints, of whatever origin, as text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed, each without control characters; colours are added behind this."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(escaped(part.text), part.style)
