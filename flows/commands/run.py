"""``preflow run RECIPE``: the whole pipeline; what was computed before is not computed again."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.running.terminal import pipeline_command

if TYPE_CHECKING:
    from flows.running.preparation import RunResult


def _two_stage() -> "Callable[..., RunResult]":
    from flows.two_stage import two_stage

    return two_stage


main = pipeline_command(_two_stage)
