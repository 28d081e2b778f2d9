"""The checks of a finished run, from its registry entry back to the raw rows."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from preflow.artifacts import MANIFEST, verify
from preflow.benchmarks.tasks import tasks_of
from preflow.card_sections import with_sections
from preflow.config import Recipe
from preflow.errors import ArtifactError, ConfigError, JudgeError, ModelError
from preflow.fingerprints.files import file_digest, json_digest
from preflow.judges.kept_verdicts import KeptVerdicts
from preflow.judges.report import judge_report
from preflow.model_card import ON_CARD, CardFacts, model_card
from preflow.models.resolve import find_model, model_digest
from preflow.observer import Silent
from preflow.specs import JudgeSpec, StageSpec
from preflow.verification.check import Check, together
from preflow.verification.identities import REBUILT, specifications, wrong_identity, wrong_parts
from preflow.verification.numbers import recomputed
from preflow.verification.recorded import RecordedRun, parsed, place_of


def verify_run(run: RecordedRun) -> Check:
    """Check all that can be checked of a run; nothing is remembered from earlier checks."""
    parts = [_recipe(run), together("data", *(_data_file(path, digest) for path, digest in run.data))]
    parts.append(together("stages", *(_stage(run, name) for name in run.stages)))
    recipe = parsed(run.recipe)
    if recipe is not None:
        parts += [_identities(run, recipe), _base(run, recipe), _numbers(run, recipe)]
        parts += [_judge(run, recipe)] if "judge" in run.stages else []
        parts.append(_card(run, recipe))
    return together(f"run {run.run_id}", *parts)


def verify_folder(folder: Path) -> Check:
    """Check one artifact by its manifest."""
    try:
        verify(folder)
    except ArtifactError as error:
        return Check(str(folder), "changed", error.message)
    return Check(str(folder), "ok")


def _recipe(run: RecordedRun) -> Check:
    name = "recipe.yaml"
    if run.recipe is None:
        return Check(name, "missing", "MLflow has no such file of the run")
    if parsed(run.recipe) is None:
        return Check(name, "changed", "it is no recipe any more")
    settings = yaml.safe_load(run.recipe)
    digest = json_digest(settings)  # as recorded: a later Preflow has settings that the run did not know
    if digest != run.tags.get("recipe_digest"):
        return Check(name, "changed", f"its digest is {digest}, the run's tag says {run.tags.get('recipe_digest')}")
    if run.recipe != yaml.safe_dump(settings, indent=2, default_flow_style=False):
        return Check(name, "changed", "its settings are the recorded ones, its text is not as it was written")
    return Check(name, "ok")


def _data_file(path: str, digest: str) -> Check:
    if not Path(path).is_absolute():
        return Check(path, "ok")  # of the hub: its digest is the commit, which names its contents
    if not Path(path).is_file():
        return Check(path, "not reachable", "no such file")
    found = file_digest(Path(path))
    return Check(path, "ok") if found == digest else Check(path, "changed", f"SHA-256 {found}, expected {digest}")


def _stage(run: RecordedRun, name: str) -> Check:
    tags = run.stages[name]
    folder = place_of(tags["artifact_path"])
    if not (folder / MANIFEST).is_file():
        return Check(name, "not reachable", f"{folder} is not there")
    try:
        artifact = verify(folder)
    except ArtifactError as error:
        return Check(name, "changed", error.message)
    run.found[name] = artifact
    if artifact.digest != tags["artifact_digest"]:
        detail = f"the tag artifact_digest says {tags['artifact_digest']}, the files have {artifact.digest}"
        return Check(name, "changed", detail)
    if "identity" in tags and folder.name != tags["identity"]:
        return Check(name, "changed", f"the tag identity says {tags['identity']}, the folder is {folder.name}")
    return Check(name, "ok")


def _base(run: RecordedRun, recipe: Recipe) -> Check:
    name, expected = "base model", run.tags.get("base_model_digest", "")
    try:
        base = find_model(recipe, Silent(), weights=False)
        folders = [Path(base.path), *([Path(base.adapter)] if base.adapter else [])]
        if not all(folder.is_dir() for folder in folders):
            return Check(name, "not reachable", f"{base.path} is not there")
        found = "+".join(model_digest(folder, remembered=False) for folder in folders)
    except ModelError as error:
        return Check(name, "not reachable", error.message)
    if found != expected:
        return Check(name, "changed", f"the weights at {base.path} have the digest {found}, expected {expected}")
    return Check(name, "ok")


def _numbers(run: RecordedRun, recipe: Recipe) -> Check:
    name = "measures of evaluation.json, from the kept log-probs"
    if "evaluate" not in run.found:
        return Check(name, "not reachable", "the evaluation's files are not as they were")
    artifact = run.found["evaluate"]
    wrong = recomputed(recipe, artifact.load("pairs.json"), artifact.load("evaluation.json"))
    return Check(name, "changed", "; ".join(wrong[:3])) if wrong else Check(name, "ok")


def _identities(run: RecordedRun, recipe: Recipe) -> Check:
    """The identity of each stage, from the specification that was recorded, and that from recipe and artifacts."""
    specs = specifications(recipe, run.tags.get("base_model_digest", ""), run.found, _task_files(recipe))
    return together("identities", *(_identity(run, name, specs.get(name)) for name in run.stages))


def _task_files(recipe: Recipe) -> list[str]:
    """Digests of the files of a recipe's benchmarks; empty where one is gone, so that another identity comes out."""
    asked = recipe.evaluation.benchmarks
    try:
        tasks = [] if asked is None else tasks_of(asked.tasks)
    except ConfigError:
        return []
    return [file_digest(file) for task in tasks for file in task.files]


def _identity(run: RecordedRun, stage: str, spec: StageSpec | None) -> Check:
    name, recorded = f"identity of {stage}", run.specifications.get(stage)
    if recorded is None:
        return Check(name, "not reachable", "the run recorded no specification.json of the stage")
    wrong = wrong_identity(recorded, place_of(run.stages[stage]["artifact_path"]).name)
    if wrong:
        return Check(name, "changed", wrong)
    if stage not in REBUILT:
        return Check(name, "ok", "its inputs are another command's, so they were not computed anew")
    if spec is None:
        return Check(name, "not reachable", "the artifacts that the stage was given are not as they were")
    parts = wrong_parts(recorded, spec, run.data)
    return Check(name, "changed", "; ".join(parts[:3])) if parts else Check(name, "ok")


def _judge(run: RecordedRun, recipe: Recipe) -> Check:
    """The judge's test and win rates, from the verdicts that were kept on the answers that were kept."""
    name = "numbers of judge.json, from the kept verdicts"
    if not {"validate", "evaluate", "judge"} <= run.found.keys():
        return Check(name, "not reachable", "the files that they are computed from are not as they were")
    artifact = run.found["judge"]
    kept = artifact.load("judge.json")
    judge = KeptVerdicts(kept["judge"], artifact.load("verdicts.json"))
    recipe = as_tested(recipe, artifact.load("verdicts.json"))
    spec = JudgeSpec(recipe=recipe, data=run.found["validate"], evaluation=run.found["evaluate"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = json.loads(json.dumps(judge_report(spec, judge, Path(folder), Silent()).values))
    except JudgeError as error:
        return Check(name, "changed", error.message)
    wrong = [f"{key} is {kept.get(key)}, expected {value}" for key, value in made.items() if kept.get(key) != value]
    return Check(name, "changed", "; ".join(wrong[:3])) if wrong else Check(name, "ok")


def as_tested(recipe: Recipe, verdicts: Sequence[Mapping[str, Any]]) -> Recipe:
    """The recipe without planted orders, where none was planted: an earlier Preflow knew none."""
    judge = recipe.evaluation.judge
    if judge is None or any(row["of"] == "orders" for row in verdicts):
        return recipe
    evaluation = recipe.evaluation.model_copy(update={"judge": judge.model_copy(update={"orders": 0})})
    return recipe.model_copy(update={"evaluation": evaluation})


def _card(run: RecordedRun, recipe: Recipe) -> Check:
    name = "model card"
    if run.card is None:
        return Check(name, "missing", "MLflow has no model_card.md of the run")
    if not {"evaluate", "validate"} <= run.found.keys():
        return Check(name, "not reachable", "the files that it is made of are not as they were")
    made = with_sections(rendered(run, recipe), run.later)
    if run.card == made:
        return Check(name, "ok")
    return Check(name, "changed", "it is not what the run's artifacts, its reviews and the decisions on it give")


def rendered(run: RecordedRun, recipe: Recipe) -> str:
    """The model card that the run's artifacts give now."""
    facts: dict[str, Any] = {
        "stages": {name: run.found[name].digest for name in ON_CARD if name in run.found},
        "data": run.found["validate"].load("report.json"),
        "evaluation": run.found["evaluate"].load("evaluation.json"),
    }
    if "benchmarks" in run.found:
        facts["benchmarks"] = run.found["benchmarks"].load("benchmarks.json")
    if "judge" in run.found:
        facts["judge"] = run.found["judge"].load("judge.json")
    return model_card(CardFacts(recipe=recipe, base_digest=run.tags.get("base_model_digest", ""), **facts))
