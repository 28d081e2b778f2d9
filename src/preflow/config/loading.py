"""Reading a recipe file: YAML or JSON, overrides, one clear error for everything that is wrong with it."""

import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from preflow.config.files import read_settings
from preflow.config.launch_checks import require_launchable
from preflow.config.recipe import EvaluationSettings, Recipe
from preflow.config.training import DpoSettings, SftSettings
from preflow.config.validation import ValidationSettings
from preflow.errors import ConfigError, MissingDependencyError
from preflow.formats import DATA_SUFFIXES

#: Optimizers that need nothing but torch, so that transformers' whole list need not be loaded to know them.
_PLAIN_OPTIMIZERS = frozenset({"adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor"})
_SECTIONS: dict[str, type[BaseModel]] = {
    "sft": SftSettings,
    "dpo": DpoSettings,
    "validation": ValidationSettings,
    "evaluation": EvaluationSettings,
}
#: Patterns of optimizers' names and the package that each imports; the first that matches counts.
_OPTIMIZER_PACKAGES = {
    "^galore_": "galore_torch",
    "^apollo_": "apollo_torch",
    "^(ada)?lomo$": "lomo_optim",
    "^grokadamw$": "grokadamw",
    "^schedule_free_": "schedulefree",
    "^stable_adamw$": "optimi",
    "^adamw_torch_[48]bit$": "torchao",
    "^adamw_torch_xla$": "torch_xla",
    "^adamw_torch_npu_fused$": "torch_npu",
    "^adamw_anyprecision$": "torchdistx",
    "8bit|paged|_bnb|^lion|ademamix": "bitsandbytes",
}

#: Packages that are installed under another name than they are imported by.
_DISTRIBUTIONS = {"optimi": "torch-optimi"}


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and resolve it: overrides applied, shared settings in their sections, data paths absolute.

    Args:
        path: A YAML or JSON file. Data paths in it resolve against its folder.
        overrides: Dotted names to values (``{"dpo.beta": 0.2}``), as ``--set`` and deployments give them. Text is read
            as YAML. An override wins wherever the setting stands in the file.

    Raises:
        ConfigError: The file cannot be read, or settings are unknown, missing or contradictory; names each of them
            and, for an unknown one, the nearest valid name.
    """
    path = Path(path)
    raw = read_settings(path)
    raw.setdefault("name", _plain_name(path.stem))
    return _resolve_data_paths(_validated(raw, overrides, f"{path} is not a valid recipe"), path.resolve().parent)


def recipe_for_data(kind: Literal["sft", "dpo"], dataset: Sequence[str], overrides: Mapping[str, Any]) -> Recipe:
    """A recipe that names data and nothing else, for looking at them alone.

    Args:
        kind: The stage that would use them.
        dataset: Files, folders or hub data sets; relative paths start at the working folder.
        overrides: As for ``load_recipe``.

    Raises:
        ConfigError: An override is unknown or has a wrong value.
    """
    raw: dict[str, Any] = {"name": _plain_name(Path(dataset[0]).name), "strategy": kind, kind: {"dataset": dataset}}
    return _resolve_data_paths(_validated(raw, overrides, "the settings given cannot be used"), Path.cwd())


def _plain_name(text: str) -> str:
    return re.sub(r"[^\w.\- ]+", "-", text).strip("-. ") or "recipe"


def _validated(raw: dict[str, Any], overrides: Mapping[str, Any] | None, complaint: str) -> Recipe:
    for name, value in (overrides or {}).items():
        _override(raw, name, parse_value(value))
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        problems = "\n".join(f"  - {line}" for line in _explain(error))
        raise ConfigError(f"{complaint}:\n{problems}") from error


def parse_value(value: Any) -> Any:
    """Read text as a YAML scalar or collection (``"0.2"`` is a number); anything else is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return YAML(typ="safe", pure=True).load(value)
    except YAMLError:
        return value


def require_runnable(recipe: Recipe) -> None:
    """Check that the recipe names all that a run needs.

    Raises:
        ConfigError: ``model_name`` or a stage's ``dataset`` is missing; names every one. Or ``launch.config`` is no
            file, or says what the recipe cannot run under.
    """
    missing = [] if recipe.model_name else ["model_name"]
    for stage, section in recipe.training_sections:
        if not section.dataset:
            missing.append("dataset" if recipe.strategy == stage else f"{stage}.dataset")
    if missing:
        raise ConfigError(
            f"recipe '{recipe.name}' cannot run: missing {', '.join(missing)}. Add "
            f"{'it' if len(missing) == 1 else 'them'} to the file or give --set {missing[0]}=..."
        )
    require_launchable(recipe)
    require_packages(recipe)
    for stage, section in recipe.training_sections:
        _require_optimizer(f"{stage}.optim", section.optim)


def _require_optimizer(setting: str, name: str) -> None:
    if name in _PLAIN_OPTIMIZERS:
        return
    from transformers.training_args import OptimizerNames

    known = sorted(option.value for option in OptimizerNames)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
        raise ConfigError(f"{setting} is '{name}', which is no optimizer of transformers: {hint}")


def optional_packages(recipe: Recipe) -> list[tuple[str, str, str]]:
    """What a recipe asks for beside the stack: each package's module, the setting, and another that does without."""
    needed = [("unsloth", "provider: unsloth", "provider: huggingface")] if recipe.provider == "unsloth" else []
    if recipe.use_4bit:
        needed.append(("bitsandbytes", "use_4bit: true", "use_4bit: false"))
    for stage, section in recipe.training_sections:
        patterns = _OPTIMIZER_PACKAGES.items()
        package = next((package for pattern, package in patterns if re.search(pattern, section.optim)), None)
        if package is not None:
            needed.append((package, f"{stage}.optim: {section.optim}", f"{stage}.optim: adamw_torch"))
    return needed


def distribution(package: str) -> str:
    """The name under which an optional package is installed."""
    return _DISTRIBUTIONS.get(package, package.replace("_", "-"))


def require_packages(recipe: Recipe) -> None:
    """Check that the optional packages that the recipe asks for are installed.

    Raises:
        MissingDependencyError: ``provider: unsloth`` without unsloth; ``use_4bit``, or an 8-bit or paged optimizer,
            without bitsandbytes; another optimizer without its package.
    """
    for package, setting, instead in optional_packages(recipe):
        if importlib.util.find_spec(package) is None:
            name = distribution(package)
            raise MissingDependencyError(
                f"recipe '{recipe.name}' has {setting}, but the package {name} is not installed: pip install "
                f"{name}, or use {instead}"
            )


def _override(raw: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, Mapping):  # a section's settings: those it does not name stay as they are
        for key, inner in value.items():
            _override(raw, f"{name}.{key}", inner)
        return
    parts = name.split(".")
    node = raw
    for part in parts[:-1]:
        child = node.get(part)
        child = {} if child is None else child
        if not isinstance(child, dict):
            raise ConfigError(f"override {name}={value!r}: '{part}' is no section")
        node[part] = child
        node = child
    node[parts[-1]] = value
    if len(parts) == 1:  # an override of a shared setting also wins over a section's own value
        for stage in ("sft", "dpo"):
            if isinstance(raw.get(stage), dict):
                raw[stage].pop(name, None)


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield _unknown(problem["loc"])
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
            yield f"{where}: {text}" if where else text
        else:
            yield f"{where}: {problem['msg']}, got {problem['input']!r}"


#: Short names that people use for settings, where the nearest spelling is another setting's.
_USUAL = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "max_length": "max_seq_length",
}


def _unknown(location: tuple[int | str, ...]) -> str:
    *parents, last = (str(part) for part in location)
    section: type[BaseModel] = Recipe
    for parent in parents:
        annotation = section.model_fields[parent].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    names = set(section.model_fields)
    if section is Recipe:
        names |= set(SftSettings.model_fields) | set(DpoSettings.model_fields)
    where = ".".join([*parents, last])
    if section is not Recipe and last in Recipe.model_fields:
        return f"{where}: '{last}' is a setting of the whole recipe, give it at the top level"
    homes = [home for home, settings in _SECTIONS.items() if settings is not section and last in settings.model_fields]
    if homes:
        return f"{where}: '{last}' belongs in {' or '.join(homes)}: give {homes[0]}.{last}"
    if _USUAL.get(last) in names:
        return f"{where}: unknown setting; did you mean '{_USUAL[last]}'?"
    near = difflib.get_close_matches(last, sorted(names), n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"valid names here: {', '.join(sorted(names))}"
    return f"{where}: unknown setting; {hint}"


def _resolve_data_paths(recipe: Recipe, folder: Path) -> Recipe:
    changes: dict[str, Any] = {}
    for stage in ("sft", "dpo"):
        section = getattr(recipe, stage)
        if section is not None:
            resolved = {
                name: tuple(_resolve(folder, entry) for entry in getattr(section, name))
                for name in ("dataset", "eval_dataset")
                if getattr(section, name) is not None
            }
            changes[stage] = section.model_copy(update=resolved)
    files = tuple(_resolve(folder, entry) for entry in recipe.validation.benchmark_files)
    if files:
        changes["validation"] = recipe.validation.model_copy(update={"benchmark_files": files})
    if recipe.launch.config is not None:
        config = str((folder / Path(recipe.launch.config).expanduser()).resolve())
        changes["launch"] = recipe.launch.model_copy(update={"config": config})
    if recipe.model_name and (folder / recipe.model_name).is_dir():
        changes["model_name"] = str((folder / recipe.model_name).resolve())
    return recipe.model_copy(update=changes)


def _resolve(folder: Path, entry: str) -> str:
    """An absolute path for a file or folder, or the entry itself for a hub data set (``owner/name``)."""
    local = (folder / Path(entry).expanduser()).resolve()
    looks_local = entry.startswith((".", "/", "~")) or entry.endswith(DATA_SUFFIXES)
    return str(local) if local.exists() or looks_local else entry
