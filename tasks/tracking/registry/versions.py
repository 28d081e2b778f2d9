"""Versions of a registered model: one for each distinct finished model, whatever number of runs made it."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preflow.artifacts import verify
from preflow.config.base import Frozen
from preflow.environment import mlflow_uri
from preflow.errors import PromotionError, TrackingError
from preflow.redaction import without_login
from tasks.tracking.client import client, require_mlflow
from tasks.tracking.registry.package import Candidate, list_files, write_package

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
#: Folder of a pipeline run's files in MLflow that holds its registered model.
FOLDER = "registered_model"


class Version(Frozen):
    """One version of a registered model."""

    number: int
    run_id: str
    """The pipeline run that registered it first."""
    artifact_digest: str
    """Digest of the artifact of the stage that made it."""
    stage: str
    created: int
    """Milliseconds since 1970."""
    package_digest: str = ""
    """Digest of the list of all its files; empty of versions that an earlier Preflow registered."""


class RegisteredModel(Frozen):
    """A registered model as MLflow has it now."""

    name: str
    versions: tuple[Version, ...]
    """Oldest first; deleted ones are not among them."""
    aliases: dict[str, int]
    """Version by alias, as MLflow spells it."""

    def version(self, number: int | None) -> Version | None:
        """A version by its number; none where it was deleted or never was."""
        return next((each for each in self.versions if each.number == number), None)

    def aliased(self, alias: str) -> Version | None:
        """The version of an alias; none where the alias is not set."""
        return self.version(self.aliases.get(alias))


def register(run_id: str, candidate: Candidate) -> Version:
    """Register a run's model and call it ``challenger``; one that is registered already is not registered again.

    Can be done again: what an earlier, interrupted call did is found.

    Args:
        run_id: MLflow's id of the pipeline run.
        candidate: Its model.

    Raises:
        ArtifactError: The model's files are gone, or not what the manifest says.
    """
    store = client()
    _create(store, candidate.name)
    known = _by_digest(store, candidate.name, candidate.artifact.digest)
    if known is None:
        known = _new_version(store, run_id, candidate)
    if read_model(candidate.name).aliases.get(CHAMPION) != known.number:
        store.set_registered_model_alias(candidate.name, CHALLENGER, str(known.number))
    return known


def _create(store: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _new_version(store: Any, run_id: str, candidate: Candidate) -> Version:
    verify(Path(candidate.artifact.path))
    with tempfile.TemporaryDirectory() as folder:
        write_package(candidate, Path(folder) / FOLDER)
        package = list_files(Path(folder) / FOLDER)
        store.log_artifacts(run_id, str(Path(folder) / FOLDER), FOLDER)
    made = store.create_model_version(
        candidate.name,
        f"runs:/{run_id}/{FOLDER}",
        run_id,
        tags={"artifact_digest": candidate.artifact.digest, "stage": candidate.stage, "package_digest": package},
        description=candidate.description,
    )
    return _version(made)


def _by_digest(store: Any, name: str, digest: str) -> Version | None:
    return next((each for each in _versions(store, name) if each.artifact_digest == digest), None)


def _versions(store: Any, name: str) -> list[Version]:
    found, token = [], None
    while True:
        page = store.search_model_versions(f"name = '{name}'", page_token=token)
        found += [_version(each) for each in page if each.name == name]
        token = page.token
        if not token:
            return sorted(found, key=lambda each: each.number)


def _version(found: Any) -> Version:
    tags: Mapping[str, str] = found.tags
    return Version(
        number=int(found.version),
        run_id=found.run_id or "",
        artifact_digest=tags.get("artifact_digest", ""),
        stage=tags.get("stage", ""),
        created=int(found.creation_timestamp),
        package_digest=tags.get("package_digest", ""),
    )


def read_model(name: str) -> RegisteredModel:
    """A registered model with its versions and aliases.

    Raises:
        PromotionError: There is none of this name; names one that differs in case alone.
    """
    from mlflow.exceptions import MlflowException

    store = client()
    try:
        found = store.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise PromotionError(_no_model(store, name)) from None
    aliases = {alias: int(number) for alias, number in found.aliases.items()}
    return RegisteredModel(name=name, versions=tuple(_versions(store, name)), aliases=aliases)


def _no_model(store: Any, name: str) -> str:
    where = f"MLflow at {without_login(mlflow_uri())} has no registered model '{name}'"
    others = variants(name)
    if others:
        return f"{where}, but '{others[0]}', whose name differs in case alone: give that one"
    return f"{where}: a run registers its model when it has finished (preflow run RECIPE)"


def variants(name: str) -> list[str]:
    """Registered models whose names differ from a name in case alone; MLflow takes them for others."""
    found = client().search_registered_models(filter_string=f"name ILIKE '{name}'")
    return sorted(each.name for each in found if each.name.casefold() == name.casefold() and each.name != name)


def find(name: str, artifact_digest: str) -> Version | None:
    """The version of an artifact; none where it is not registered, or MLflow does not answer."""
    try:
        require_mlflow()
    except TrackingError:
        return None
    return _by_digest(client(), name, artifact_digest)


def describe(name: str, number: int, markdown: str) -> None:
    """Replace the text that a version shows."""
    client().update_model_version(name, str(number), markdown)
