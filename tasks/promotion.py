"""The task that compares challengers with the champion: all measured now, on held-out rows of the challenger's run."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.cache_policies import INPUTS, RUN_ID

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.data.validated import load_pairs
from preflow.errors import ArtifactError, ConfigError, PromotionError
from preflow.fingerprints.files import json_digest
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
from tasks.tracking.registry.bases import loaded_over, trained_over
from tasks.tracking.registry.decisions import Draft
from tasks.tracking.registry.integrity import fetch
from tasks.tracking.registry.state import State, read_state
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, Version
from tasks.tracking.review.collected import base_digest

#: Settings of the champion's own recipe by which it is run; rows, prompts and limits are the challenger's.
_HOW_IT_RUNS = (
    *("model_name", "model_revision", "trust_remote_code", "tuning", "use_4bit", "bf16"),
    *("template", "chat_template", "template_date", "system_turn"),
)
#: Settings of the training sections by which held-out rows are prepared.
_LIMITS = {"max_seq_length", "overlong_response", "train_on"}


@dataclass(frozen=True, slots=True)
class Other:
    """What a challenger is compared with: a model of a specification, by its name there."""

    spec: EvaluateSpec
    name: str

    @property
    def key(self) -> str:
        """Digest of all that its measures depend on."""
        spec, wanted = self.spec, dict.fromkeys((*_HOW_IT_RUNS, "strategy", "evaluation", "seed"), True)
        recipe = spec.recipe.model_dump(mode="json", include={**wanted, "sft": _LIMITS, "dpo": _LIMITS})
        trained = {"sft": spec.sft, "dpo": spec.dpo}.get(self.name)
        return json_digest([recipe, self.name, spec.base.digest, trained and trained.digest, spec.data.digest])


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
        others = _others(state, champion, challengers, recipe, Path(folder))
        measured = [_measure_challenger(each, observer) for each in challengers]
        both = [*zip(measured, _measure_others(others, observer), strict=True)]
        return draft_of(recipe, state, challengers, both, new_rows, digest)


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
        _require_benchmarks(recipe, each.run)
        if not load_pairs(each.data, "eval"):
            raise PromotionError(
                f"run {each.run.run_id} has no held-out preference pairs, on which promotion.primary is measured: give "
                "the recipe some (dpo.eval_split or dpo.eval_dataset)"
            )
    found = [_over(model.name, each, recipe) for each in found]
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


def _others(
    state: State, champion: Version | None, challengers: list[Challenger], asked: Recipe, folder: Path
) -> list[Other]:
    """What each challenger is compared with: the champion on its rows; without one, the model that it was trained from.

    Raises:
        PromotionError: The champion's files, or its base, are not what was registered.
    """
    specs = [each.spec for each in challengers]
    if champion is None:
        return [Other(spec, reference_of(spec)) for spec in specs]
    files = fetch(state.model.name, champion, folder)
    recipes = [files.recipe, asked, *(spec.recipe for spec in specs)]
    base = loaded_over(f"version {champion.number} of {state.model.name}", files, recipes)
    how = {name: getattr(files.recipe, name) for name in _HOW_IT_RUNS}
    model = Artifact(path=str(Path(files.trained).parent), digest=champion.artifact_digest, bytes=0)
    given = [(spec.recipe.model_copy(update=how), spec.data) for spec in specs]
    return [Other(EvaluateSpec(recipe=own, base=base, data=data, dpo=model), "dpo") for own, data in given]


def _measure_others(others: list[Other], observer: Observer) -> list[Measured]:
    """What challengers are compared with, each model measured once on the same rows by the same settings."""
    found: dict[str, Measured] = {}
    for each in others:
        if each.key not in found:
            found[each.key] = measure(each.spec, each.name, None, observer)
    return [found[each.key] for each in others]


def _over(name: str, challenger: Challenger, asked: Recipe) -> Challenger:
    """A challenger whose files were held to their digests, with the base that it was trained over, wherever it is now.

    Raises:
        PromotionError: A file is missing, or is not what was registered.
    """
    version, run = challenger.version, challenger.run
    with tempfile.TemporaryDirectory() as folder:
        files = fetch(name, version, Path(folder))
    which = f"version {version.number} of {name}"
    base = trained_over(which, files, [run.recipe, asked], base_digest(run.run_id))
    return challenger.model_copy(update={"base": base})


def _trained_on(champion: Version | None) -> TrainedOn:
    """What the champion was trained on; unknown where its run, or the rows, are not in this store any more."""
    if champion is None:
        return TrainedOn()
    try:
        data = stage_artifact(find_run(champion.run_id).run_id, "validate")
    except (ConfigError, ArtifactError):
        return TrainedOn(known=False)
    return TrainedOn(known=False) if data is None else TrainedOn.of(data)
