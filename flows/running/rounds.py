"""Rounds of new pairs and alignment, for people: one row per round, why they stopped, and the model that is kept."""

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preflow.artifacts import Artifact
from preflow.config.base import Frozen
from preflow.console import TextConsole
from preflow.on_policy.rounds import Round


class Rounds(Frozen):
    """What ``preflow iterate`` leaves behind."""

    recipe: str
    """The recipe's name."""
    mlflow_run_id: str
    rounds: tuple[Round, ...]
    wanted: int
    """Rounds that the recipe asks for."""
    stopped: str
    """Why there are fewer, or why the last is not kept; empty where all ran."""
    kept: int | None
    """The round whose model is kept; none where no round is better than none."""
    model: Artifact | None


def table_rows(made: Rounds) -> list[dict[str, str]]:
    """One row per round, after one for the model that the first started from."""
    first = [_row("start", {"accuracy": f"{made.rounds[0].accuracy_before:.3f}"})] if made.rounds else []
    return [*first, *(_row(str(each.number), _cells(each)) for each in made.rounds)]


_COLUMNS = {
    "accuracy": "accuracy",
    "kl": "KL",
    "length_ratio": "length",
    "pairs": "pairs",
    "length_difference": "longer by",
    "identical_share": "identical",
    "cut_share": "cut",
}


def _row(name: str, cells: dict[str, str]) -> dict[str, str]:
    return {"round": name, **{title: cells.get(key, "") for key, title in _COLUMNS.items()}}


def _cells(each: Round) -> dict[str, str]:
    return {
        "accuracy": f"{each.accuracy:.3f}",
        "kl": "" if each.kl is None else f"{each.kl:.2f}",
        "length_ratio": "" if each.length_ratio is None else f"{each.length_ratio:.2f}",
        "pairs": f"{each.pairs}/{each.prompts}",
        "length_difference": f"{each.length_difference:+.1f}",
        "identical_share": f"{each.identical_share:.0%}",
        "cut_share": f"{each.cut_share:.0%}",
    }


def sentences(made: Rounds) -> list[str]:
    """Why the rounds ended and what is kept."""
    ended = f"Stopped: {made.stopped}." if made.stopped else f"All {made.wanted} rounds ran."
    if made.model is None:
        return [ended, "No round's model is kept: that which the first round started from stays."]
    return [ended, f"The model of round {made.kept} is kept."]


def warnings(made: Rounds) -> list[str]:
    """What is known to go wrong, round by round."""
    return [f"round {each.number}: {text}" for each in made.rounds for text in each.warnings()]


def as_markdown(made: Rounds) -> str:
    """The rounds for Prefect and MLflow."""
    rows: list[dict[str, Any]] = table_rows(made)
    head = list(rows[0]) if rows else []
    table = [head, ["---"] * len(head), *([row[name] for name in head] for row in rows)]
    lines = [f"# {made.recipe}: rounds", "", *sentences(made), ""]
    lines += [f"| {' | '.join(cells)} |" for cells in table if cells]
    lines += ["", _LEGEND, "", *(f"- **Warning:** {text}" for text in warnings(made))]
    return "\n".join([*lines, "", *([] if made.model is None else [f"Model: `{made.model.file('model')}`"]), ""])


_LEGEND = (
    "Accuracy: share of the recipe's held-out pairs whose chosen response is the more probable per token. KL in nats "
    "per response, and length by length, are against the model that the first round started from; chosen is longer by "
    "so many tokens."
)


def print_rounds(made: Rounds, console: Console | None = None) -> None:
    """Print the rounds side by side, and where the kept model is."""
    console = console or TextConsole()
    rows = table_rows(made)
    console.print()
    if rows:
        table = Table(
            title=escape(f"{made.recipe}: rounds"),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            padding=(0, 1),
            pad_edge=False,
        )
        for name in rows[0]:
            table.add_column(name, justify="left" if name == "round" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row.values())
        console.print(table)
        console.print(_LEGEND, style="dim", markup=False)
    for text in sentences(made):
        console.print(text, style="bold", markup=False)
    for text in warnings(made):
        console.print(f"warning: {text}", style="yellow", markup=False)
    if made.model is not None:
        console.print(f"{'model':<11} {made.model.file('model')}", soft_wrap=True, markup=False)
