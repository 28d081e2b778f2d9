"""``preflow review open | status | collect``: people compare two models' answers without knowing whose they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from flows.running.terminal import Overrides, clear_errors, parse_overrides

if TYPE_CHECKING:
    from preflow.review.key import Key

_OPEN = 1
_WHAT = "The recipe (a file, or the name of a packaged one), or MLflow's id of a finished run."
What = Annotated[str, typer.Argument(metavar="RECIPE_OR_RUN", help=_WHAT)]
Number = Annotated[int | None, typer.Option("--review", help="The review's number; the newest otherwise.")]
Sheets = Annotated[Path | None, typer.Option("--csv", help="The folder of the sheets, NAME.csv for each reviewer.")]

app = typer.Typer(
    help="Human review: blinded pairs of answers, in MLflow's Review tab or as sheets.", add_completion=False
)


class _Named(NamedTuple):
    """What a command is about: a recipe by its name, or a run of it; with settings where a recipe is given."""

    recipe: str
    run: str | None
    settings: Any


@app.command(name="open")
def open_(
    what: What,
    reviewers: Annotated[str, typer.Option(help="Names, separated by commas.")],
    pairs: Annotated[int, typer.Option(min=1, help="Pairs that each reviewer compares.")] = 60,
    against: Annotated[str, typer.Option(help="champion, sft or base; the reference of the run where not given.")] = "",
    prompts: Annotated[str, typer.Option(help="test: for a win rate. train: for new training pairs.")] = "test",
    sheets: Annotated[
        Path | None, typer.Option("--csv", help="Write a sheet NAME.csv for each reviewer here, and no queue.")
    ] = None,
    changes: Overrides = None,
) -> None:
    """Ask reviewers which of two answers is better; the same command again goes on and adds nothing twice."""
    with clear_errors():
        overrides = parse_overrides(changes)
        named = _named(what, overrides)
        from flows.running.addresses import mlflow_address
        from preflow.config.loading import changed_recipe
        from preflow.errors import ReviewError
        from tasks.review import open_review, write_sheets
        from tasks.review import show as show_in_mlflow
        from tasks.tracking.client import away_is_a_tracking_error
        from tasks.tracking.past_runs import past_run

        if prompts not in ("test", "train"):
            raise ReviewError(f"--prompts {prompts}: expected test or train")
        with away_is_a_tracking_error():
            run = past_run(named.recipe, named.run)
            settings = named.settings or changed_recipe(run.recipe, overrides).evaluation.review
            key = open_review(
                run, settings, reviewers.split(","), pairs, "train" if prompts == "train" else "test", against
            )
            files = {} if sheets is None else write_sheets(key, sheets)
            addresses = show_in_mlflow(key, _progress) if sheets is None else {}
        ui = mlflow_address()
    _show_opened(key)
    for file, is_new in files.items():
        typer.echo(f"{file}{'' if is_new else ' was there already, and is kept'}")
    for name, address in addresses.items():
        typer.echo(f"{name}: {ui}{address}")


@app.command()
def status(what: What, number: Number = None, sheets: Sheets = None) -> None:
    """Who has answered how much; exit code 1 while questions are open."""
    with clear_errors():
        from preflow.review.collecting import checked

        key = _key(what, number)
        from tasks.review import answers_of
        from tasks.tracking.client import away_is_a_tracking_error

        with away_is_a_tracking_error():
            answered = checked(key, answers_of(key, sheets))
    for name in key.reviewers:
        asked = {question.id for question in key.of(name)}
        open_, declined, invalid = (
            len(asked & set(each)) for each in (answered.open, answered.declined, answered.invalid)
        )
        more = [f"{declined} declined"] if declined else []
        more += [f"{invalid} with an answer outside the options"] if invalid else []
        typer.echo(f"{name}: {len(asked) - open_} of {len(asked)} done{''.join(f', {each}' for each in more)}")
    raise typer.Exit(_OPEN if answered.open else 0)


@app.command()
def collect(
    what: What,
    number: Number = None,
    sheets: Sheets = None,
    accept_open: Annotated[
        bool, typer.Option("--accept-open", help="Count without the questions that are still open.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="File for the new pairs of --prompts train; below PREFLOW_HOME otherwise.")
    ] = None,
) -> None:
    """Count the answers: exit code 0, or 1 with open questions or too little agreement, or 2 where it cannot be read.

    Of held-out prompts: a win rate, logged to the run. Of training prompts: new preference pairs.
    """
    with clear_errors():
        key = _key(what, number)
        from preflow.environment import preflow_home
        from preflow.review.new_pairs import write_pairs
        from tasks.review import collected
        from tasks.tracking.client import away_is_a_tracking_error

        with away_is_a_tracking_error():
            report, pairs = collected(key, sheets, accept_open=accept_open)
        if pairs is not None:
            file = out or preflow_home() / "reviews" / key.recipe / f"pairs-{key.number}.jsonl"
            write_pairs(file, pairs)
            typer.echo(f"{len(pairs)} new pairs: {file}")
    for line in lines(report):
        typer.echo(line)
    if report["reason"]:
        typer.secho(f"review {key.number} does not count yet: {report['reason']}", fg="yellow", err=True)
        raise typer.Exit(_OPEN)


def lines(report: dict[str, Any]) -> list[str]:
    """What a terminal shows of a report."""
    found = []
    if rate := report["win_rate"]:
        new, old = (model["name"] for model in report["models"])
        found.append(
            f"human/win_rate {rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] of {new} against "
            f"{report['against'] if report['against'] == 'champion' else old} on {len(report['rows'])} prompts: "
            f"{report['better']} better, {report['worse']} worse, {report['equal']} equal; {report['test']}, "
            f"p = {report['p']:.3g}"
        )
    agreement = report["agreement"]
    if agreement["value"] is not None:
        found.append(f"agreement: {agreement['measure']} {agreement['value']:.2f} on {agreement['units']} pairs")
    for name in ("self_consistency", "gold_accuracy"):
        if report[name]["of"]:
            found.append(f"{name.replace('_', ' ')}: {report[name]['right']:g} of {report[name]['of']}")
    if (judge := report["judge"]) is not None:
        kappa = "not defined" if judge["value"] is None else f"{judge['value']:.2f}"
        found.append(f"judge and people: the same on {judge['observed']:.0%} of {judge['units']} pairs, kappa {kappa}")
    return [*found, *(f"warning: {each}" for each in report["warnings"])]


def _named(what: str, overrides: dict[str, Any] | None = None) -> _Named:
    """The recipe or the run that an argument names; overrides change a recipe's settings."""
    from flows.running.preparation import find_recipe
    from preflow.config.loading import load_recipe
    from preflow.environment import make_home
    from tasks.tracking.client import require_mlflow

    make_home()  # before Prefect is imported
    require_mlflow()
    if len(what) == 32 and set(what) <= set("0123456789abcdef") and not find_recipe(what).exists():
        from tasks.tracking.pipeline_run import find_run

        return _Named(find_run(what).recipe, what, None)
    recipe = load_recipe(find_recipe(what), overrides or {})
    return _Named(recipe.name, None, recipe.evaluation.review)


def _key(what: str, number: int | None) -> "Key":
    named = _named(what)
    from tasks.review import find_review

    return find_review(named.recipe, named.run, number)


def _show_opened(key: "Key") -> None:
    kinds = [question.kind for question in key.of(key.reviewers[0])]
    pairs, repeats, gold = (kinds.count(kind) for kind in ("pair", "repeat", "gold"))
    fewer = (
        "" if pairs >= key.asked_for else f" (of {key.asked_for} asked for; the others have no two different answers)"
    )
    typer.echo(
        f"review {key.number}: {key.models[0].name} against {key.against}, {pairs} pairs{fewer}, repeated: {repeats}, "
        f"gold: {gold}; for each of {', '.join(key.reviewers)}"
    )


def _progress(done: int, of: int) -> None:
    if done == of or done % 20 == 0:
        typer.echo(f"{done} of {of} questions", err=True)
