"""``preflow augment RECIPE``: new preference pairs of the model's own answers, as a judge ranks them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.running.terminal import pipeline_command

if TYPE_CHECKING:
    from flows.running.new_pairs import NewPairs


def _augment() -> "Callable[..., NewPairs]":
    from flows.augment import augment

    return augment


def _show(made: "NewPairs") -> None:
    from flows.running.new_pairs import print_new_pairs

    print_new_pairs(made)


main = pipeline_command(_augment, _show)
main.__doc__ = "Sample answers to the training prompts, let a judge rank them, and make preference pairs of them."
