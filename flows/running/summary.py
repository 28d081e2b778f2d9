"""The end of a run for people: models side by side, answers, and where everything is."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from flows.running.preparation import Diagnosis, RunResult
from preflow.artifacts import Artifact
from preflow.console import TextConsole
from preflow.environment import preflow_home
from preflow.redaction import code_span


def _interval(v: dict[str, float]) -> str:
    return f"{v['value']:.2f} [{v['low']:.2f}, {v['high']:.2f}]"


def _signed(v: dict[str, float]) -> str:
    return f"{v['value']:+.2f} [{v['low']:+.2f}, {v['high']:+.2f}]"


def _error(v: dict[str, float]) -> str:
    return f"{v['value']:.2f} ± {v['se']:.2f}" if "se" in v else f"{v['value']:.2f}"


#: Keys of evaluation.json, how a person calls them, and how they are written. Absent where a model has none.
_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("preference_accuracy", "preference accuracy", _interval),
    ("preference_accuracy_length_matched", "… length-matched", _interval),
    ("reward_accuracy", "reward accuracy", _interval),
    ("reward_margin", "reward margin", _interval),
    ("chosen_logp_change", "chosen log-prob Δ", _signed),
    ("rejected_logp_change", "rejected log-prob Δ", _signed),
    ("kl_sft", "KL from SFT", _error),
    ("kl_base", "KL from base", _error),
    ("perplexity", "perplexity", lambda v: format(v, ".1f")),
    ("response_tokens", "response tokens", lambda v: format(v, ".1f")),
    ("cut_share", "… cut at the limit", lambda v: format(v, ".0%")),
)
_MATCHED = "preference_accuracy_length_matched"
_NAMES = {"base": "base", "sft": "SFT", "dpo": "DPO"}
_SAMPLES = 3
HEALTHY = "No measurement of this run lies where something is known to be wrong."


def report_of(evaluation: Artifact, judged: Artifact | None, benchmarked: Artifact | None = None) -> dict[str, Any]:
    """The evaluation's report, with what a judge said and what came of benchmarks where there are any."""
    report: dict[str, Any] = evaluation.load("evaluation.json")
    if benchmarked is not None:
        report["benchmarks"] = benchmarked.load("benchmarks.json")
    return report if judged is None else {**report, "judge": judged.load("judge.json")}


def benchmark_sentences(report: dict[str, Any]) -> list[str]:
    """Every model's mean on each benchmark, and the last one's difference to the one that it was trained from."""
    lines = []
    for task, found in report.get("benchmarks", {}).items():
        models = ", ".join(f"{name} {_interval(share)}" for name, share in found["models"].items())
        line = f"Benchmark {task}, {found['metric']} on {found['documents']} documents: {models}"
        if "delta" in found:
            delta = found["delta"]
            line += f"; difference {_interval(delta['difference'])}, p = {delta['adjusted_p']:.3g} (Holm)"
        lines.append(f"{line}.")
    return lines


def columns(report: dict[str, Any]) -> list[str]:
    """The table's header: the measure, then one column per model."""
    return ["measure", *(_NAMES[name] for name in _models(report))]


def metric_rows(report: dict[str, Any]) -> list[dict[str, str]]:
    """One row per measure; empty where a measure is not defined for a model."""
    models = _models(report)
    return [
        {"measure": label} | {_NAMES[name]: write(found[key]) if key in found else "" for name, found in models.items()}
        for key, label, write in _ROWS
        if any(key in found for found in models.values())
    ]


def _models(report: dict[str, Any]) -> dict[str, Any]:
    """The models in the order in which they were made."""
    return {name: report["models"][name] for name in _NAMES if name in report["models"]}


def _answers(sample: dict[str, Any]) -> list[tuple[str, str]]:
    answers = sample["answers"]
    return [(label, answers[name]) for name, label in _NAMES.items() if name in answers]


def result_sentence(report: dict[str, Any]) -> str:
    """One sentence: how many pairs, and what alignment gained where there is something to compare."""
    if not report["n_pairs"]:
        return "No held-out preference pairs, so no preference accuracy."
    text = f"{report['n_pairs']} held-out pairs, {report['confidence']:.0%} intervals."
    if "comparison" not in report:
        return text
    gain = report["comparison"]["preference_accuracy_gain"]
    interval = f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    return f"{text} Preference accuracy of DPO minus that of {_reference(report)}: {interval}, paired bootstrap."


def _found(report: dict[str, Any]) -> str:
    """What was found, and what can be seen at all."""
    return f"{result_sentence(report)} {power_sentence(report)}" if report["n_pairs"] else result_sentence(report)


def power_sentence(report: dict[str, Any]) -> str:
    """One sentence: what the held-out prompts can show, and how many would show a small difference."""
    power = report["power"]
    return (
        f"{power['prompts']} prompts show differences of {100 * power['visible_difference']:.1f} points and more "
        f"(power 80 %); {power['prompts_needed']} would show {100 * power['small_difference']:.0f}."
    )


def judge_sentences(report: dict[str, Any]) -> list[str]:
    """What the judge is and how it was tested, and the win rate, or why there is none; nothing without a judge."""
    if "judge" not in report:
        return []
    said = report["judge"]
    test, name = said["test"], said["judge"].get("model", said["judge"]["kind"])
    if not test["fit"]:
        return [f"Judge {name} is unfit, so there is no win rate: {test['reason']}."]
    tested = (
        f"Judge {name}: agrees with people on {_interval(test['accuracy'])} of {test['pairs']} held-out pairs, the "
        f"same in both orders on {test['consistency']:.0%}."
    )
    if "win_rate" not in said:
        return [tested, f"No win rate: {said['reason']}."]
    new, old = (_NAMES[model] for model in said["models"])
    at_length = said["win_rate_lc"]
    length = _interval(at_length) if at_length else f"none ({said['win_rate_lc_reason']})"
    return [
        tested,
        f"Win rate of {new} against {old}: {_interval(said['win_rate'])} on {said['prompts']} prompts; at equal "
        f"length {length}; {said['unreadable']} without a readable verdict.",
    ]


def legend(report: dict[str, Any]) -> str:
    """What the table's measures are, in the words of this run."""
    accuracy = "Preference accuracy: chosen has the higher mean log-prob per token."
    parts = [accuracy] if report["n_pairs"] else []
    matched = [found[_MATCHED]["n"] for found in report["models"].values() if _MATCHED in found]
    if matched:
        parts.append(f"Length-matched: {matched[0]} of {report['n_pairs']} pairs.")
    if "comparison" in report:
        reference = _reference(report)
        parts.append(f"Rewards in nats and log-prob changes per token are against {reference}.")
    parts.append("KL in nats per sampled response.")
    return " ".join(parts)


def _reference(report: dict[str, Any]) -> str:
    """The model that DPO started from, and that rewards are measured against."""
    return "SFT" if "sft" in report["models"] else "base"


def markdown(
    recipe: str, report: dict[str, Any], samples: list[dict[str, Any]], model: str, diagnosis: Diagnosis | None = None
) -> str:
    """The summary as Markdown, for Prefect and MLflow."""
    head = columns(report)
    body = [[row[column] for column in head] for row in metric_rows(report)]
    table = [head, ["---"] * len(head), *body]
    lines = [f"# {recipe}", "", _found(report), "", *judge_sentences(report), *benchmark_sentences(report), ""]
    lines += [f"| {' | '.join(cells)} |" for cells in table]
    lines += ["", legend(report), "", *(f"- **Warning:** {text}" for text in report["warnings"])]
    lines += _diagnosis_lines(diagnosis or Diagnosis())
    for sample in samples[:_SAMPLES]:
        lines += ["", f"**Prompt** {code_span(sample['prompt'])}", ""]
        lines += [f"- {name}: {code_span(text)}" for name, text in _answers(sample)]
    return "\n".join([*lines, "", f"Model: {code_span(model)}", ""])


def description(report: dict[str, Any], diagnosis: Diagnosis) -> str:
    """A run in few words, for the head of its page in MLflow."""
    return "\n".join([result_sentence(report), *_diagnosis_lines(diagnosis)])


def _diagnosis_lines(diagnosis: Diagnosis) -> list[str]:
    """What the run's measurements show, as Markdown: one point each, with its evidence and what to try."""
    lines = ["", "## Diagnosis", ""]
    for finding in diagnosis.findings:
        lines.append(f"- **{finding.name}**: {finding.what} ({finding.evidence}). Try {code_span(finding.remedy)}.")
        if finding.rows:
            lines.append(f"    Rows: {', '.join(code_span(row) for row in finding.rows)}")
    lines += [] if diagnosis.findings else [HEALTHY]
    return [*lines, "", *(f"- {line}." for line in diagnosis.resources)]


def print_summary(result: RunResult, console: Console | None = None) -> None:
    """Print the summary: the table, three prompts with every model's answer, and where to look on."""
    console = console or TextConsole()
    report = report_of(result.evaluation, result.judged, result.benchmarked)
    console.print()
    console.print(_table(result.recipe, report))
    console.print(legend(report), style="dim", markup=False)
    console.print(_found(report), style="bold", markup=False)
    for line in (*judge_sentences(report), *benchmark_sentences(report)):
        console.print(line, style="bold", markup=False)
    for text in report["warnings"]:
        console.print(f"warning: {text}", style="yellow", markup=False)
    _print_diagnosis(result.diagnosis, console)
    for sample in result.evaluation.load("samples.json")[:_SAMPLES]:
        console.print(_sample(sample))
    for name, value in places(result):
        console.print(f"{name:<11} {value}", soft_wrap=True, markup=False)


def _print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    for finding in diagnosis.findings:
        console.print(f"diagnosis: {finding.sentence()}", style="yellow", markup=False)
        if finding.rows:
            console.print(f"  rows: {', '.join(finding.rows)}", markup=False)
    if not diagnosis.findings:
        console.print(f"diagnosis: {HEALTHY}", style="dim", markup=False)
    for line in diagnosis.resources:
        console.print(line, style="dim", markup=False)


def places(result: RunResult) -> list[tuple[str, str]]:
    """Where the model lies, and the commands that open this run in MLflow and in Prefect."""
    python = shlex.quote(str(_near(Path(sys.executable))))
    if preflow_home() != Path.cwd() / ".preflow":  # the commands must find this run's state
        python = f"PREFLOW_HOME={shlex.quote(str(preflow_home()))} {python}"
    return [
        ("model", str(_near(result.model.file("model")))),
        ("MLflow UI", f"{python} -m flows.ui mlflow --run {result.mlflow_run_id}"),
        ("Prefect UI", f"{python} -m flows.ui prefect --run {result.prefect_run_id}"),
    ]


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _table(recipe: str, report: dict[str, Any]) -> Table:
    table = Table(
        title=escape(f"{recipe}: models side by side"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 0),
        pad_edge=False,
    )
    for column in columns(report):
        first = column == "measure"
        table.add_column(column, justify="left" if first else "right", no_wrap=True)
    for row in metric_rows(report):
        table.add_row(*row.values())
    return table


def _sample(sample: dict[str, Any]) -> Panel:
    grid = Table.grid(padding=(0, 1))
    for name, text in _answers(sample):
        grid.add_row(f"[bold]{name}[/]", _plain(text))
    return Panel(grid, title=_plain(_one_line(sample["prompt"])), title_align="left", box=box.ROUNDED)


def _plain(text: str) -> str:
    return escape(text.strip())


def _one_line(text: str) -> str:
    return " ".join(text.split())
