"""``preflow rlhf RECIPE``: SFT, a reward model of the pairs, and RLOO on its rewards."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.running.terminal import pipeline_command

if TYPE_CHECKING:
    from flows.strategies.rewarded import Rewarded


def _rlhf() -> "Callable[..., Rewarded]":
    from flows.rlhf import rlhf

    return rlhf


def _show(made: "Rewarded") -> None:
    from flows.strategies.rewarded import print_rewarded

    print_rewarded(made)


main = pipeline_command(_rlhf, _show)
main.__doc__ = "Train a recipe's model by RLOO on the rewards of a reward model of its pairs."
