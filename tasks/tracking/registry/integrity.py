"""Whether a version's files, and the weights that it needs, are what was registered."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from preflow.artifacts import MANIFEST
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.environment import digests_folder
from preflow.errors import PromotionError
from preflow.fingerprints.files import DigestCache, json_digest
from preflow.verification.recorded import place_of
from tasks.tracking.client import client, refuses_login
from tasks.tracking.registry.package import FILES, RECIPE, names_of_files
from tasks.tracking.registry.versions import FOLDER, Version
from tasks.tracking.run_files import local_folder


class Files(Frozen):
    """The files of a version, on this machine."""

    folder: str
    """MLflow's folder of the version."""
    recipe: Recipe
    settings: dict[str, Any]
    """What its code is given: places and digests of weights among it."""
    trained: str
    """Folder of the adapter, or of the full weights."""


def fetch(name: str, version: Version, folder: Path) -> Files:
    """Have a version's files on this machine, and hold each to its digest.

    Args:
        name: The registered model's name.
        version: The version.
        folder: Where they are copied to, if they are elsewhere.

    Raises:
        PromotionError: A file is missing, or is not what was registered; names the first.
    """
    from mlflow.exceptions import MlflowException

    which = f"version {version.number} of {name}"
    try:
        place = _place(name, version, folder)
        described = yaml.safe_load((place / "MLmodel").read_text(encoding="utf-8"))
        settings = described["flavors"]["python_function"]["config"]
        recipe = json.loads((place / "artifacts" / RECIPE).read_text(encoding="utf-8"))
        manifest = json.loads((place / "artifacts" / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, KeyError, ValueError, TypeError, MlflowException, yaml.YAMLError) as error:
        if refuses_login(error):
            raise
        raise PromotionError(
            f"the files of {which} are missing or cannot be read: {error}. Register its model again: start its run anew"
        ) from None
    _require_package(which, place, version.package_digest)
    if json_digest(manifest) != version.artifact_digest:
        raise PromotionError(f"{which} was changed: its {MANIFEST} has another digest than its tag artifact_digest")
    trained = place / "artifacts" / "model" if settings["weights"] is None else _full_weights(settings["weights"])
    own = {n.removeprefix("model/"): entry["sha256"] for n, entry in manifest.items() if n.startswith("model/")}
    _require(which, own, trained)
    return Files(folder=str(place), recipe=Recipe.model_validate(recipe), settings=settings, trained=str(trained))


def _place(name: str, version: Version, folder: Path) -> Path:
    """The folder of a version's files: where they are on this machine, else a copy."""
    import mlflow.artifacts

    store = client()
    if version.run_id:
        there = local_folder(store.get_run(version.run_id))
        if there is not None and (there / FOLDER).is_dir():
            return there / FOLDER
    return Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version.number}", dst_path=str(folder)))


def _require_package(which: str, folder: Path, expected: str) -> None:
    """Hold every file of a version to the list that was made at its registration, and the list to its digest."""
    file = folder / FILES
    if not expected:
        if file.is_file():
            raise PromotionError(f"{which} was changed: it has a {FILES}, but its tag package_digest is gone")
        return  # registered by a Preflow that made no list
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PromotionError(f"{which} is not what was registered: {file} cannot be read: {error}") from None
    if json_digest(listed) != expected:
        raise PromotionError(f"{which} was changed: its {FILES} has another digest than its tag package_digest")
    _require(which, listed, folder)
    added = sorted(set(names_of_files(folder)) - listed.keys())
    if added:
        raise PromotionError(f"{which} is not what was registered: {folder / added[0]} was added")


def _full_weights(written: str) -> Path:
    """The folder of full weights: ``model`` in an artifact of the store, which may have been moved."""
    return place_of(str(Path(written).parent)) / Path(written).name


def require_whole(name: str, version: Version) -> str | None:
    """Hold a version's files and its base to their digests; what could not be checked, where that is so.

    Raises:
        PromotionError: A file is missing, or is not what was registered.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = fetch(name, version, Path(folder))
    return check_base(f"version {version.number} of {name}", files)


def check_base(which: str, files: Files) -> str | None:
    """Hold an adapter's base to its digests; a sentence where it is not on this machine.

    Raises:
        PromotionError: A file of it is missing, or is not what was registered.
    """
    base = files.settings["base"]
    if base is None:
        return None
    if not Path(base).is_dir():
        return f"the base of {which} is not on this machine ({base}), so its files were not checked"
    remedy = ". Put its files back, or name another version"
    _require(f"the base of {which}", files.settings["base_files"], Path(base), remedy)
    return None


def _require(which: str, digests: dict[str, str], folder: Path, remedy: str = "") -> None:
    wrong = wrong_file(digests, folder)
    if wrong:
        raise PromotionError(f"{which} is not what was registered: {wrong}{remedy}")


def wrong_file(digests: dict[str, str], folder: Path) -> str:
    """The first file of a folder that is missing or has another digest, in words; empty where all are right."""
    cache = DigestCache(digests_folder())
    for name, expected in sorted(digests.items()):
        path = folder / name
        found = cache.digest(path) if path.is_file() else None
        if found != expected:
            what = "is missing" if found is None else f"has the SHA-256 {found}, expected {expected}"
            return f"{path} {what}"
    return ""
