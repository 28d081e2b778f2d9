"""The task that compares challengers with the champion: all measured now, on held-out rows of the challenger's run."""

import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import INPUTS, RUN_ID

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.data.validated import load_pairs
from preflow.errors import ArtifactError, ConfigError, PromotionError
from preflow.fingerprints.files import json_digest
from preflow.maths.paired import PairedComparison, RowScores, compare_paired
from preflow.maths.significance import spent_alpha
from preflow.models.resolve import ModelRef, model_digest, resolve_model
from preflow.observer import Observer, Silent
from preflow.promotion.verdict import Guard, Verdict, best, guards_of, judge
from preflow.specs import EvaluateSpec
from preflow.stages.promotion import Measured, held_out_digest, measure
from tasks.runtime.caching import RESULTS
from tasks.tracking.past_runs import PastRun, past_run
from tasks.tracking.registry.decisions import Draft, Outcome, Place, taken
from tasks.tracking.registry.integrity import Files, check_base, fetch, require_whole
from tasks.tracking.registry.state import State, read_state
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, Version

#: Settings of the champion's own recipe by which it is run; rows, prompts and limits are the challenger's.
_HOW_IT_RUNS = (
    *("model_name", "model_revision", "trust_remote_code", "tuning", "use_4bit", "bf16"),
    *("template", "chat_template", "template_date", "system_turn"),
)
_ANSWERS: dict[str, Outcome] = {"promote": "promoted", "refuse": "refused", "inconclusive": "inconclusive"}


class Challenger(Frozen):
    """A registered version with the run that made it."""

    version: Version
    run: PastRun

    @property
    def spec(self) -> EvaluateSpec:
        """Its models and its data."""
        return evaluation_of(self.run)


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
    observer = Silent()
    state = read_state(recipe.registered_model)
    require_known_champion(state)
    challengers = find_challengers(state, recipe, runs)
    champion = state.model.aliased(CHAMPION)
    measured = [_measure_challenger(each, observer) for each in challengers]
    with tempfile.TemporaryDirectory() as folder:
        against = _measure_champion(state, champion, challengers[0], Path(folder), observer)
    left_out = _trained_on(champion)
    return _draft(recipe, state, challengers, measured, against, left_out)


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
        found = [Challenger(version=named, run=past_run(recipe.name, named.run_id))]
    champion = model.aliases.get(CHAMPION)
    for each in found:
        if each.version.number == champion:
            raise PromotionError(
                f"version {champion} of {model.name} is the champion already: nothing is to be decided"
            )
        require_whole(model.name, each.version)
        if not load_pairs(each.run.artifacts["validate"], "eval"):
            raise PromotionError(
                f"run {each.run.run_id} has no held-out preference pairs, on which promotion.primary is measured: give "
                "the recipe some (dpo.eval_split or dpo.eval_dataset)"
            )
    if len({held_out_digest(each.spec) for each in found}) > 1:
        raise PromotionError("the runs have different held-out pairs: compare those of one data set")
    return found


def _version_of(state: State, recipe: Recipe, run_id: str) -> Challenger:
    run = past_run(recipe.name, run_id)
    digest = _made(run)[1].digest
    version = next((each for each in state.model.versions if each.artifact_digest == digest), None)
    if version is None:
        raise PromotionError(
            f"run {run_id} has no version of {state.model.name}: start it again, or deliver what waits (preflow sync)"
        )
    return Challenger(version=version, run=run)


def _made(run: PastRun) -> tuple[str, Artifact]:
    """The stage that made a run's model, and its artifact."""
    stage = "dpo" if "dpo" in run.artifacts else "sft"
    return stage, run.artifacts[stage]


def evaluation_of(run: PastRun) -> EvaluateSpec:
    """A finished run's models and data, as its evaluation was given them."""
    made = {name: run.artifacts[name] for name in ("sft", "dpo", "reference") if name in run.artifacts}
    return EvaluateSpec(
        recipe=run.recipe, base=resolve_model(run.recipe, Silent()), data=run.artifacts["validate"], **made
    )


def _reference(spec: EvaluateSpec) -> str:
    return "sft" if spec.dpo is not None and spec.sft is not None else "base"


def _measure_challenger(challenger: Challenger, observer: Observer) -> Measured:
    spec = challenger.spec
    return measure(spec, "dpo" if spec.dpo is not None else "sft", _reference(spec), observer)


def _measure_champion(
    state: State, champion: Version | None, challenger: Challenger, folder: Path, observer: Observer
) -> Measured:
    """The champion on the challenger's rows; without one, the reference that the challenger was trained from."""
    spec = challenger.spec
    if champion is None:
        return measure(spec, _reference(spec), None, observer)
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


def _trained_on(champion: Version | None) -> set[str] | None:
    """Content ids of the pairs that the champion was trained on; None where its run is not in this store any more."""
    if champion is None:
        return set()
    try:
        run = past_run("", champion.run_id)
    except (ConfigError, ArtifactError):
        return None
    return {row.id for row in load_pairs(run.artifacts["validate"], "train")}


def _without(rows: RowScores, left_out: set[str]) -> RowScores:
    kept = [place for place, row in enumerate(rows.ids) if row not in left_out]
    return RowScores([rows.ids[i] for i in kept], [rows.clusters[i] for i in kept], rows.values[kept])


def _draft(
    recipe: Recipe,
    state: State,
    challengers: list[Challenger],
    measured: list[Measured],
    against: Measured,
    left_out: set[str] | None,
) -> Draft:
    settings, champion = recipe.promotion, state.model.aliased(CHAMPION)
    digest = held_out_digest(challengers[0].spec)
    versions = [each.version for each in challengers]
    comparison = comparison_key(versions, champion)
    nth = decision_on(state.model.name, digest, comparison)
    level = spent_alpha(settings.alpha, nth)
    samples = max(recipe.evaluation.bootstrap_samples, math.ceil(20 / level))
    old = _without(against.rows, left_out or set())
    compared = [
        compare_paired(_without(each.rows, left_out or set()), old, alpha=level, samples=samples, seed=recipe.seed)
        for each in measured
    ]
    guards = [guards_of(settings.guards, _guarded(each, against)) for each in measured]
    verdicts = judge(compared, guards, settings, nth, level)
    chosen = best(verdicts, compared)
    return Draft(
        model=state.model.name,
        outcome=_ANSWERS[verdicts[chosen].answer],
        champion=None if champion is None else place_of(champion),
        chosen=place_of(versions[chosen]),
        reasons=verdicts[chosen].reasons,
        evidence={
            "held_out_digest": digest,
            "comparison": comparison,
            "decision_on_these_rows": nth,
            "level": level,
            "primary": settings.primary,
            "against": "champion" if champion else f"{_reference(challengers[0].spec)} model",
            "training_rows_left_out": "unknown" if left_out is None else len(left_out & set(against.rows.ids)),
            "challengers": [_recorded(*each) for each in zip(challengers, compared, guards, verdicts, strict=True)],
        },
    )


def place_of(version: Version) -> Place:
    """A version as decisions name it."""
    return Place(version=version.number, artifact_digest=version.artifact_digest)


def comparison_key(challengers: list[Version], champion: Version | None) -> str:
    """The name of a comparison: which models were compared with which. Asked again, it spends nothing more."""
    names = [sorted(each.artifact_digest for each in challengers), champion and champion.artifact_digest]
    return json_digest(names)[:32]


def decision_on(model: str, digest: str, comparison: str) -> int:
    """Which decision on a held-out set a comparison is, from 1; one that was decided on before keeps its number."""
    seen = [each.tags.get("comparison") for each in taken(model) if each.tags.get("held_out_digest") == digest]
    distinct = list(dict.fromkeys(seen))
    return (distinct.index(comparison) if comparison in distinct else len(distinct)) + 1


def _guarded(new: Measured, old: Measured) -> dict[str, float | None]:
    return {
        "kl": new.kl,
        "length_ratio": _ratio(new.response_tokens, old.response_tokens),
        "perplexity_ratio": _ratio(new.perplexity, old.perplexity),
    }


def _ratio(new: float | None, old: float | None) -> float | None:
    return None if new is None or not old else new / old


def _recorded(
    challenger: Challenger, compared: PairedComparison, guards: list[Guard], verdict: Verdict
) -> dict[str, Any]:
    return {
        "version": challenger.version.number,
        "run": challenger.run.run_id,
        "comparison": asdict(compared),
        "guards": [asdict(each) for each in guards],
        "answer": verdict.answer,
        "reasons": list(verdict.reasons),
        "p_adjusted": verdict.p,
    }
