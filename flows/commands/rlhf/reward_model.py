"""``preflow reward-model RECIPE``: a reward model of the recipe's pairs, which judges answers too."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.running.terminal import pipeline_command

if TYPE_CHECKING:
    from preflow.artifacts import Artifact


def _train() -> "Callable[..., Artifact]":
    from flows.reward_model import train_reward_model

    return train_reward_model


def _show(made: "Artifact") -> None:
    from preflow.console import TextConsole

    console, held_out = TextConsole(), made.load("report.json")["held_out"]
    accuracy = held_out["accuracy"]
    of = f"{held_out['pairs']} held-out pairs ({held_out['split']}) of {held_out['prompts']} prompts"
    interval = f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
    console.print(f"accuracy    {interval} on {of}", markup=False)
    console.print(f"margin      {held_out['margin']:.3f}", markup=False)
    if accuracy["low"] <= 0.5:
        console.print("            no better than chance: it is not fit to judge or to train with", markup=False)
    judge = f"{{kind: classifier, model: {made.file('model')}}}"
    console.print(f"evaluation.judge: {judge}", style="bold", soft_wrap=True, markup=False)


main = pipeline_command(_train, _show)
main.__doc__ = "Train a reward model on a recipe's pairs, and test it on held-out ones."
