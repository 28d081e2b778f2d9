"""What RLHF came to, for the terminal, Prefect and MLflow."""

from typing import Any

from preflow.artifacts import Artifact
from preflow.config.base import Frozen
from preflow.console import TextConsole


class Rewarded(Frozen):
    """A reward model, and the model that was trained on its rewards."""

    recipe: str
    reward_model: Artifact
    rloo: Artifact


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def table(made: Rewarded) -> list[tuple[str, str]]:
    """Measure and value, in order."""
    judge: dict[str, Any] = made.reward_model.load("report.json")["held_out"]
    held_out: dict[str, Any] = made.rloo.load("report.json")["held_out"]
    metrics: dict[str, float] = made.rloo.load("metrics.json")
    rows = [
        ("reward model accuracy", f"{_interval(judge['accuracy'])} on {judge['pairs']} held-out pairs"),
        ("reward before, after", f"{held_out['reward_before']:.3f}, {held_out['reward']:.3f}"),
        ("reward gain", f"{_interval(held_out['reward_gain'])} on {held_out['prompts']} held-out prompts"),
        ("KL, nats per response", f"{metrics['rloo/eval_kl']:.3f}"),
        ("tokens of an answer", f"{held_out['answer_tokens']:.1f}"),
        ("answers that ended", f"{held_out['finished']:.0%}"),
        ("steps", f"{metrics['rloo/steps']:.0f}"),
    ]
    if "rloo/kept_step" in metrics:
        rows.append(("stopped", f"at step {metrics['rloo/stopped_at_step']:.0f}, kept {metrics['rloo/kept_step']:.0f}"))
    return rows


def as_markdown(made: Rewarded) -> str:
    """The table for Prefect and MLflow."""
    lines = (f"| {name} | {value} |" for name, value in table(made))
    return "\n".join(["| measure | value |", "|---|---|", *lines]) + "\n"


def print_rewarded(made: Rewarded) -> None:
    """The table for the terminal, and where the model is."""
    console = TextConsole()
    for name, value in table(made):
        console.print(f"{name:<24}{value}", markup=False)
    console.print(f"{'model':<24}{made.rloo.file('model')}", soft_wrap=True, style="bold", markup=False)
