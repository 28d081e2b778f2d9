"""The comparison as a page: one HTML file without references to others, its figures drawn in SVG.

The page is the template ``page.html.jinja`` with its style sheet; here its values are put together.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_FOLDER = Path(__file__).parent
#: Measures that are shown, by key of ``evaluation.json``, where a run has them.
MEASURES = (
    ("preference_accuracy", "preference accuracy"),
    ("preference_accuracy_length_matched", "… length-matched"),
    ("reward_accuracy", "reward accuracy"),
    ("reward_margin", "reward margin"),
    ("kl_sft", "KL from SFT"),
    ("kl_base", "KL from base"),
    ("perplexity", "perplexity"),
    ("response_tokens", "response tokens"),
    ("cut_share", "cut at the limit"),
)
#: Size of a figure, and its margins: left, right, top, bottom.
WIDTH, HEIGHT = 430, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 16, 14, 44
#: Height of a line of the forest plot.
_LINE = 30
#: Width of the forest plot's names.
_NAME = 240
Point = tuple[float, float, float, float]


def page(report: Mapping[str, Any], recipe: str) -> str:
    """The whole page.

    Args:
        report: What ``compare_runs`` gives.
        recipe: The recipe's name.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = report["runs"]
    letters = {run["run_id"]: letter(place) for place, run in enumerate(runs)}
    names = {run["run_id"]: run["name"] for run in runs}
    figures = [
        scatter(_points(runs, letters, _kl, "preference_accuracy"), "KL from the reference, nats per response",
                "preference accuracy", "Accuracy against KL"),
        scatter(_points(runs, letters, lambda measures: _value(measures, "response_tokens"), "reward_margin"),
                "tokens per sampled response", "reward margin, nats", "Reward against length"),
    ]  # fmt: skip
    return environment.get_template("page.html.jinja").render(
        recipe=recipe,
        report=report,
        letters=letters,
        names=names,
        shown=[name for name in MEASURES if any(name[0] in run["measures"] for run in runs)],
        said=said(runs),
        cell=cell,
        forest=forest(runs, letters, report["baseline"]),
        figures=[figure for figure in figures if figure is not None],
        level=f"{1 - report['alpha']:.0%}",
    )


def letter(place: int) -> str:
    """How the run at a place is called in tables and figures: A to Z, then A2 to Z2, and so on."""
    times, which = divmod(place, 26)
    return chr(ord("A") + which) + (str(times + 1) if times else "")


def said(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Rows of what judges, people and decisions say of each run, those that say something of one."""
    rows: list[tuple[str, list[str]]] = [
        ("win rate", [_judged(run, "win_rate") for run in runs]),
        ("win rate at equal length", [_judged(run, "win_rate_lc") for run in runs]),
        ("judge", [run["judged"]["judge"] if run.get("judged") else "" for run in runs]),
        ("the judge's test", [_test(run.get("judged")) for run in runs]),
    ]
    tasks = dict.fromkeys(task for run in runs for task in run.get("benchmarks") or {})
    rows += [(f"benchmark {task}", [_benchmark(run.get("benchmarks") or {}, task) for run in runs]) for task in tasks]
    guards = dict.fromkeys(name for run in runs for name in run.get("guards") or {})
    rows += [(f"guard {name}", [(run.get("guards") or {}).get(name, "") for run in runs]) for name in guards]
    rows.append(("reviews and decisions", ["; ".join(run.get("later") or ()) for run in runs]))
    return [(label, cells) for label, cells in rows if any(cells)]


def _judged(run: Mapping[str, Any], name: str) -> str:
    judged = run.get("judged")
    if not judged:
        return ""
    return f"{cell(judged[name])} ({judged['of']})" if judged[name] else f"none: {judged['reason']}"


def _test(judged: Mapping[str, Any] | None) -> str:
    if not judged:
        return ""
    fit = "fit" if judged["fit"] else "unfit"
    return f"{fit}: agrees with people on {cell(judged['accuracy'])} of {judged['pairs']} pairs"


def _benchmark(report: Mapping[str, Any], task: str) -> str:
    if task not in report:
        return ""
    *_, last = report[task]["models"].values()
    return f"{cell(last)} {report[task]['metric']}, {report[task]['documents']} documents"


def cell(value: Any) -> str:
    """A measure as text: with its interval, or its standard error, where it has one."""
    if value is None:
        return ""
    if not isinstance(value, dict):
        return f"{value:.3g}"
    if "low" in value:
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{value['value']:.3f} ± {value['se']:.3f}" if "se" in value else f"{value['value']:.3f}"


def forest(runs: Sequence[Mapping[str, Any]], letters: Mapping[str, str], baseline: str) -> dict[str, Any]:
    """Differences to the baseline with their intervals, one line each, around zero."""
    found = [run for run in runs if run["difference"] is not None]
    reach = max(
        [0.02, *(abs(run["difference"]["difference"][end]) for run in found for end in ("low", "high"))]
    )  # fmt: skip
    ticks = _ticks(-reach, reach)
    reach = max(abs(ticks[0]), abs(ticks[-1]))

    def across(value: float) -> float:
        return _NAME + (value + reach) / (2 * reach) * (2 * WIDTH - _NAME - _RIGHT)

    return {
        "width": 2 * WIDTH,
        "height": _LINE * len(found) + _BOTTOM,
        "zero": across(0.0),
        "foot": _LINE * len(found) + 8,
        "ticks": [{"x": across(tick), "text": f"{100 * tick:+.3g}" if tick else "0"} for tick in ticks],
        "lines": [
            {
                "letter": letters[run["run_id"]],
                "name": _short(run["name"]),
                "y": _LINE * place + _LINE / 2 + 4,
                "x": across(run["difference"]["difference"]["value"]),
                "low": across(run["difference"]["difference"]["low"]),
                "high": across(run["difference"]["difference"]["high"]),
                "significant": run["difference"]["significant"],
            }
            for place, run in enumerate(found)
        ],
    }


def scatter(points: Mapping[str, Point], across: str, up: str, title: str) -> dict[str, Any] | None:
    """Runs as lettered points with an interval upwards; none where fewer than two runs have both measures.

    Args:
        points: By letter: x, y, and the ends of the interval of y.
        across: What x is.
        up: What y is.
        title: Of the figure.
    """
    if len(points) < 2:
        return None
    x_ticks = _ticks(min(point[0] for point in points.values()), max(point[0] for point in points.values()))
    y_ticks = _ticks(min(point[2] for point in points.values()), max(point[3] for point in points.values()))

    def x(value: float) -> float:
        return _LEFT + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - _BOTTOM - _TOP)

    return {
        "title": title,
        "across": across,
        "up": up,
        "width": WIDTH,
        "height": HEIGHT,
        "left": _LEFT,
        "bottom": HEIGHT - _BOTTOM,
        "right": WIDTH - _RIGHT,
        "x_ticks": [{"at": x(tick), "text": f"{tick:g}"} for tick in x_ticks],
        "y_ticks": [{"at": y(tick), "text": f"{tick:g}"} for tick in y_ticks],
        "points": [
            {"letter": letter, "x": x(point[0]), "y": y(point[1]), "low": y(point[2]), "high": y(point[3])}
            for letter, point in points.items()
        ],
    }


def _points(runs: Sequence[Mapping[str, Any]], letters: Mapping[str, str], across: Any, up: str) -> dict[str, Point]:
    found: dict[str, Point] = {}
    for run in runs:
        x, y = across(run["measures"]), run["measures"].get(up)
        if x is not None and y is not None:
            found[letters[run["run_id"]]] = (x, y["value"], y["low"], y["high"])
    return found


def _kl(measures: Mapping[str, Any]) -> float | None:
    """KL from the model that training by preferences started from."""
    return _value(measures, "kl_sft") if "kl_sft" in measures else _value(measures, "kl_base")


def _value(measures: Mapping[str, Any], name: str) -> float | None:
    value = measures.get(name)
    return float(value["value"]) if isinstance(value, dict) else value


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers around a range."""
    from matplotlib.ticker import MaxNLocator

    if high <= low:
        low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    found = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(tick), 12) for tick in found]


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"
