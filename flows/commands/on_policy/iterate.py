"""``preflow iterate RECIPE``: rounds of new pairs and alignment, each measured against the same start."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.running.terminal import pipeline_command

if TYPE_CHECKING:
    from flows.running.rounds import Rounds


def _iterate() -> "Callable[..., Rounds]":
    from flows.iterate import iterate

    return iterate


def _show(made: "Rounds") -> None:
    from flows.running.rounds import print_rounds

    print_rounds(made)


main = pipeline_command(_iterate, _show)
main.__doc__ = "Sample, judge and align in rounds, until their number, the KL limit or a fall in accuracy is reached."
