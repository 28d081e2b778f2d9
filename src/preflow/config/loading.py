"""Reading a recipe file: YAML or JSON, overrides, one error that lists every problem."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.error import YAMLError

from preflow.chat_templates.families import template_text
from preflow.config.checks.requirements import require_validation_packages
from preflow.config.evaluation.benchmarks import TASK_SUFFIXES
from preflow.config.evaluation.measures import EvaluationSettings
from preflow.config.explain import explain
from preflow.config.files import expand_variables, read_settings, read_yaml, reason
from preflow.config.recipe import Recipe, TrainingStage
from preflow.config.validation import Dataset, path_of
from preflow.errors import ConfigError, PreflowError
from preflow.formats import DATA_SUFFIXES
from preflow.redaction import quoted

#: Settings that are paths, wherever they are given.
_PATHS = frozenset(
    {"model_name", "dataset", "eval_dataset", "benchmark_files", "prompts", "config", "chat_template", "tasks"}
)
#: Settings of a stage that name data.
_DATA = ("dataset", "eval_dataset")


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and resolve it: overrides applied, shared settings in their sections, data paths absolute.

    Args:
        path: A YAML or JSON file. Paths in it resolve against its folder, and ``${NAME}`` in any path is the
            variable of the environment.
        overrides: Dotted names to values (``{"dpo.beta": 0.2}``), as ``--set`` and deployments give them. Text is read
            as YAML. An override wins wherever the setting is in the file.

    Raises:
        ConfigError: The file cannot be read, or settings are unknown, missing or contradictory; names each of them
            and, for an unknown one, the nearest valid name. Or a path names a variable that is not set.
        MissingDependencyError: Data validation is to look for personal data, without the packages that it needs.
    """
    path = Path(path)
    raw = read_settings(path)
    raw.setdefault("name", plain_name(path.stem))
    _apply(overrides, raw)
    raw = expand_variables(raw, _PATHS)
    return _resolve_data_paths(_validated(raw, f"{path} is not a valid recipe"), path.resolve().parent)


def changed_recipe(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """A resolved recipe, as a run records it, with overrides.

    Raises:
        ConfigError: An override is unknown or has a wrong value.
    """
    raw = recipe.model_dump(mode="json")
    _apply(overrides, raw)
    return _validated(raw, f"the settings given cannot be used with the recipe of {recipe.name}")


def recipe_for_data(
    data: Mapping[TrainingStage, Sequence[str | Dataset]], overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe that names data and nothing else, for data validation alone.

    Args:
        data: Files, folders or hub data sets by the stage that would use them; relative paths start at the working
            folder.
        overrides: As for ``load_recipe``.

    Raises:
        ConfigError: An override is unknown or has a wrong value.
        MissingDependencyError: As ``load_recipe``.
    """
    sections: dict[str, Any] = {stage: {"dataset": list(entries)} for stage, entries in data.items()}
    first = next(entry for entries in data.values() for entry in entries)
    strategy = "two-stage" if len(sections) > 1 else next(iter(sections))
    raw: dict[str, Any] = {"name": plain_name(Path(path_of(first)).name), "strategy": strategy, **sections}
    given = {name: expand_variables(parse_value(value), _PATHS, name) for name, value in (overrides or {}).items()}
    _apply(given, raw)
    return _resolve_data_paths(_validated(raw, "the settings given cannot be used"), Path.cwd())


def plain_name(text: str) -> str:
    """A text as a recipe's name can be: other characters become hyphens."""
    return re.sub(r"[^\w.\- ]+", "-", text).strip("-. ") or "recipe"


def _apply(overrides: Mapping[str, Any] | None, raw: dict[str, Any]) -> None:
    for name, value in (overrides or {}).items():
        _override(raw, name, parse_value(value))


def _validated(raw: dict[str, Any], complaint: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        problems = "\n".join(f"  - {line}" for line in explain(error))
        raise ConfigError(f"{complaint}:\n{problems}") from error
    require_validation_packages(recipe)
    return recipe


def parse_value(value: Any) -> Any:
    """Read text as a YAML scalar or collection (``"0.2"`` is a number); anything else is returned as it is.

    Raises:
        ConfigError: It is nested too deeply, repeats itself by aliases, or is a number of too many digits.
    """
    if not isinstance(value, str):
        return value
    try:
        return read_yaml(value)
    except YAMLError:
        return value
    except ValueError as error:
        raise ConfigError(f"{quoted(value)} cannot be read as a setting: {reason(error)}") from error


def _override(raw: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, Mapping):  # a section's settings: those it does not name stay as they are
        for key, inner in value.items():
            _override(raw, f"{name}.{key}", inner)
        return
    parts = _where_it_is(raw, name.split("."))
    node = raw
    for part in parts[:-1]:
        child = node.get(part)
        if part in _DATA and child is None:  # given once, at the top level
            child = raw.get(part)
        if part in _DATA and child is not None:  # `dpo.dataset.rows` of a data set that is given as a path
            child = _as_mapping(child, name)
        child = {} if child is None else child
        if not isinstance(child, dict):
            raise ConfigError(f"override {name}={quoted(value)}: '{part}' is no section")
        node[part] = child
        node = child
    node[parts[-1]] = value
    if len(parts) == 1:  # an override of a shared setting also wins over a section's own value
        for stage in ("sft", "dpo"):
            if isinstance(raw.get(stage), dict):
                raw[stage].pop(name, None)


def _where_it_is(raw: dict[str, Any], parts: list[str]) -> list[str]:
    """The parts of ``dataset.rows`` with the section that names the data set, where one does."""
    if parts[0] not in _DATA or len(parts) == 1:
        return parts
    homes = [stage for stage in ("sft", "dpo") if isinstance(raw.get(stage), dict) and parts[0] in raw[stage]]
    return [*homes, *parts] if len(homes) == 1 else parts


def _as_mapping(child: Any, name: str) -> Any:
    entry = child[0] if isinstance(child, list | tuple) and len(child) == 1 else child
    if isinstance(entry, list | tuple):
        raise ConfigError(f"override {name}: there are {len(entry)} data sets; give the whole list")
    return {"path": entry} if isinstance(entry, str) else entry


def _resolve_data_paths(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe whose paths are absolute.

    Raises:
        ConfigError: One of them can be no path: it is too long, holds a zero byte, or names the home of no user.
    """
    try:
        return _with_absolute_paths(recipe, folder)
    except PreflowError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{recipe.name} names a path that can be none: {quoted(str(error))}") from error


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    changes: dict[str, Any] = {}
    for stage in ("sft", "dpo"):
        section = getattr(recipe, stage)
        if section is not None:
            resolved = {
                name: tuple(_resolve_entry(folder, entry) for entry in getattr(section, name))
                for name in _DATA
                if getattr(section, name) is not None
            }
            changes[stage] = section.model_copy(update=resolved)
    files = tuple(_resolve_entry(folder, entry) for entry in recipe.validation.benchmark_files)
    if files:
        changes["validation"] = recipe.validation.model_copy(update={"benchmark_files": files})
    if recipe.augment.prompts is not None:
        prompts = tuple(_resolve_entry(folder, entry) for entry in recipe.augment.prompts)
        changes["augment"] = recipe.augment.model_copy(update={"prompts": prompts})
    if recipe.evaluation.benchmarks is not None:
        changes["evaluation"] = _with_task_files(recipe.evaluation, folder)
    if recipe.launch.config is not None:
        config = str((folder / Path(recipe.launch.config).expanduser()).resolve())
        changes["launch"] = recipe.launch.model_copy(update={"config": config})
    if recipe.model_name and (folder / recipe.model_name).is_dir():
        changes["model_name"] = str((folder / recipe.model_name).resolve())
    if recipe.chat_template is not None:  # as text, so that what a run uses is what its identity says
        changes["chat_template"] = template_text(recipe.chat_template, folder)
    return recipe.model_copy(update=changes)


def _with_task_files(settings: EvaluationSettings, folder: Path) -> EvaluationSettings:
    asked = settings.benchmarks
    assert asked is not None, "asked where a recipe names tasks"
    tasks = tuple(
        str((folder / Path(name).expanduser()).resolve()) if name.endswith(TASK_SUFFIXES) else name
        for name in asked.tasks
    )
    return settings.model_copy(update={"benchmarks": asked.model_copy(update={"tasks": tasks})})


def _resolve_entry(folder: Path, entry: str | Dataset) -> str | Dataset:
    if isinstance(entry, str):
        return _resolve(folder, entry)
    return entry.model_copy(update={"path": _resolve(folder, entry.path)})


def _resolve(folder: Path, entry: str) -> str:
    """An absolute path for a file or folder, or the entry itself for a hub data set (``owner/name``)."""
    local = Path(os.path.realpath(folder / Path(entry).expanduser()))  # resolve() refuses links without an end
    is_local = entry.startswith((".", "/", "~")) or entry.endswith(DATA_SUFFIXES)
    return str(local) if local.exists() or is_local else entry
