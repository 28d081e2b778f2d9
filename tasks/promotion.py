"""The task that compares challengers with the champion: all measured now, on held-out rows of the challenger's run."""

import tempfile
from pathlib import Path

from prefect import task
from prefect.cache_policies import INPUTS, RUN_ID

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.data.validated import load_pairs
from preflow.errors import ArtifactError, ConfigError, PromotionError
from preflow.fingerprints.files import json_digest
from preflow.models.resolve import ModelRef, model_digest, resolve_model
from preflow.observer import Observer, Silent
from preflow.promotion.held_out import TrainedOn, without_training_rows
from preflow.redaction import redacted_errors
from preflow.specs import EvaluateSpec
from preflow.stages.promotion import Measured, held_out_digest, measure
from tasks.evidence import Challenger, draft_of, made_by, reference_of
from tasks.runtime.caching import RESULTS
from tasks.tracking.evaluated_runs import stage_artifact
from tasks.tracking.past_runs import PastRun, past_run, runs_that_made
from tasks.tracking.pipeline_run import find_run
from tasks.tracking.registry.decisions import Draft
from tasks.tracking.registry.integrity import Files, check_base, fetch, require_whole
from tasks.tracking.registry.state import State, read_state
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, Version

#: Settings of the champion's own recipe by which it is run; rows, prompts and limits are the challenger's.
_HOW_IT_RUNS = (
    *("model_name", "model_revision", "trust_remote_code", "tuning", "use_4bit", "bf16"),
    *("template", "chat_template", "template_date", "system_turn"),
)


@task(
    name="compare", persist_result=True, result_storage=RESULTS, result_serializer="json", cache_policy=INPUTS + RUN_ID
)
def compare(recipe: Recipe, runs: list[str]) -> Draft:
    """Compare challengers with the champion; what follows for the best of them, before anybody is asked.

    A flow that was suspended finds the comparison that it asked about.

    Args:
        recipe: The recipe, whose ``promotion:`` decides.
        runs: MLflow ids of the pipeline runs whose models are challengers; that of the alias where empty.

    Raises:
        PromotionError: There is nothing that could be compared, or a version is not what was registered.
    """
    with redacted_errors():
        return _compare(recipe, runs)


def _compare(recipe: Recipe, runs: list[str]) -> Draft:
    observer = Silent()
    state = read_state(recipe.registered_model)
    require_known_champion(state)
    challengers = find_challengers(state, recipe, runs)
    champion = state.model.aliased(CHAMPION)
    seen, digest = _trained_on(champion), held_out_digest(challengers[0].data)
    with tempfile.TemporaryDirectory() as folder:
        new_rows = [without_training_rows(each.data, seen, Path(folder)) for each in challengers]
        challengers = [each.on(rows.data) for each, rows in zip(challengers, new_rows, strict=True)]
        measured = [_measure_challenger(each, observer) for each in challengers]
        against = _measure_champion(state, champion, challengers[0], Path(folder), observer)
        return draft_of(recipe, state, challengers, measured, against, new_rows, digest)


def require_known_champion(state: State) -> None:
    """Refuse to decide while registry and decisions do not agree on the champion.

    Raises:
        PromotionError: They do not.
    """
    if state.problems:
        raise PromotionError(state.problems[0])


def find_challengers(state: State, recipe: Recipe, runs: list[str]) -> list[Challenger]:
    """The versions that runs registered, or that of the alias.

    Raises:
        PromotionError: There is none, or it is the champion already.
    """
    model = state.model
    if runs:
        found = [_version_of(state, recipe, run) for run in runs]
    else:
        named = model.aliased(CHALLENGER)
        if named is None:
            raise PromotionError(
                f"{model.name} has no {CHALLENGER}: finish a run of the recipe (preflow run RECIPE), or give --run"
            )
        newest, *_ = runs_that_made(named.artifact_digest, named.run_id)
        found = [Challenger(version=named, run=past_run(recipe.name, newest))]
    champion = model.aliases.get(CHAMPION)
    for each in found:
        if each.version.number == champion:
            raise PromotionError(
                f"version {champion} of {model.name} is the champion already: nothing is to be decided"
            )
        require_whole(model.name, each.version)
        _require_benchmarks(recipe, each.run)
        if not load_pairs(each.data, "eval"):
            raise PromotionError(
                f"run {each.run.run_id} has no held-out preference pairs, on which promotion.primary is measured: give "
                "the recipe some (dpo.eval_split or dpo.eval_dataset)"
            )
    found = [each.model_copy(update={"run": each.run.evaluated_by(recipe)}) for each in found]
    if len({held_out_digest(each.data) for each in found}) > 1:
        raise PromotionError("the runs have different held-out pairs: compare those of one data set")
    return found


def _require_benchmarks(recipe: Recipe, run: PastRun) -> None:
    """Refuse tasks that a run did not do: its training rows were not searched for their prompts.

    Raises:
        PromotionError: The recipe asks for such a task; names them.
    """
    asked, own = recipe.evaluation.benchmarks, run.recipe.evaluation.benchmarks
    done = {Path(task).name for task in own.tasks} if own is not None else set()
    missing = [task for task in (asked.tasks if asked is not None else ()) if Path(task).name not in done]
    if missing:
        raise PromotionError(
            f"the recipe asks for {', '.join(missing)} in evaluation.benchmarks, which run {run.run_id} did not do: "
            "run the recipe with them (preflow run RECIPE), then ask again; the stages before are found computed"
        )


def champion_by(recipe: Recipe, run_id: str) -> int | None:
    """The number of the champion, where a run made that very model; none where it made another.

    Raises:
        PromotionError: Registry and decisions do not agree, or the run's model is not registered.
    """
    state = read_state(recipe.registered_model)
    require_known_champion(state)
    number = _version_of(state, recipe, run_id).version.number
    return number if number == state.model.aliases.get(CHAMPION) else None


def _version_of(state: State, recipe: Recipe, run_id: str) -> Challenger:
    run = past_run(recipe.name, run_id)
    digest = made_by(run)[1].digest
    version = next((each for each in state.model.versions if each.artifact_digest == digest), None)
    if version is None:
        raise PromotionError(
            f"run {run_id} has no version of {state.model.name}: start it again, or deliver what waits (preflow sync)"
        )
    return Challenger(version=version, run=run)


def _measure_challenger(challenger: Challenger, observer: Observer) -> Measured:
    spec = challenger.spec
    return measure(spec, "dpo" if spec.dpo is not None else "sft", reference_of(spec), observer)


def _measure_champion(
    state: State, champion: Version | None, challenger: Challenger, folder: Path, observer: Observer
) -> Measured:
    """The champion on the challenger's rows; without one, the reference that the challenger was trained from."""
    spec = challenger.spec
    if champion is None:
        return measure(spec, reference_of(spec), None, observer)
    files = fetch(state.model.name, champion, folder)
    base = _base(f"version {champion.number} of {state.model.name}", files)
    how = {name: getattr(files.recipe, name) for name in _HOW_IT_RUNS}
    own = spec.recipe.model_copy(update=how)
    model = Artifact(path=str(Path(files.trained).parent), digest=champion.artifact_digest, bytes=0)
    return measure(EvaluateSpec(recipe=own, base=base, data=spec.data, dpo=model), "dpo", None, observer)


def _base(which: str, files: Files) -> ModelRef:
    """What a version is loaded over, held to its digests."""
    named = str(files.settings["base_name"])
    if files.settings["base"] is None:  # full weights have their tokenizer beside them
        return ModelRef(name=named, path=files.trained, digest=model_digest(Path(files.trained)))
    digest = json_digest(files.settings["base_files"])
    if check_base(which, files) is None:
        return ModelRef(name=named, path=files.settings["base"], digest=digest)
    found = resolve_model(files.recipe, Silent())
    elsewhere = files.model_copy(update={"settings": {**files.settings, "base": found.path}})
    check_base(which, elsewhere)
    return ModelRef(name=named, path=found.path, digest=digest)


def _trained_on(champion: Version | None) -> TrainedOn:
    """What the champion was trained on; unknown where its run, or the rows, are not in this store any more."""
    if champion is None:
        return TrainedOn()
    try:
        data = stage_artifact(find_run(champion.run_id).run_id, "validate")
    except (ConfigError, ArtifactError):
        return TrainedOn(known=False)
    return TrainedOn(known=False) if data is None else TrainedOn.of(data)
