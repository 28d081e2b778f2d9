"""The files of a registered model, as MLflow's pyfunc lays them out: what loads it, and what it is checked by."""

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preflow.artifacts import MANIFEST, Artifact, write_json
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.fingerprints.files import file_digest, json_digest
from preflow.models.resolve import ModelRef

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

#: Beside the model in every version: the whole recipe, by which Preflow itself can use it.
RECIPE = "recipe.json"
#: Beside the model in every version: the SHA-256 of each other file.
FILES = "files.json"
#: What loading a version leaves in its folder.
_LEFT_BY_LOADING = ("registered_model_meta", "__pycache__")
#: The model's code, of which MLflow makes a copy in every version.
_CODE = Path(__file__).with_name("chat_model.py")
_LIBRARIES = ("accelerate", "jinja2", "mlflow", "peft", "safetensors", "torch", "transformers")
#: Most tokens of an answer where none is asked for.
_ANSWER = 256


class Candidate(Frozen):
    """A finished model that is to be registered."""

    name: str
    """The registered model's name."""
    stage: str
    """The stage that made it."""
    artifact: Artifact
    """That stage's artifact, whose folder ``model`` holds the model."""
    recipe: Recipe
    """The resolved recipe."""
    base: ModelRef
    """What it was trained over."""
    description: str
    """Markdown that the version shows."""

    @property
    def is_adapter(self) -> bool:
        """Whether the model is an adapter over the base, rather than full weights."""
        return self.recipe.tuning == "lora"


def write_package(candidate: Candidate, folder: Path) -> None:
    """Write a registered model's files: an adapter's own, or the place and the digests of full weights.

    Args:
        candidate: What to register.
        folder: Where to, for MLflow to copy; it must not exist yet.
    """
    import mlflow.pyfunc

    scratch = folder.with_name(f"{folder.name}-parts")
    scratch.mkdir()
    write_json(scratch / RECIPE, candidate.recipe.model_dump(mode="json"))
    parts = {"manifest": candidate.artifact.file(MANIFEST), "recipe": scratch / RECIPE}
    if candidate.is_adapter:
        parts["model"] = candidate.artifact.file("model")
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=str(_CODE),
        artifacts={name: str(path) for name, path in parts.items()},
        model_config=_settings(candidate),
        pip_requirements=[f"{name}=={version.partition('+')[0]}" for name, version in libraries.items()],
        signature=_signature(),
        input_example={"messages": [{"role": "user", "content": "Hello!"}]},
    )


def list_files(folder: Path) -> str:
    """Write the list of a package's files with the SHA-256 of each; its digest, as ``json_digest`` has it."""
    found = {name: file_digest(folder / name) for name in names_of_files(folder)}
    write_json(folder / FILES, found)
    return json_digest(found)


def names_of_files(folder: Path) -> list[str]:
    """Relative names of a package's files, without the list of them and what loading leaves beside them."""
    names = [each.relative_to(folder) for each in folder.rglob("*") if each.is_file()]
    return sorted(str(each) for each in names if str(each) != FILES and not set(each.parts) & set(_LEFT_BY_LOADING))


def _signature() -> "ModelSignature":
    """What a call may give beside the conversation, which can be of any form that the model takes."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec

    types = {
        "max_tokens": DataType.long,
        "temperature": DataType.double,
        "top_p": DataType.double,
        "seed": DataType.long,
    }
    return ModelSignature(params=ParamSchema([ParamSpec(name, kind, None) for name, kind in types.items()]))


def _settings(candidate: Candidate) -> dict[str, Any]:
    """What the model's code is given; ``load_model(uri, model_config=...)`` changes the places of weights."""
    from preflow.data.tokens.chat_template import Renderer
    from preflow.models.loading import load_tokenizer
    from preflow.models.resolve import model_files

    recipe, base = candidate.recipe, Path(candidate.base.path)
    return {
        "name": candidate.name,
        "base": str(base) if candidate.is_adapter else None,
        "base_name": candidate.base.weights_name,
        "base_files": model_files(base) if candidate.is_adapter else {},
        "weights": None if candidate.is_adapter else str(candidate.artifact.file("model")),
        "use_4bit": recipe.use_4bit,
        "bf16": recipe.bf16 is not False,
        "trust_remote_code": recipe.trust_remote_code,
        "rendering": Renderer(load_tokenizer(candidate.base, recipe), recipe.rendering).settings(),
        "max_tokens": _ANSWER,
    }
