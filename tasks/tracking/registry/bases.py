"""The weights that a registered version is loaded over: where it was registered, or wherever the same files are now."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from preflow.config import Recipe
from preflow.errors import ConfigError, ModelError, PromotionError
from preflow.fingerprints.files import json_digest
from preflow.models.resolve import ModelRef, find_model, model_digest
from preflow.observer import Silent
from tasks.tracking.registry.integrity import Files, wrong_file

_ADAPTER_CONFIG = "adapter_config.json"


def loaded_over(which: str, files: Files, recipes: Sequence[Recipe]) -> ModelRef:
    """What a version is loaded over, held to its digests.

    Args:
        which: The version, for people.
        files: Its files.
        recipes: Those that may name the base where it lies now.

    Raises:
        PromotionError: The files that were registered are in no place; names each place with what is wrong there.
    """
    if files.settings["base"] is None:  # full weights have their tokenizer beside them
        name = str(files.settings["base_name"])
        return ModelRef(name=name, path=files.trained, digest=model_digest(Path(files.trained)))
    found = _first(which, files, recipes, "")
    return found.model_copy(update={"digest": json_digest(files.settings["base_files"]), "adapter": None})


def trained_over(which: str, files: Files, recipes: Sequence[Recipe], digest: str) -> ModelRef:
    """What a version was trained over, an adapter that it started from included; arguments as of ``loaded_over``.

    Args:
        which: The version, for people.
        files: Its files.
        recipes: Those that may name the base where it lies now.
        digest: ``ModelRef.digest`` of its training; empty where its run does not record it.

    Raises:
        PromotionError: As of ``loaded_over``.
    """
    found = _first(which, files, recipes, digest)
    own = model_digest(Path(found.path))
    with_adapter = own if found.adapter is None else f"{own}+{model_digest(Path(found.adapter))}"
    return found.model_copy(update={"digest": digest or with_adapter})


def _first(which: str, files: Files, recipes: Sequence[Recipe], digest: str) -> ModelRef:
    wrong: list[str] = []
    for place in _places(files, recipes, wrong):
        found = place if "+" in digest or not digest else place.model_copy(update={"adapter": None})
        why = _unfit(found, files, digest)
        if not why:
            return found
        wrong.append(why)
    raise PromotionError(
        f"the base of {which} is in no place as it was registered: {'; '.join(dict.fromkeys(wrong))}. Put its files "
        "back, or name the folder that has them by --set model_name=FOLDER"
    )


def _places(files: Files, recipes: Sequence[Recipe], wrong: list[str]) -> Iterator[ModelRef]:
    """Where the base may be, the registered place first; adds to ``wrong`` what is no model."""
    registered, name = files.settings["base"], str(files.settings["base_name"])
    folders = [Path(str(recipe.model_name)) for recipe in recipes]
    started = next((str(folder) for folder in folders if (folder / _ADAPTER_CONFIG).is_file()), None)
    if registered is not None and Path(registered).is_dir():
        yield ModelRef(name=name, path=registered, digest="", adapter=started)
    elif registered is not None:
        wrong.append(f"{registered} is no folder")
    for recipe in recipes:
        try:
            found = find_model(recipe, Silent())
        except (ModelError, ConfigError) as error:
            wrong.append(error.message)
        else:
            yield found.model_copy(update={"adapter": found.adapter or started})


def _unfit(found: ModelRef, files: Files, digest: str) -> str:
    """Why a place has another base than was registered, in words; empty where it has the same."""
    own, _, adapter = digest.partition("+")
    listed = files.settings["base_files"]
    if listed:
        wrong = wrong_file(listed, Path(found.path))
    else:  # of full weights the run alone knows the base
        other = model_digest(Path(found.path)) if own else ""
        wrong = f"{found.path} has the digest {other}, expected {own}" if other != own else ""
    if wrong or not adapter:
        return wrong
    other = "none" if found.adapter is None else model_digest(Path(found.adapter))
    return "" if other == adapter else f"the adapter that training started from has the digest {other}, not {adapter}"
