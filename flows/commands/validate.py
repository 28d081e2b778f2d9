"""``preflow validate RECIPE_OR_FILE ...``: is a data file good? Names every bad row and quarantines it.

It starts no server, loads no model, and records no run. Exit codes: 0 the data are fit, 1 they are unfit, 2 they could
not be checked (a recipe or a file that cannot be read).
"""

import io
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.running.machine_errors import clear_machine_errors
from flows.running.terminal import USAGE_ERROR, parse_overrides
from preflow.console import TextConsole
from preflow.environment import preflow_home
from preflow.errors import ConfigError, DataUnfitError, PreflowError

if TYPE_CHECKING:
    from preflow.config.recipe import TrainingStage
    from preflow.data.validated import DataKind
    from preflow.specs import ValidateSpec

_UNFIT = 1
_NAMED = 4
_KINDS: "tuple[DataKind, ...]" = ("demonstrations", "preferences")
_STAGES: "dict[str, TrainingStage]" = {"demonstrations": "sft", "preferences": "dpo"}
_SEVERITY_COLORS = {"stop": "red", "set_aside": "yellow", "warn": "cyan"}
_SEVERITIES = {"stop": "stops", "set_aside": "quarantined", "warn": "warning"}


def main(
    what: Annotated[list[str], typer.Argument(help="A recipe (YAML or JSON), or data files or folders.")],
    kind: Annotated[
        str | None, typer.Option(help="What data files hold: demonstrations or preferences; found out where not given.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Override a setting, as validation.too_similar=0.9."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the clean rows, the quarantine and the report; made new.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON and nothing else.")] = False,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of a tokenizer: also count tokens against max_seq_length.")
    ] = None,
    max_seq_length: Annotated[int | None, typer.Option(help="Most tokens of a row; the recipe's if not given.")] = None,
) -> None:
    """Check demonstrations and preference pairs before anything is trained on them."""
    from preflow.data.validated import REPORT

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no terminal can show every name of a file or column
            stream.reconfigure(errors="backslashreplace")
    console = TextConsole(stderr=True)
    try:
        with clear_machine_errors():
            spec, name = _spec(what, kind, parse_overrides(changes), tokenizer, max_seq_length)
            folder = out or preflow_home() / "validation" / name
            _check(spec, folder, console, quiet=as_json)
    except PreflowError as error:
        _fail(error, as_json=as_json, console=console)
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps({**report, "folder": str(folder)}, ensure_ascii=False))
    else:
        print_report(report, folder, TextConsole())
    raise typer.Exit(0 if report["verdict"] == "fit" else _UNFIT)


def _fail(error: PreflowError, *, as_json: bool, console: Console) -> None:
    """One clear error, for a person or for a program."""
    if as_json:
        print(
            json.dumps({"verdict": "error", "error": type(error).__name__, "message": str(error)}, ensure_ascii=False)
        )
    else:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(USAGE_ERROR) from None


def _check(spec: "ValidateSpec", folder: Path, console: Console, *, quiet: bool) -> None:
    """Validate the data into a folder; an unfit set leaves its report there like a fit one."""
    from expectations.gate import run_gate
    from flows.running.output_folder import result_folder
    from tasks.runtime.progress import ProgressBars, ProgressObserver

    bars = ProgressBars(TextConsole(stderr=True, quiet=True) if quiet else console, transient=True)
    with result_folder(folder, spec.sources()) as partial, bars, suppress(DataUnfitError):  # the report says why
        run_gate(spec, partial, ProgressObserver(bars))


def _spec(
    what: list[str], kind: str | None, overrides: dict[str, Any], tokenizer: str | None, limit: int | None
) -> "tuple[ValidateSpec, str]":
    """What to check, and a name for the folder."""
    from flows.running.preparation import data_sources, find_recipe, with_named_prompts
    from preflow.config.loading import load_recipe, recipe_for_data

    if len(what) == 1 and _is_recipe(path := find_recipe(what[0])):
        recipe = load_recipe(path, overrides)
    else:
        recipe = recipe_for_data(_by_stage(what, kind, overrides), overrides)
    spec = with_named_prompts(data_sources(recipe), recipe, every=False)
    if not (spec.demonstrations or spec.preferences):
        raise ConfigError(f"{what[0]} names no data: give sft.dataset or dpo.dataset")
    if tokenizer is not None:
        _, section = recipe.training_sections[-1]
        limit = limit or section.max_seq_length
        spec = spec.model_copy(update={"tokenizer": tokenizer, "max_seq_length": limit, "rendering": recipe.rendering})
    return spec, recipe.name


def _is_recipe(path: Path) -> bool:
    """Whether a file is a recipe: YAML, or a JSON object that is no row of data.

    Raises:
        ConfigError: It is a JSON object around rows.
    """
    if path.suffix.lower() in {".yaml", ".yml"}:
        return True
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    from preflow.data.files.json_tables import is_table
    from preflow.data.row_formats.names import ROW_COLUMNS, normal

    try:
        with path.open(encoding="utf-8") as handle:
            head = handle.read(1 << 16)
            value = json.loads(head)
    except (OSError, ValueError, RecursionError):  # long, broken or unreadable: reading it as data says what is wrong
        return False
    if not isinstance(value, dict) or is_table(value) or {normal(key) for key in value} & ROW_COLUMNS:
        return False
    for key, held in value.items():
        if isinstance(held, list) and held and isinstance(held[0], dict):
            raise ConfigError(
                f"{path} is one object whose '{key}' holds {len(held)} objects: expected an array of rows, or one row "
                f"per line; give what '{key}' holds as a file of its own"
            )
    return True


def _by_stage(what: list[str], kind: str | None, overrides: dict[str, Any]) -> "dict[TrainingStage, list[str]]":
    """The files by the stage that would use them: of the kind given, or found out file by file."""
    from flows.new_recipe.recognition import kind_of

    if kind is not None and kind not in _STAGES:
        raise ConfigError(f"--kind {kind}: expected demonstrations or preferences")
    given = {stage: name for name, stage in _STAGES.items() if any(key.startswith(f"{stage}.") for key in overrides)}
    if kind is None and len(given) == 1:  # an override of one stage's settings says which stage is meant
        kind = next(iter(given.values()))
    found: dict[TrainingStage, list[str]] = {}
    for entry in what:
        found.setdefault(_STAGES[kind or kind_of(entry)], []).append(entry)
    return {stage: found[stage] for stage in _STAGES.values() if stage in found}


def print_report(report: dict[str, Any], folder: Path, console: Console) -> None:
    """Print the verdict, a table of findings for each kind, and where the files are."""
    from preflow.data.validated import QUARANTINE, REPORT

    fit = report["verdict"] == "fit"
    console.print()
    console.print("The data are fit." if fit else "The data are unfit.", style="bold green" if fit else "bold red")
    for line in report["critical"]:
        console.print(f"  - {line}", style="red", markup=False)
    for kind in _KINDS:
        if kind in report:
            _show_kind(kind, report[kind], console)
    for line in report["advice"]:
        console.print(f"advice: {line}", style="cyan", markup=False, soft_wrap=True)
    for label, name in (("report", "report.html"), ("quarantine", QUARANTINE), ("numbers", REPORT)):
        console.print(f"{label:<10} {folder / name}", markup=False, soft_wrap=True)


def _show_kind(kind: "DataKind", found: dict[str, Any], console: Console) -> None:
    from expectations.report.summary import reading_lines

    choosing = f"{found['validation']:,} for validation + " if "validation" in found else ""
    counts = f"{found['rows_in']:,} rows in = {found['train']:,} to train on + {choosing}{found['eval']:,} held out"
    title = f"{kind}: {counts} + {found['set_aside']:,} quarantined"
    if found["findings"]:
        console.print(_findings_table(title, found["findings"]))
    else:
        console.print(f"{title}; nothing found", markup=False)
    for line in reading_lines(kind, found["reading"]):
        console.print(f"  {line}", markup=False)


def _findings_table(title: str, findings: dict[str, Any]) -> Table:
    """Each finding with its first rows, and what is wrong with the very first: what was got and what was expected."""
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("finding", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("first", overflow="fold")
    order = list(_SEVERITY_COLORS)
    for name, entry in sorted(findings.items(), key=lambda item: order.index(item[1]["severity"])):
        first = _first(entry["rows"]) or "the whole set"
        severity = f"[{_SEVERITY_COLORS[entry['severity']]}]{_SEVERITIES[entry['severity']]}[/]"
        detail = entry["example"] if entry["count"] else entry["what"]
        table.add_row(name, severity, f"{entry['count']:,}" if entry["count"] else "", escape(f"{first}\n{detail}"))
    return table


def _first(rows: dict[str, list[int]]) -> str:
    """The first file's first rows."""
    file, numbers = next(iter(rows.items()), ("", []))
    more = len(numbers) > _NAMED or len(rows) > 1
    return f"{file}: {', '.join(map(str, numbers[:_NAMED]))}{', ...' if more else ''}" if numbers else ""
