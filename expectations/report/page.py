"""The report as a page: one HTML file without references to others, its histograms drawn in SVG.

The page is the template ``page.html.j2`` with the style sheet ``page.css``; here its values are put together.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from expectations.report.summary import measure_text, reading_lines, threshold_text
from preflow.data.validated import DataKind

_FOLDER = Path(__file__).parent
_KINDS: tuple[DataKind, ...] = ("demonstrations", "preferences")
_WORST_FIRST = ("stop", "set_aside", "warn")
_COLORS = {"chosen": "var(--one)", "completion": "var(--one)", "pairs": "var(--one)", "rejected": "var(--two)"}
_TITLES = {"words": "Words per answer", "similarity": "Similarity of chosen and rejected"}
#: Counts that are shown, where a report has them.
_COUNTS = ("rows_in", "train", "validation", "eval", "set_aside")
#: Size of a histogram, and of the row of labels below it.
_WIDTH, _HEIGHT, _FOOT = 420, 150, 24
#: Row numbers shown before the rest is folded away.
_SHOWN_ROWS = 20


def page(report: Mapping[str, Any]) -> str:
    """The whole report.

    Args:
        report: The contents of ``report.json``.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("page.html.j2").render(
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        fit=report["verdict"] == "fit",
        critical=report["critical"],
        advice=report["advice"],
        kinds=[_kind(kind, report[kind]) for kind in _KINDS if kind in report],
        shown_rows=_SHOWN_ROWS,
    )


def _kind(kind: DataKind, found: Mapping[str, Any]) -> dict[str, Any]:
    entries = sorted(found["findings"].items(), key=lambda item: _WORST_FIRST.index(item[1]["severity"]))
    distributions = found["measures"].get("distributions", {})
    return {
        "title": kind.capitalize(),
        "counts": {name: found[name] for name in _COUNTS if name in found},
        "reading": reading_lines(kind, found["reading"]),
        "pictures": [_histogram(_TITLES[name], values) for name, values in distributions.items()],
        "findings": [_finding(name, entry, found["measures"].get(name)) for name, entry in entries],
    }


def _finding(name: str, entry: Mapping[str, Any], measured: Any) -> dict[str, Any]:
    count = f"{entry['count']:,} row{'' if entry['count'] == 1 else 's'}" if entry["count"] else "the whole set"
    return {
        "name": name.replace("_", " "),
        "severity": entry["severity"],
        "count": count,
        "what": entry["what"][:1].upper() + entry["what"][1:],
        "threshold": threshold_text(entry),
        "measured": measure_text(measured),
        "examples": [_example(example, entry["what"]) for example in entry["examples"]],
        "rows": entry["rows"],
    }


def _example(example: Mapping[str, Any], known: str) -> dict[str, Any]:
    names = ("prompt", "completion") if len(example["texts"]) == 2 else ("prompt", "chosen", "rejected")
    return {
        "at": example["at"],
        "detail": example["detail"].replace(known, "").strip(" :"),  # the finding's own sentence is above it
        "texts": list(zip(names, example["texts"], strict=False)),
    }


def _histogram(title: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Positions of a histogram's bars; several series are side by side in each bin."""
    series = {name: entry for name, entry in values.items() if name != "edges"}
    edges = values["edges"]
    last = len(edges) - 1
    top = max((max(entry["counts"]) for entry in series.values()), default=1) or 1
    bin_width = _WIDTH / last
    bars = []
    for place, (name, entry) in enumerate(series.items()):
        width = bin_width / len(series) * 0.9
        for number, count in enumerate(entry["counts"]):
            height = _HEIGHT * count / top
            bars.append(
                {
                    "x": f"{number * bin_width + place * width:.1f}",
                    "y": f"{_HEIGHT - height:.1f}",
                    "width": f"{width:.1f}",
                    "height": f"{height:.1f}",
                    "color": _COLORS[name],
                    "title": f"{name}: {count:,} between {edges[number]:g} and {edges[number + 1]:g}",
                }
            )
    labels = ((0, "start", edges[0]), (0.5, "middle", edges[last // 2]), (1, "end", edges[last]))
    return {
        "title": title,
        "width": _WIDTH,
        "height": _HEIGHT,
        "foot": _FOOT,
        "bars": bars,
        "labels": [
            {"x": f"{_WIDTH * share:.0f}", "anchor": anchor, "text": f"{edge:g}"} for share, anchor, edge in labels
        ],
        "series": [
            {"name": name, "color": _COLORS[name], "median": f"{entry['median']:g}"} for name, entry in series.items()
        ],
    }
