"""Values of settings that people write in several ways, as they can only be meant."""

import math
import re
from typing import Any


def rate_or_auto(value: Any) -> Any:
    """A learning rate as a number, or the word ``auto``, however it is written.

    Raises:
        ValueError: Neither, with both named; a union of types would report each on its own.
    """
    if value == "auto":
        return value
    try:
        rate = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"expected a number, or auto, got {value!r}") from None
    if not 0 < rate < math.inf:
        raise ValueError(f"expected a number above 0, or auto, got {value!r}")
    return rate


def adapter_targets(value: Any) -> Any:
    """Names of modules as they can only be meant, however they are written: PEFT reads a text as a pattern.

    ``all``, ``[all-linear]`` and the like are ``all-linear``; ``q_proj,v_proj`` and ``q_proj`` are lists of names. A
    pattern stays a text.

    Raises:
        ValueError: All layers are named beside single ones, or nothing is.
    """
    names = value
    if isinstance(value, str) and _NAMES.fullmatch(value) and ".." not in value:
        names = re.findall(r"[\w.-]+", value)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return value
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"lora_target_modules is {value!r}, which names nothing: expected all-linear, or names")
    every = [name for name in names if name.lower().replace("_", "-") in _ALL_LINEAR]
    if not every:
        return tuple(names)
    if len(every) < len(names):
        raise ValueError(
            f"lora_target_modules has '{every[0]}' beside other names: give all-linear alone, or the names alone"
        )
    return "all-linear"


#: Names separated by commas or blanks, perhaps in brackets; no pattern of a module's whole name reads so.
_NAMES = re.compile(r"[\w.,\s-]*|\[[\w.,\s\"'-]*\]")
_ALL_LINEAR = frozenset({"all", "all-linear", "all-linear-layers"})
