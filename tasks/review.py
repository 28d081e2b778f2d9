"""A human review of a finished run: opened with a key that stays here, shown in MLflow or as sheets, collected."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from preflow.config.evaluation.review import ReviewSettings
from preflow.data.validated import load_pairs
from preflow.environment import store_folder
from preflow.errors import ReviewError
from preflow.observer import Silent
from preflow.review.collecting import Given, checked, collect, metrics_of
from preflow.review.drawing import draw_questions, fit_pairs, gold_pairs, new_seed, share
from preflow.review.key import Asked, Key, ReviewPair, keys_in, newest, require_reviewers, write_key
from preflow.review.new_pairs import new_pairs
from preflow.review.record import Compared, Prompts
from preflow.review.sheets import read_sheet, sheet_file, write_sheet
from preflow.stages.review import Turns, kept_answers, new_answers, paired_answers, prompts_of, spread
from tasks.evidence import evaluation_of
from tasks.tracking.evaluated_runs import champion_run, stage_artifact
from tasks.tracking.past_runs import PastRun, past_run
from tasks.tracking.review import queues
from tasks.tracking.review.collected import base_digest, log_review

CHAMPION = "champion"
#: Prompts that are answered for each pair that is wanted: some answers turn out alike.
_SPARE = 1.25


def reviews_folder(recipe: str) -> Path:
    """Where the keys of a recipe's reviews are."""
    return store_folder() / "reviews" / recipe


def open_review(
    run: PastRun, settings: ReviewSettings, reviewers: Sequence[str], pairs: int, prompts: Prompts, against: str
) -> Key:
    """The review that is asked for: the one that is there, or a new one, whose key is kept before anything is shown.

    Args:
        run: The finished run whose model is the new one.
        settings: The recipe's.
        reviewers: Who is asked.
        pairs: How many pairs each compares.
        prompts: Held-out or training prompts.
        against: ``champion``, ``sft``, ``base``, or empty for the reference of the run.

    Raises:
        ReviewError: There is nothing to compare.
    """
    names = require_reviewers(reviewers)
    new, old, other = _models(run, against)
    asked = Asked(run.run_id, prompts, (new, old), names, pairs)
    folder = reviews_folder(run.recipe.name)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "open.lock"):
        there = keys_in(folder)
        found = next((key for key in there if key.is_for(asked)), None)
        if found is not None:
            return found
        key = _new_key(run, settings, asked, against or old.name, other)
        number = 1 + max([each.number for each in there] + queues.numbers_in_use(run.recipe.name), default=0)
        key = key.model_copy(update={"number": number})
        write_key(folder, key)
    return key


def show(key: Key, progress: Callable[[int, int], None]) -> dict[str, str]:
    """Put a review into MLflow's Review tab; each reviewer's address below the UI's own."""
    with FileLock(reviews_folder(key.recipe) / "open.lock"):  # two at once would show every question twice
        return queues.show(key, progress)


def write_sheets(key: Key, folder: Path) -> dict[Path, bool]:
    """Write a sheet for each reviewer; whether it was written, or was there before."""
    files = {name: sheet_file(folder, name) for name in key.reviewers}
    return {file: write_sheet(file, key, name) for name, file in files.items()}


def find_review(recipe: str, run: str | None, number: int | None) -> Key:
    """The key of a review that was opened in this store.

    Raises:
        ReviewError: There is none.
    """
    where = f"run {run}" if run is not None else f"the recipe '{recipe}'"
    return newest(keys_in(reviews_folder(recipe)), run, number, where)


def answers_of(key: Key, sheets: Path | None) -> dict[str, Given]:
    """The answers of all reviewers: from the sheets of those who have one, from MLflow's queues of the others.

    Raises:
        ReviewError: A sheet cannot be read, or the folder has none.
    """
    found = queues.answers(key)
    if sheets is None:
        return found
    files = {name: sheet_file(sheets, name) for name in key.reviewers if sheet_file(sheets, name).is_file()}
    if not files:
        raise ReviewError(f"{sheets} has no sheet of {', '.join(key.reviewers)}: expected NAME.csv")
    for name, file in files.items():
        for question in key.of(name):
            found.pop(question.id, None)
        for question_id, (answer, comment) in read_sheet(file, key, name).items():
            found[question_id] = Given(answer, comment, file.name)
    return found


def collected(
    key: Key, sheets: Path | None, *, accept_open: bool
) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """The report of a review, logged to its run, and of training prompts that count the new pairs.

    Args:
        key: The review.
        sheets: The folder of sheets; none for MLflow's queues alone.
        accept_open: Whether questions without an answer will not be answered any more.
    """
    given = answers_of(key, sheets)
    judged = stage_artifact(key.run, "judge")
    verdicts = judged.load("verdicts.json") if judged is not None else []
    report = collect(key, given, verdicts, accept_open=accept_open)
    log_review(key.run, report, metrics_of(report))
    if key.prompts == "test" or report["reason"]:
        return report, None
    return report, new_pairs(key, checked(key, given))


def _models(run: PastRun, against: str) -> tuple[Compared, Compared, PastRun]:
    """The new model, the other one, and the run that has the other one."""
    trained = [name for name in ("dpo", "sft") if name in run.artifacts]
    new = _compared(run, trained[0])
    if against == CHAMPION:
        named = champion_run(run.recipe.registered_model)
        if named is None or named == run.run_id:
            what = "has no champion" if named is None else f"has run {run.run_id} itself as its champion"
            raise ReviewError(
                f"the registered model {run.recipe.registered_model} {what}: compare with the reference, --against sft"
            )
        champion = past_run("", named)
        return new, _compared(champion, "dpo" if "dpo" in champion.artifacts else "sft"), champion
    others = [*trained[1:], "base"]
    name = against or others[0]
    if name not in others:
        raise ReviewError(
            f"--against {name}: run {run.run_id} has {' and '.join(others)} to compare its {trained[0]} model with, or "
            "the champion"
        )
    return new, _compared(run, name), run


def _compared(run: PastRun, name: str) -> Compared:
    digest = base_digest(run.run_id) if name == "base" else run.artifacts[name].digest
    return Compared(name=name, run=run.run_id, digest=digest)


def _new_key(run: PastRun, settings: ReviewSettings, asked: Asked, against: str, other: PastRun) -> Key:
    evaluation, seed = run.recipe.evaluation, new_seed()
    answered = _answered(run, asked, other)
    fit = fit_pairs(answered, asked.pairs)
    if not fit:
        raise ReviewError(
            f"run {run.run_id} and the other model answer all {len(answered)} prompts alike: compare with another one "
            "(--against)"
            if answered
            else f"run {run.run_id} kept no answers to compare: give the recipe evaluation.kl_prompts, and prompts"
        )
    held_out = load_pairs(run.artifacts["validate"], "eval")
    gold = gold_pairs(held_out, fit, share(settings.gold, len(fit)))
    return Key(
        number=0,
        recipe=run.recipe.name,
        run=run.run_id,
        prompts=asked.prompts,
        against=against,
        models=asked.models,
        reviewers=asked.reviewers,
        asked_for=asked.pairs,
        settings=settings,
        confidence=evaluation.confidence,
        bootstrap_samples=evaluation.bootstrap_samples,
        seed=seed,
        pairs=tuple(fit),
        gold=tuple(gold),
        questions=tuple(draw_questions(fit, gold, asked.reviewers, settings, seed)),
    )


def _answered(run: PastRun, asked: Asked, other: PastRun) -> list[ReviewPair]:
    """Both models' answers; kept ones where the run's evaluation has them."""
    new, old = asked.models
    if asked.prompts == "train":
        wanted = spread(prompts_of(run.artifacts["validate"], "train"), math.ceil(_SPARE * asked.pairs))
        return paired_answers(wanted, _sampled(run, new, wanted, run), _sampled(other, old, wanted, run))
    held_out = prompts_of(run.artifacts["validate"], "eval")
    evaluation = stage_artifact(run.run_id, "evaluate")
    answers = {} if evaluation is None else kept_answers(evaluation, new.name)
    mine = {prompt: held_out[prompt] for prompt in answers if prompt in held_out}
    if evaluation is not None and old.run == run.run_id:
        return paired_answers(mine, answers, kept_answers(evaluation, old.name))
    return paired_answers(mine, answers, _sampled(other, old, mine, run))


def _sampled(owner: PastRun, model: Compared, prompts: Turns, run: PastRun) -> dict[str, str]:
    """A model's answers under the lengths and the seed of the run that is reviewed."""
    if not prompts:
        return {}
    return new_answers(evaluation_of(owner), model.name, prompts, run.recipe.evaluation, run.recipe.seed, Silent())
