"""Digests of definitions that refer to each other, independent of their names."""

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple


class Reference(NamedTuple):
    """A definition of the project."""

    module: str
    name: str


@dataclass
class Resolved:
    """One definition whose paths are known.

    Attributes:
        parts: Its text, and in it the references.
        also: References that it may have besides.
        imported: Dotted names that it imports while it runs.
        outside: What it uses of other packages, dotted.
    """

    parts: list[str | Reference] = field(default_factory=list)
    also: set[Reference] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)

    @cached_property
    def references(self) -> frozenset[Reference]:
        """All of them, once it is whole."""
        return frozenset(self.also).union(part for part in self.parts if isinstance(part, Reference))


def add_digests(digests: dict[Reference, str], found: Mapping[Reference, Resolved]) -> None:
    """Add the SHA-256 of definitions, in which references stand as the digests of what they refer to.

    Definitions that need each other have one digest together, and each its place in it.

    Args:
        digests: What is known already.
        found: Definitions, and all that they refer to.
    """
    for group in _groups(found, digests):
        if len(group) == 1:
            (single,) = group
            digests[single] = _sha256(_text(found[single], {single: "this"}, digests))
            continue
        inside = dict.fromkeys(group, "here")
        # An order by what they are, so that names do not count; among equals by name.
        ordered = sorted(group, key=lambda each: (_text(found[each], {**inside, each: "this"}, digests), each))
        places = {each: f"place {place}" for place, each in enumerate(ordered)}
        whole = _sha256("".join(_text(found[each], places, digests) for each in ordered))
        for each, place in places.items():
            digests[each] = _sha256(whole + place)


def _text(resolved: Resolved, inside: Mapping[Reference, str], digests: Mapping[Reference, str]) -> str:
    parts = [part if isinstance(part, str) else f"<{inside.get(part) or digests[part]}>" for part in resolved.parts]
    also = sorted(inside.get(each) or digests[each] for each in resolved.also)
    return "".join(parts) + f" also {also}\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _groups(found: Mapping[Reference, Resolved], known: Container[Reference]) -> list[list[Reference]]:
    """Strongly connected components, those that others refer to first (Tarjan 1972), without what is known."""
    index: dict[Reference, int] = {}
    low: dict[Reference, int] = {}
    stack: list[Reference] = []
    open_ones: set[Reference] = set()
    groups: list[list[Reference]] = []
    for start in sorted(found):
        if start in index or start in known:
            continue
        path = [(start, iter(sorted(found[start].references)))]
        index[start] = low[start] = len(index)
        stack.append(start)
        open_ones.add(start)
        while path:
            node, targets = path[-1]
            target = next((each for each in targets if each in open_ones or not (each in index or each in known)), None)
            if target is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == index[node]:
                    group = stack[stack.index(node) :]
                    del stack[len(stack) - len(group) :]
                    open_ones.difference_update(group)
                    groups.append(group)
            elif target in index:
                low[node] = min(low[node], index[target])
            else:
                index[target] = low[target] = len(index)
                stack.append(target)
                open_ones.add(target)
                path.append((target, iter(sorted(found[target].references))))
    return groups
