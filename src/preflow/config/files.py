"""Files of settings: YAML or JSON, recognised by their content, with the variables that their paths name."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from preflow.errors import ConfigError
from preflow.redaction import is_secret

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
#: Marks of a Jinja text, which may stand where a file could.
_TEMPLATE = ("{%", "{{", "{#")


def read_settings(path: Path, what: str = "recipe") -> dict[str, Any]:
    """The settings that a file holds.

    Args:
        path: YAML or JSON, in UTF-8.
        what: The file is, for messages.

    Raises:
        ConfigError: It cannot be read, is neither, holds no settings, or gives one twice.
    """
    try:
        data = _parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror or error}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is neither YAML nor JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{what} {path} holds {type(data).__name__}, expected settings as 'name: value'")
    return data


def _parse(text: str) -> Any:
    """JSON where it is JSON: a YAML parser reads its escaped pairs of surrogates as two broken characters."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys) if text.lstrip().startswith("{") else _yaml(text)
    except json.JSONDecodeError:
        return _yaml(text)  # flow style YAML begins with a brace too


def _yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ConfigError(f"the recipe gives {', '.join(sorted(repeated))} twice: keep one")
    return dict(pairs)


def expand_variables(value: Any, names: Iterable[str], where: str = "") -> Any:
    """Settings in which ``${NAME}`` is replaced by the variable of the environment, in paths alone.

    Args:
        value: A setting, or a mapping or list of them.
        names: The settings that are paths; whatever is below one of them is a path too.
        where: The setting's own dotted name; empty for a whole recipe.

    Raises:
        ConfigError: A variable is not set, has no name, or is a secret.
    """
    names = frozenset(names)
    if isinstance(value, dict):
        return {
            key: expand_variables(held, names, f"{where}.{key}" if where else str(key)) for key, held in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(expand_variables(held, names, where) for held in value)
    is_path = isinstance(value, str) and not any(mark in value for mark in _TEMPLATE)
    if is_path and names & set(where.split(".")):
        return _VARIABLE.sub(lambda found: _variable(found[1], where), value)
    return value


def _variable(name: str, where: str) -> str:
    if not name.isidentifier():
        raise ConfigError(f"{where} has ${{{name}}}: expected the name of a variable, as in ${{HOME}}/data.jsonl")
    if is_secret(name):
        raise ConfigError(
            f"{where} has ${{{name}}}, which is a secret: paths are shown and stored. Name another variable"
        )
    if not os.environ.get(name):
        raise ConfigError(f"{where} has ${{{name}}}, but the variable {name} is not set: set it, or write the path")
    return os.environ[name]
