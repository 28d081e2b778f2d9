"""A judge compares the finished model's kept answers with its reference's, after a test on the run's human pairs."""

from pathlib import Path
from typing import Any

from preflow.artifacts import write_json
from preflow.environment import store_folder
from preflow.judges.choose import judge_of
from preflow.judges.figure import draw_win_rate_by_length
from preflow.judges.report import judge_report
from preflow.observer import Observer
from preflow.specs import JudgeSpec


def run_judging(spec: JudgeSpec, out: Path, observer: Observer) -> None:
    """Test the judge, and where it is fit, let it compare the answers in both orders.

    Writes ``judge.json`` (the judge, its test, win rates with intervals or why there are none), ``verdicts.json`` (per
    comparison: what was compared, both verdicts and their reasons), ``metrics.json`` and, with a win rate,
    ``figures/win_rate_by_length.png``.

    Raises:
        JudgeError: The judge cannot be used or reached. Verdicts that are there are kept.
    """
    settings = spec.recipe.evaluation.judge
    assert settings is not None, "the stage runs where a recipe names a judge"
    found = judge_report(spec, judge_of(settings), store_folder() / "verdicts", observer)
    if found.drawn is not None:
        (out / "figures").mkdir(exist_ok=True)
        draw_win_rate_by_length(out / "figures" / "win_rate_by_length.png", *found.drawn)
    write_json(out / "judge.json", found.values)
    write_json(out / "verdicts.json", found.verdicts)
    write_json(out / "metrics.json", {**_test_metrics(found.values["test"]), **_win_metrics(found.values)})


def _test_metrics(test: dict[str, Any]) -> dict[str, float]:
    orders = test.get("orders", {"pairs": 0})
    given = {
        "judge/accuracy": test["accuracy"] and test["accuracy"]["value"],
        "judge/consistency": test["consistency"],
        "judge/first_share": test["first_share"],
        "judge/length_slope": test["length_slope"],
        "judge/unreadable": test["unreadable"],
        "judge/obeyed": orders["obeyed"] / orders["pairs"] if orders["pairs"] else None,
        "judge/fit": test["fit"],
    }
    return {name: float(value) for name, value in given.items() if value is not None}


def _win_metrics(report: dict[str, Any]) -> dict[str, float]:
    found = {name: report.get(name) for name in ("win_rate", "win_rate_lc", "win_rate_consistent", "length_ratio")}
    return {
        f"eval/{name}": float(value["value"] if isinstance(value, dict) else value)
        for name, value in found.items()
        if value is not None
    }
