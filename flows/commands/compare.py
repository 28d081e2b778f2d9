"""``preflow compare RECIPE``: finished runs side by side, with paired differences to a baseline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.running.terminal import RecipeName, clear_errors

if TYPE_CHECKING:
    from preflow.comparison.kept_run import KeptRun

#: What the page says of judges, people and decisions that has a column in the table, where a run has it.
_LATER = "reviews and decisions"
_JUDGED = ("win rate", "win rate at equal length", _LATER)
#: Characters of a whole id.
_ID = 32
#: The word for a registered model's champion.
CHAMPION = "champion"
_RUNS_HELP = "MLflow ids of the runs, separated by commas; the last ones otherwise."
_BASELINE_HELP = "An id, or 'champion': the run of the registered model's champion. The oldest run otherwise."


def main(
    recipe: RecipeName,
    runs: Annotated[str, typer.Option(help=_RUNS_HELP)] = "",
    last: Annotated[int, typer.Option(help="How many of the newest finished runs.", min=2)] = 8,
    baseline: Annotated[str, typer.Option(help=_BASELINE_HELP)] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the page and its numbers.")] = None,
) -> None:
    """Compare finished runs on the held-out rows that they share: a page, a JSON file, a table in Prefect, MLflow.

    Exit code 2 where nothing can be compared.
    """
    with clear_errors():
        from flows.running.preparation import find_recipe
        from preflow.config.loading import load_recipe
        from preflow.environment import make_home, preflow_home
        from tasks.tracking.client import away_is_a_tracking_error, require_mlflow

        make_home()  # before Prefect is imported
        require_mlflow()
        settings = load_recipe(find_recipe(recipe), {})
        with away_is_a_tracking_error():
            report, _ = compared(settings.name, _ids(runs), last, _baseline(baseline, settings))
            folder = out or preflow_home() / "comparisons" / settings.name
            files = write(report, settings.name, folder)
            _keep(report, files, settings.name)
    show(report, files[0])


def compared(name: str, run_ids: list[str], last: int, baseline: str | None) -> "tuple[dict[str, Any], list[KeptRun]]":
    """The report of a comparison, and the runs that were compared.

    Args:
        name: The recipe's name.
        run_ids: The runs; the ``last`` newest ones where none are given.
        last: How many.
        baseline: The baseline's id, of whatever recipe, or the beginning of it; the oldest of the runs where not given.

    Raises:
        ConfigError: There is no such run.
        ArtifactError: The baseline cannot be read, or none of the runs.
        IncomparableError: The runs' held-out rows are not the same.
    """
    from preflow.comparison.report import compare_runs
    from tasks.tracking.evaluated_runs import evaluated_run, evaluated_runs

    found, unread = evaluated_runs(name, run_ids, last)
    first = found[-1].run_id
    if baseline is not None:
        named = next((run for run in found if run.run_id.startswith(baseline)), None)
        if named is None:
            whole = len(baseline) == _ID
            (named,) = [evaluated_run(baseline)] if whole else evaluated_runs(name, [baseline], 1)[0]
            found.append(named)
        first = named.run_id
    return compare_runs(found, first, strict=bool(run_ids), unread=unread), found


def write(report: dict[str, Any], recipe: str, folder: Path) -> list[Path]:
    """Write the page and the numbers into a folder."""
    from preflow.artifacts import write_json
    from preflow.comparison.page import page

    folder.mkdir(parents=True, exist_ok=True)
    html, numbers = folder / "comparison.html", folder / "comparison.json"
    html.write_text(page(report, recipe), encoding="utf-8", errors="backslashreplace")
    write_json(numbers, report)
    return [html, numbers]


def table_rows(report: dict[str, Any]) -> list[dict[str, str]]:
    """One row per run: what differs in its settings, its accuracy and win rates, and its difference to the baseline."""
    from preflow.comparison.page import cell, said

    judged = [(label, cells) for label, cells in said(report["runs"]) if label in _JUDGED]
    return [
        {
            "run": run["name"],
            **run["settings"],
            "preference accuracy": cell(run["measures"].get("preference_accuracy")),
            **{label: cells[place] for label, cells in judged},
            "difference, points": _points(run["difference"]),
            "p (Holm)": f"{run['difference']['adjusted_p']:.3g}" if run["difference"] else "",
        }
        for place, run in enumerate(report["runs"])
    ]


def _points(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "baseline"
    value, low, high = (100 * difference["difference"][name] for name in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _ids(runs: str) -> list[str]:
    return [run.strip() for run in runs.split(",") if run.strip()]


def _baseline(asked: str, settings: Any) -> str | None:
    """The id of the baseline, where one is asked for.

    Raises:
        ConfigError: The registered model has no champion.
    """
    from preflow.errors import ConfigError
    from tasks.tracking.evaluated_runs import champion_run

    if asked != CHAMPION:
        return asked or None
    model = settings.promotion.model_name or settings.name
    found = champion_run(model)
    if found is None:
        raise ConfigError(f"--baseline champion: no champion of {model} is registered. Name a run's id instead")
    return found


def _keep(report: dict[str, Any], files: list[Path], name: str) -> None:
    """Leave the table in Prefect, and the files with the run that has the highest accuracy in MLflow."""
    from flows.running.embedded_server import own_server
    from flows.running.terminal import quiet_prefect
    from tasks.tracking.evaluated_runs import log_comparison

    best = report["groups"][0][0]
    log_comparison(best, files)
    with own_server():
        quiet_prefect()
        from prefect import flow
        from prefect.artifacts import create_table_artifact

        from tasks.runtime.reporting import artifact_key

    @flow(name="compare", flow_run_name=f"compare-{artifact_key(name)}")
    def leave_table() -> None:
        text = f"Runs of {name} compared"
        create_table_artifact(table_rows(report), key=f"{artifact_key(name)}-comparison", description=text)

    leave_table()


def show(report: dict[str, Any], page: Path) -> None:
    """What differs in the settings and what came of it as two tables, since one is wider than a terminal."""
    from preflow.comparison.page import letter
    from preflow.console import TextConsole

    console, rows = TextConsole(), table_rows(report)
    lettered = [{"": letter(place), **row} for place, row in enumerate(rows)]
    settings = list(report["runs"][0]["settings"])
    measures = [column for column in lettered[0] if column not in {"", "run", *settings, _LATER}]
    console.print(
        _table(f"{len(rows)} of {len(rows) + len(report['left_out'])} runs compared", ["", "run", *settings], lettered)
    )
    console.print(_table("", ["", *measures], lettered))
    for row in lettered:
        for sentence in filter(None, row.get(_LATER, "").split("; ")):
            console.print(f"{row['']}  {sentence}", markup=False)
    for each in report["left_out"]:
        console.print(f"left out: {each['name']}: {each['reason']}", style="yellow", markup=False)
    console.print(f"page: {page}", soft_wrap=True, markup=False)


def _table(title: str, columns: list[str], rows: list[dict[str, str]]) -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[column]) for column in columns))
    return table
