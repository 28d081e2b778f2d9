"""Files of settings: YAML or JSON, recognised by their content, with the variables that their paths name."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from preflow.errors import ConfigError
from preflow.foreign_files import read_text
from preflow.redaction import is_secret, quoted

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
#: Values and depth of the largest settings, and names that a message lists.
_MOST_VALUES, _DEEPEST, _NAMED = 100_000, 64, 8
#: Bits of the largest number.
_MOST_BITS = 1024
_BRACKETS, _DASHES, _MOST_BRACKETS = re.compile(r"[\[\]{}]"), re.compile(r"(?:[-?]\s){64}"), 256
_TOO_DEEP = "nested too deeply"
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
    text = read_text(path, what)
    try:
        data = _parse(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{what} {path} is neither YAML nor JSON: {reason(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{what} {path} holds {type(data).__name__}, expected settings as 'name: value'")
    return data


def read_yaml(text: str) -> Any:
    """The value that YAML text holds.

    Raises:
        YAMLError: It is no YAML.
        ValueError: It is nested too deeply, repeats itself by aliases, or holds a number of too many digits.
    """
    if _DASHES.search(text) or _depth(text) > _MOST_BRACKETS:  # the parser takes the square of it before it gives up
        raise ValueError(_TOO_DEEP)
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _require_small(value)
    return value


def _depth(text: str) -> int:
    """The most brackets that are open at one place, wherever they stand."""
    found = depth = 0
    for bracket in _BRACKETS.findall(text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        found = max(found, depth)
    return found


def _require_small(value: Any) -> None:
    """Refuse settings that aliases make larger than any recipe is, or endless: a walk through them would never end."""
    sizes: dict[int, int] = {}

    def size(held: Any, depth: int) -> int:
        if isinstance(held, int) and held.bit_length() > _MOST_BITS:
            raise ValueError("a number has too many digits")
        if not isinstance(held, dict | list | tuple | set):
            return 1
        if depth > _DEEPEST:  # an alias within itself too
            raise ValueError(_TOO_DEEP)
        if id(held) not in sizes:
            inside = [*held, *held.values()] if isinstance(held, dict) else held
            sizes[id(held)] = 1 + sum(size(each, depth + 1) for each in inside)
        return sizes[id(held)]

    if size(value, 0) > _MOST_VALUES:
        raise ValueError(f"aliases make it more than {_MOST_VALUES:,} values")


def reason(error: Exception) -> str:
    """Why a text cannot be parsed: the place and the parser's words, and nothing of the text."""
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1} column {mark.column + 1}: " if mark is not None else ""
        said = (error.problem or error.context or "no YAML").partition(" with value")[0]
        return f"{where}{quoted(said, 80)}"
    return quoted(str(error).partition(";")[0].partition("\n")[0], 120)


def _parse(text: str) -> Any:
    """JSON where it is JSON: a YAML parser reads its escaped pairs of surrogates as two broken characters."""
    if not text.lstrip().startswith("{"):
        return read_yaml(text)
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError:
        return read_yaml(text)  # flow style YAML begins with a brace too
    _require_small(value)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    times = Counter(name for name, _ in pairs)
    repeated = sorted(name for name, count in times.items() if count > 1)
    if repeated:
        raise ConfigError(f"the recipe gives {', '.join(map(quoted, repeated[:_NAMED]))} twice: keep one")
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
