"""Identities of stages, computed anew from the specifications that a run recorded, its recipe and its artifacts.

The code and the libraries of today are not those of the run, so their digests are taken as they were recorded. Inputs
and options are computed anew.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.fingerprints.files import json_digest
from preflow.models.resolve import ModelRef
from preflow.specs import (
    BenchmarkSpec,
    DpoSpec,
    EvaluateSpec,
    JudgeSpec,
    LengthsSpec,
    ReferenceSpec,
    SftSpec,
    StageSpec,
    TuneSpec,
    ValidateSpec,
)

#: Stages whose specification is rebuilt from a run's recipe and artifacts.
REBUILT = ("validate", "lengths", "sft", "reference", "tune", "dpo", "evaluate", "benchmarks", "judge")


def wrong_identity(specification: Any, expected: str) -> str:
    """Why a recorded specification does not have the identity of its stage; empty where it has."""
    if not isinstance(specification, Mapping):
        return "the recorded specification cannot be read"
    found = json_digest(specification)
    return "" if found == expected else f"the recorded specification has the digest {found}, the identity is {expected}"


def wrong_parts(specification: Mapping[str, Any], spec: StageSpec, data: Sequence[tuple[str, str]]) -> list[str]:
    """Inputs and options that are recorded otherwise than recipe and artifacts give them, each named.

    Settings that the record lacks came with a later Preflow; the record's own digest shows that none was taken out.

    Args:
        specification: As recorded.
        spec: As recipe and artifacts give it.
        data: Path and digest of each file of rows that the run recorded.
    """
    options = specification.get("options", {})
    wrong = _differences("options", _known_then(spec.options(), options), options)
    inputs = specification.get("inputs", {})
    if not isinstance(spec, ValidateSpec):
        return wrong + _differences("inputs", spec.inputs(), inputs)
    read = sorted(entry[0] for name, entries in inputs.items() if name != "benchmarks" for entry in entries)
    recorded = sorted(digest for _, digest in data)
    return wrong if read == recorded else [*wrong, f"inputs have the files {read}, the run recorded {recorded}"]


def _known_then(made: Any, recorded: Any) -> Any:
    """Options without the settings that their record lacks, at every depth."""
    if not (isinstance(made, Mapping) and isinstance(recorded, Mapping)):
        return made
    return {name: _known_then(value, recorded[name]) for name, value in made.items() if name in recorded}


def _differences(what: str, made: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    names = sorted(made.keys() | recorded.keys())
    return [
        f"{what}.{name} is recorded as {recorded.get(name)}, expected {made.get(name)}"
        for name in names
        if json_digest([made.get(name)]) != json_digest([recorded.get(name)])
    ]


def specifications(
    recipe: Recipe, base_digest: str, made: Mapping[str, Artifact], task_files: Sequence[str] = ()
) -> dict[str, StageSpec]:
    """What the stages of a run were asked, those whose inputs are there.

    Args:
        recipe: The run's recipe.
        base_digest: Digest of the base model, as the run recorded it.
        made: The artifacts of its stages that are as they were.
        task_files: Digests of the files of its benchmarks, as they are now.
    """
    found: dict[str, StageSpec] = {"validate": ValidateSpec.of(recipe)}
    if "validate" not in made:
        return found
    base, sft, reference = ModelRef(name="", path="", digest=base_digest), made.get("sft"), made.get("reference")
    shared: dict[str, Any] = {"base": base, "data": made["validate"]}
    chosen = _with_chosen_rate(recipe, made.get("tune"))
    found["lengths"] = LengthsSpec(recipe=recipe, **shared)
    found["sft"] = SftSpec(recipe=recipe, **shared)
    found["reference"] = ReferenceSpec(recipe=recipe, sft=sft, **shared)
    if reference is not None:
        found["tune"] = TuneSpec(recipe=recipe, sft=sft, reference=reference, **shared)
        found["dpo"] = DpoSpec(recipe=chosen, sft=sft, reference=reference, **shared)
    models: dict[str, Any] = {"sft": sft, "dpo": made.get("dpo"), "reference": reference}
    found["evaluate"] = EvaluateSpec(recipe=chosen, **shared, **models)
    asked = recipe.evaluation.benchmarks
    if asked is not None:
        given: dict[str, Any] = {"sft": sft, "dpo": made.get("dpo"), "files": task_files}
        found["benchmarks"] = BenchmarkSpec(recipe=chosen, **shared, **given)
    if "evaluate" in made:
        found["judge"] = JudgeSpec(recipe=chosen, data=made["validate"], evaluation=made["evaluate"])
    return found


def _with_chosen_rate(recipe: Recipe, choice: Artifact | None) -> Recipe:
    if choice is None or recipe.dpo is None:
        return recipe
    rate = choice.load("choice.json")["learning_rate"]
    return recipe.model_copy(update={"dpo": recipe.dpo.model_copy(update={"learning_rate": rate})})
