"""``preflow verify NAME@ALIAS | RUN | FOLDER``: whether a model is still what was trained and measured."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.running.terminal import clear_errors

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from preflow.verification.check import Check

_DIFFERS = 1


def main(
    what: Annotated[str, typer.Argument(help="A registered model with an alias, MLflow's id of a run, or a folder.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Accept data and models that cannot be reached.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Compute every digest anew, back to the raw rows, and the measures from the kept log-probs.

    Exit code 0 where all is as it was, 1 where something differs (the first is named last), 2 where it cannot be asked.
    """
    with clear_errors():
        check = checked(what)
    failed = [each for each in check.failed() if not (allow_missing and each.state == "not reachable")]
    if as_json:
        typer.echo(json.dumps(check.to_json(), indent=1, ensure_ascii=False))
    else:
        _show(check)
        first = f"{failed[0].state}: {failed[0].name}: {failed[0].detail}" if failed else "all is as it was"
        typer.secho(first, fg="red" if failed else "green")
    raise typer.Exit(_DIFFERS if failed else 0)


def checked(what: str) -> "Check":
    """The outcome for a folder, a run, or a registered model's alias.

    Raises:
        ConfigError: MLflow knows no such run.
        PromotionError: It knows no such registered model, or alias of it.
    """
    from preflow.environment import private_home

    private_home()
    from preflow.verification.run_checks import verify_folder, verify_run

    if Path(what).is_dir():
        return verify_folder(Path(what))
    from tasks.tracking.client import away_is_a_tracking_error, require_mlflow

    require_mlflow()
    from tasks.tracking.recorded_run import recorded_run
    from tasks.tracking.registry.checks import verify_version, version_of

    with away_is_a_tracking_error():
        name, at, alias = what.partition("@")
        if not at:
            return verify_run(recorded_run(what))
        version = version_of(name, alias)
        run = recorded_run(version.run_id)
        digest = run.stages.get(version.stage, {}).get("artifact_digest")
        return verify_version(name, version, verify_run(run), digest)


def _show(check: "Check") -> None:
    from rich.tree import Tree

    from preflow.console import TextConsole

    TextConsole().print(_branch(check, Tree(_line(check))))


def _branch(check: "Check", tree: "Tree") -> "Tree":
    for each in check.below:
        _branch(each, tree.add(_line(each)))
    return tree


def _line(check: "Check") -> "Text":
    from rich.text import Text

    colors = {"ok": "green", "changed": "bold red", "missing": "red", "not reachable": "yellow"}
    line = Text.assemble((f"{check.state}", colors[check.state]), f"  {check.name}")
    return line.append(f": {check.detail}", "dim") if check.detail else line
