"""Files of settings: YAML or JSON, recognised by their content."""

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from preflow.errors import ConfigError


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
