"""``preflow tune RECIPE``: the learning rate that fits a recipe's DPO stage, by a short range test."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.running.terminal import pipeline_command

if TYPE_CHECKING:
    from preflow.artifacts import Artifact


def _tune() -> "Callable[..., Artifact]":
    from flows.tune import tune_rate

    return tune_rate


def _show(choice: "Artifact") -> None:
    from preflow.console import TextConsole
    from preflow.diagnosis.other_stages import rate_sentence

    console, found = TextConsole(), choice.load("choice.json")
    console.print(rate_sentence(found), markup=False)
    console.print(f"picture     {choice.file('figures')}/range_test.png", soft_wrap=True, markup=False)
    console.print(f"dpo.learning_rate: {found['learning_rate']:g}", style="bold", markup=False)


main = pipeline_command(_tune, _show)
main.__doc__ = "Choose the learning rate of a recipe's DPO stage by a short range test on its training pairs."
