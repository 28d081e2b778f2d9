"""A report that was made under other names of the same files, under those that they have now.

Files count by what they hold, so a renamed one is not validated again; its report must not send people to a name that
is gone.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from preflow.data.files.sources import source_names
from preflow.specs import ValidateSpec

#: Parts of a report that quote rows.
_QUOTED = "texts"


def names_of(spec: ValidateSpec) -> dict[str, list[str]]:
    """How a report calls the files of each kind, in the order of the recipe."""
    return {
        "demonstrations": source_names([*spec.demonstrations, *spec.demonstrations_eval]),
        "preferences": source_names([*spec.preferences, *spec.preferences_eval]),
        "benchmarks": source_names(spec.benchmarks),
    }


def under_present_names(report: Mapping[str, Any], spec: ValidateSpec) -> dict[str, Any]:
    """The report with the names that the files have now; the same report where they are the old ones.

    Args:
        report: As data validation wrote it.
        spec: The files as they are called now; they hold the same, in the same order.
    """
    written, present = report.get("sources", {}), names_of(spec)
    changed = {kind: _changed(names, present[kind]) for kind, names in written.items()}
    if not any(changed.values()):
        return dict(report)
    every = {old: new for names in changed.values() for old, new in names.items()}
    found = {}
    for part, held in report.items():
        names = {**every, **changed.get("benchmarks", {}), **changed[part]} if part in changed else every
        found[part] = _renamed(held, names)
    return {**found, "sources": {kind: present[kind] for kind in written}}


def _changed(old: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    return {before: after for before, after in zip(old, new, strict=True) if before != after}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if not names:
        return value
    if isinstance(value, dict):
        return {names.get(key, key): held if key == _QUOTED else _renamed(held, names) for key, held in value.items()}
    if isinstance(value, list):
        return [_renamed(held, names) for held in value]
    if not isinstance(value, str):
        return value
    # As a report writes them: a file and a row, or a file of which something is said.
    old = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({old})(?=:\d| holds no row)", lambda found: names[found[1]], value)
