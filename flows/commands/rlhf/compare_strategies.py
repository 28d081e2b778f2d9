"""``preflow compare-strategies RECIPE``: DPO and RLHF from one start, on the same held-out pairs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.running.terminal import pipeline_command

if TYPE_CHECKING:
    from flows.strategies.side_by_side import Strategies


def _flow() -> "Callable[..., Strategies]":
    from flows.compare_strategies import compare_strategies

    return compare_strategies


def _show(made: "Strategies") -> None:
    from flows.strategies.side_by_side import print_strategies

    print_strategies(made)


main = pipeline_command(_flow, _show)
main.__doc__ = "Align one model by DPO and by RLHF, and compare both on the same held-out pairs."
