"""The report as a page: one HTML file that needs nothing else, with its pictures drawn in it."""

from collections.abc import Mapping
from html import escape
from typing import Any

from expectations.report.style import STYLE
from expectations.report.summary import limit_of, said
from preflow.data.validated import DataKind

_KINDS: tuple[DataKind, ...] = ("demonstrations", "preferences")
_SEVERITIES = {"stop": "stops the run", "set_aside": "set aside", "warn": "warning"}
_COLORS = {"chosen": "var(--one)", "completion": "var(--one)", "pairs": "var(--one)", "rejected": "var(--two)"}
_PARTS = (("train", "var(--one)"), ("eval", "var(--three)"), ("set_aside", "var(--two)"))
_WIDTH, _HEIGHT, _FOOT = 420, 150, 24
#: Row numbers shown before the rest is folded away.
_SHOWN_ROWS = 20


def page(report: Mapping[str, Any]) -> str:
    """The whole report.

    Args:
        report: The contents of ``report.json``.
    """
    fit = report["verdict"] == "fit"
    critical = "".join(f"<li>{escape(line)}</li>" for line in report["critical"])
    advice = "".join(f"<li>{escape(line)}</li>" for line in report["advice"])
    body = "".join(_kind(kind, report[kind]) for kind in _KINDS if kind in report)
    verdict = "The data are fit for training" if fit else "The data are not fit for training"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{verdict}</title><style>{STYLE}</style></head><body><main>"
        f'<h1 class="{"fit" if fit else "unfit"}">{verdict}</h1>'
        f"{f'<ul class=critical>{critical}</ul>' if critical else ''}{body}"
        f"{f'<section><h2>Advice</h2><ul>{advice}</ul></section>' if advice else ''}"
        "<footer>Rows set aside are in <code>quarantine.jsonl</code> beside this page, each with its reason, ready to "
        "be mended and fed back. <code>report.json</code> holds these numbers for programs, "
        "<code>gx_*.json</code> Great Expectations' results.</footer></main></body></html>\n"
    )


def _kind(kind: DataKind, found: Mapping[str, Any]) -> str:
    names = {"rows_in": "rows in", "train": "to train on", "eval": "held out", "set_aside": "set aside"}
    dots = {key: f'<i style="background:{color}"></i>' for key, color in _PARTS}
    numbers = "".join(
        f"<div><b>{found[key]:,}</b><span>{dots.get(key, '')}{name}</span></div>" for key, name in names.items()
    )
    order = list(_SEVERITIES)
    entries = sorted(found["findings"].items(), key=lambda item: order.index(item[1]["severity"]))
    findings = "".join(_finding(name, entry, found) for name, entry in entries)
    return (
        f'<section><h2>{kind.capitalize()}</h2><div class="numbers">{numbers}</div>{_bar(found)}'
        f"{_pictures(found['measures'].get('distributions', {}))}"
        f"<h3>{'Findings' if findings else 'Nothing was found.'}</h3>{findings}</section>"
    )


def _bar(found: Mapping[str, Any]) -> str:
    """Where the rows went, as one bar."""
    total = max(found["rows_in"], 1)
    spans = "".join(
        f'<span style="width:{100 * found[name] / total:.2f}%;background:{color}"></span>' for name, color in _PARTS
    )
    return f'<div class="bar" role="img" aria-label="share of rows to train on, held out, set aside">{spans}</div>'


def _finding(name: str, entry: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    count = f"{entry['count']:,} row{'' if entry['count'] == 1 else 's'}" if entry["count"] else "the whole set"
    limit = limit_of(entry)
    threshold = f" <small>{escape(limit)}</small>" if limit else ""
    measured = said(name, found["measures"].get(name))
    examples = "".join(_example(example, entry["what"]) for example in entry["examples"])
    return (
        f'<article class="{entry["severity"]}"><header><h4>{escape(name.replace("_", " "))}</h4>'
        f'<span class="tag">{_SEVERITIES[entry["severity"]]}</span><span class="count">{count}</span></header>'
        f"<p>{escape(entry['what'][:1].upper() + entry['what'][1:])}.{threshold}</p>"
        f"{f'<p>{escape(measured)}</p>' if measured else ''}{examples}{_rows(entry['rows'])}</article>"
    )


def _example(example: Mapping[str, Any], known: str) -> str:
    names = ("prompt", "completion") if len(example["texts"]) == 2 else ("prompt", "chosen", "rejected")
    texts = "".join(
        f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in zip(names, example["texts"], strict=False)
    )
    detail = example["detail"].replace(known, "").strip(" :")  # what was said above is not said again
    return (
        f'<div class="example"><code>{escape(example["at"])}</code> {escape(detail)}'
        f"{f'<dl>{texts}</dl>' if texts else ''}</div>"
    )


def _rows(rows: Mapping[str, list[int]]) -> str:
    """Every row number, by file; many are folded away."""
    parts = []
    for file, numbers in rows.items():
        text = ", ".join(map(str, numbers))
        if len(numbers) > _SHOWN_ROWS:
            few = ", ".join(map(str, numbers[:_SHOWN_ROWS]))
            text = f"<details><summary>{few}, … all {len(numbers):,}</summary>{text}</details>"
        parts.append(f'<div class="rows"><code>{escape(file)}</code> rows {text}</div>')
    return "".join(parts)


def _pictures(distributions: Mapping[str, Any]) -> str:
    titles = {"words": "Words per answer", "similarity": "Similarity of chosen and rejected"}
    drawn = "".join(_histogram(titles[name], values) for name, values in distributions.items())
    return f'<div class="pictures">{drawn}</div>' if drawn else ""


def _histogram(title: str, values: Mapping[str, Any]) -> str:
    """A histogram as SVG; several series stand side by side in each bin."""
    series = {name: entry for name, entry in values.items() if name != "edges"}
    edges = values["edges"]
    top = max((max(entry["counts"]) for entry in series.values()), default=1) or 1
    bin_width = _WIDTH / (len(edges) - 1)
    bars = []
    for place, (name, entry) in enumerate(series.items()):
        width = bin_width / len(series) * 0.9
        for number, count in enumerate(entry["counts"]):
            height = _HEIGHT * count / top
            x = number * bin_width + place * width
            bars.append(
                f'<rect x="{x:.1f}" y="{_HEIGHT - height:.1f}" width="{width:.1f}" height="{height:.1f}" '
                f'fill="{_COLORS[name]}"><title>{name}: {count:,} between {edges[number]:g} and {edges[number + 1]:g}'
                "</title></rect>"
            )
    last = len(edges) - 1
    labels = ((0, "start", f"{edges[0]:g}"), (0.5, "middle", f"{edges[last // 2]:g}"), (1, "end", f"{edges[last]:g}"))
    marks = "".join(
        f'<text x="{_WIDTH * share:.0f}" y="{_HEIGHT + 17}" text-anchor="{anchor}">{label}</text>'
        for share, anchor, label in labels
    )
    legend = " ".join(
        f'<span><i style="background:{_COLORS[name]}"></i>{name}, median {entry["median"]:g}</span>'
        for name, entry in series.items()
    )
    return (
        f'<figure><figcaption>{title}</figcaption><div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" role="img" aria-label="{title}">{"".join(bars)}'
        f'<line x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}" stroke="currentColor"/>{marks}</svg></figure>'
    )
