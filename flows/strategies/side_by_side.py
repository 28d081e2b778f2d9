"""SFT, DPO and RLHF side by side, for the terminal, Prefect and MLflow."""

from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preflow.artifacts import Artifact
from preflow.comparison.kept_run import preference_scores
from preflow.config.base import Frozen
from preflow.console import TextConsole
from preflow.maths.paired import PairedComparison, compare_paired


class Strategies(Frozen):
    """What ``preflow compare-strategies`` leaves behind."""

    recipe: str
    """The recipe's name."""
    seed: int
    dpo: Artifact
    reward_model: Artifact
    rlhf: Artifact
    dpo_evaluation: Artifact
    """Of base, start and the DPO model."""
    rlhf_evaluation: Artifact
    """Of base, start and the RLHF model, on the same rows."""
    dpo_judged: Artifact | None
    rlhf_judged: Artifact | None


DPO, RLHF = "DPO", "RLHF"
_STARTS = {"base": "base", "sft": "SFT"}


def _interval(v: dict[str, float]) -> str:
    return f"{v['value']:.2f} [{v['low']:.2f}, {v['high']:.2f}]"


def _error(v: dict[str, float]) -> str:
    return f"{v['value']:.2f} ± {v['se']:.2f}" if "se" in v else f"{v['value']:.2f}"


#: Keys of a model's measures, how a person calls them, and how they are written.
_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("preference_accuracy", "preference accuracy", _interval),
    ("preference_accuracy_gain", "… gain over the start", _interval),
    ("preference_accuracy_length_matched", "… length-matched", _interval),
    ("win_rate", "win rate over the start", _interval),
    ("win_rate_lc", "… at equal length", _interval),
    ("kl", "KL from the start", _error),
    ("perplexity", "perplexity", lambda v: format(v, ".1f")),
    ("response_tokens", "tokens of an answer", lambda v: format(v, ".1f")),
    ("cut_share", "… cut at the limit", lambda v: format(v, ".0%")),
    ("steps", "optimizer steps", lambda v: format(v, ".0f")),
)


def models_of(made: Strategies) -> dict[str, dict[str, Any]]:
    """Every model's measures by its name: base, the start, DPO, RLHF."""
    with_dpo, with_rlhf = (each.load("evaluation.json") for each in (made.dpo_evaluation, made.rlhf_evaluation))
    found = {label: with_dpo["models"][name] for name, label in _STARTS.items() if name in with_dpo["models"]}
    for label, report, judged, model in (
        (DPO, with_dpo, made.dpo_judged, made.dpo),
        (RLHF, with_rlhf, made.rlhf_judged, made.rlhf),
    ):
        measures = dict(report["models"]["dpo"])
        if (kl := measures.get(f"kl_{report['reference']}")) is not None:
            measures["kl"] = kl
        if "comparison" in report:
            measures["preference_accuracy_gain"] = report["comparison"]["preference_accuracy_gain"]
        said = judged.load("judge.json") if judged is not None else {}
        measures |= {name: said[name] for name in ("win_rate", "win_rate_lc") if said.get(name)}
        steps = model.load("metrics.json").get(f"{'dpo' if label == DPO else 'rloo'}/steps")
        found[label] = measures if steps is None else {**measures, "steps": steps}
    return found


def difference(made: Strategies) -> PairedComparison | None:
    """Preference accuracy of RLHF minus that of DPO, on the same held-out pairs; none where there are no pairs."""
    new, old = (each.load("pairs.json") for each in (made.rlhf_evaluation, made.dpo_evaluation))
    if not old:
        return None
    alpha = 1 - made.dpo_evaluation.load("evaluation.json")["confidence"]
    return compare_paired(preference_scores(new, "dpo"), preference_scores(old, "dpo"), alpha=alpha, seed=made.seed)


def table_rows(made: Strategies) -> list[dict[str, str]]:
    """One row per measure; empty where a measure is not defined for a model."""
    models = models_of(made)
    return [
        {"measure": label, **{name: write(found[key]) if key in found else "" for name, found in models.items()}}
        for key, label, write in _ROWS
        if any(key in found for found in models.values())
    ]


def sentences(made: Strategies) -> list[str]:
    """What can be told apart, what the reward model is worth, and what the table does not show."""
    said = []
    if (found := difference(made)) is not None:
        apart = f"{found.difference.value:+.3f} [{found.difference.low:+.3f}, {found.difference.high:+.3f}]"
        verdict = "" if found.p <= found.alpha else ": no difference that these pairs show"
        said.append(
            f"Preference accuracy of RLHF minus that of DPO on {found.rows} pairs of {found.prompts} prompts: {apart}, "
            f"p = {found.p:.3g}{verdict}."
        )
    report = made.reward_model.load("report.json")["held_out"]
    rewards = made.rlhf.load("report.json")["held_out"]
    said.append(
        f"The reward model agrees with {_interval(report['accuracy'])} of {report['pairs']} held-out pairs; the reward "
        f"of RLHF's answers to {rewards['prompts']} held-out prompts changed by {_interval(rewards['reward_gain'])}."
    )
    kl = {name: found["kl"]["value"] for name, found in models_of(made).items() if "kl" in found}
    if len(kl) == len((DPO, RLHF)) and max(kl.values()) > _UNEQUAL * min(kl.values()):
        said.append(
            f"The models are not equally far from their start (KL {kl[DPO]:.2f} and {kl[RLHF]:.2f}): what one gains "
            "over the other may be distance. Compare at nearly equal KL (dpo.beta, rloo.beta, steps)."
        )
    return said


#: Times that one KL may exceed the other before models are compared at unequal distance.
_UNEQUAL = 2.0


def measures_of(made: Strategies) -> dict[str, float]:
    """The measures as numbers, for MLflow: ``strategies/preference_accuracy_rlhf`` and so on."""
    return {
        f"strategies/{key}_{name.lower()}": float(found[key]["value"] if isinstance(found[key], dict) else found[key])
        for name, found in models_of(made).items()
        for key, _, _ in _ROWS
        if key in found
    }


def as_markdown(made: Strategies) -> str:
    """The comparison for Prefect and MLflow."""
    rows = table_rows(made)
    head = list(rows[0]) if rows else []
    lines = [f"# {made.recipe}: strategies", "", *sentences(made), ""]
    lines += [
        f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *(list(row.values()) for row in rows)]
    ]
    return "\n".join(lines) + "\n"


def print_strategies(made: Strategies, console: Console | None = None) -> None:
    """The comparison for the terminal, and where the models are."""
    console = console or TextConsole()
    rows = table_rows(made)
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"{made.recipe}: strategies"), title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if name == "measure" else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row.values()))
    console.print(table)
    for sentence in sentences(made):
        console.print(sentence, markup=False)
    for name, model in ((DPO, made.dpo), (RLHF, made.rlhf)):
        console.print(f"{name:<6}{model.file('model')}", soft_wrap=True, style="bold", markup=False)
