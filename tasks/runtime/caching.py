"""What makes a stage's result reusable: its identity, and a Prefect cache policy that verifies every artifact.

Prefect's own policies see a path's text, not the file behind it: an edited file would be a stale hit and a deleted
checkpoint still "Cached". Here the key is the identity of the work, and a record is only served when the artifact
it points to was read again, byte for byte.
"""

import os
from pathlib import Path
from typing import Any

from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext

from preflow.artifacts import Artifact, find
from preflow.environment import preflow_home, store_folder
from preflow.fingerprints.code import code_digest
from preflow.fingerprints.files import json_digest
from preflow.specs import STAGES, StageSpec, ValidateSpec
from tasks.runtime.cpu_precision import certain_label
from tasks.runtime.libraries import library_versions

#: Classes of values in specifications: stages call their methods without constructing them.
GIVEN = (
    "preflow.artifacts:Artifact",
    "preflow.data.files.raw_rows:DataSource",
    "preflow.models.resolve:ModelRef",
)
#: Packages of which the code of stages consists; one tree for all stages, so that it is taken apart once.
PACKAGES = ("preflow", "expectations", "tasks")
#: Where Prefect keeps the small values that tasks return.
RESULTS = Path(os.environ.get("PREFECT_HOME") or preflow_home() / "prefect") / "storage"


def identity(stage: str, spec: StageSpec) -> str:
    """SHA-256 of all that can change a stage's result; the name of its folder in the store.

    Args:
        stage: A key of ``STAGES``.
        spec: What the stage is asked to do.
    """
    return json_digest(specification(stage, spec))


def specification(stage: str, spec: StageSpec) -> dict[str, Any]:
    """All that can change a stage's result, as JSON; arguments as of ``identity``."""
    return {
        "stage": stage,
        "inputs": spec.inputs(),
        "options": spec.options(),
        "code": code_digest(*roots(stage, launches=_launches(stage, spec)), packages=PACKAGES),
        "versions": library_versions(stage, spec, launches=_launches(stage, spec)),
        "precision": _precision(stage, spec),
    }


def _precision(stage: str, spec: StageSpec) -> str | None:
    """Device and dtypes in which a stage would compute here: an artifact of another precision is no hit."""
    if isinstance(spec, ValidateSpec) or not STAGES[stage].uses_model:
        return None
    if (label := certain_label(spec.recipe)) is not None:
        return label
    from preflow.models.precision import choose_precision

    return choose_precision(spec.recipe).label()


def _launches(stage: str, spec: StageSpec) -> bool:
    """Whether a stage computes in ranks of a launch."""
    if not STAGES[stage].launches or isinstance(spec, ValidateSpec):
        return False
    return spec.recipe.launch.num_processes > 1 or spec.recipe.launch.config is not None


def roots(stage: str, *, launches: bool) -> tuple[str, ...]:
    """The functions from which all code of a stage is reached, and the classes that it is given.

    Where a table names a function, as that of stages does for ranks, it is a root of its own.

    Args:
        stage: A key of ``STAGES``.
        launches: Whether it computes in ranks of a launch.
    """
    info = STAGES[stage]
    in_ranks = (f"preflow.stages.ranks:{info.rank}", "preflow.stages.worker:main", "tasks.runtime.launcher:run_ranks")
    return (
        f"{info.tasks or f'tasks.{stage}'}:{stage}",
        f"{info.module}:{info.function}",
        *GIVEN,
        *(in_ranks if launches else ()),
    )


def place(stage: str, spec: StageSpec) -> Path:
    """The folder in the store that holds, or will hold, a stage's artifact."""
    return store_folder() / stage / identity(stage, spec)


def verified_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """The cache key of a stage's task run, after removing a Prefect record that must not be served.

    Prefect only logs an error raised here and would run without a cache; the stage's body computes the identity
    again, so the same error then fails the task.
    """
    stage, spec = context.task.name, parameters["spec"]
    final = place(stage, spec)
    key = f"{stage}-{final.name}"
    artifact = find(final)
    if artifact is None or _recorded(context, key) != artifact:
        (KEYS / key).unlink(missing_ok=True)
    return key


def _recorded(context: TaskRunContext, key: str) -> Artifact | None:
    """What Prefect would serve for a key; none where it has nothing that can be read."""
    if not context.result_store.exists(key):
        return None
    try:
        found = context.result_store.read(key).result
    except (OSError, ValueError):  # the result's file is gone, is in another place, or is damaged
        return None
    return found if isinstance(found, Artifact) else None


#: Folder of Prefect's cache records, beside the artifacts they point to.
KEYS = store_folder() / "keys"
VERIFIED = CacheKeyFnPolicy(cache_key_fn=verified_key).configure(key_storage=KEYS)
