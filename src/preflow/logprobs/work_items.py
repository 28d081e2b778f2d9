"""Requested rows that are missing in a log-prob store, cut into pieces of one forward each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preflow.logprobs.key_index import Keys, padded_key
from preflow.models.packed.layout import PromptResponses

#: Responses to one prompt that one forward takes on the CPU: two pairs. More would be one unit of loss and of memory.
_FORWARD_RESPONSES = 4


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A prompt with responses that are missing, few enough for one forward.

    Attributes:
        group: Prompt and responses.
        keys: The key of each response.
        firsts: Of each response, whether it is the first missing one of a requested group; they count groups.
    """

    group: PromptResponses
    keys: list[bytes]
    firsts: list[bool]

    @property
    def pairs(self) -> int:
        """Half the number of responses, rounded up."""
        return (len(self.keys) + 1) // 2

    def part(self, places: Sequence[int]) -> "WorkItem":
        """Some of its responses."""
        prompt, responses = self.group
        return WorkItem(
            (prompt, [responses[i] for i in places]), [self.keys[i] for i in places], [self.firsts[i] for i in places]
        )

    def pieces(self, tokens: int | None) -> Iterator["WorkItem"]:
        """The same responses in order, at most ``tokens`` places of a packed row at once, or two pairs without it."""
        prompt, responses = self.group
        piece: list[int] = []
        length = len(prompt) - 1
        for place, response in enumerate(responses):
            full = len(piece) == _FORWARD_RESPONSES if tokens is None else length + len(response) > tokens
            if piece and full:
                yield self.part(piece)
                piece, length = [], len(prompt) - 1
            piece.append(place)
            length += len(response)
        yield self.part(piece) if len(piece) < len(responses) else self


def missing_work(groups: Sequence[PromptResponses], keys: Keys, found: NDArray[np.int64]) -> tuple[list[WorkItem], int]:
    """Missing responses by prompt, each once; and how many groups lack only responses that earlier groups request too.

    Args:
        groups: What is requested.
        keys: The key of every response of every group.
        found: Negative where the key is not stored.
    """
    if (found >= 0).all():  # the groups need not be read
        return [], 0
    wanted: dict[tuple[int, ...], list[tuple[bytes, Sequence[int], bool]]] = {}
    known: set[bytes] = set()
    place = repeated = 0
    for prompt, responses in groups:
        places = range(place, place + len(responses))
        place += len(responses)
        absent = {padded_key(keys[i]): r for i, r in zip(places, responses, strict=True) if found[i] < 0}
        new = {key: response for key, response in absent.items() if key not in known}
        if new:
            known.update(new)
            firsts = (True, *(False,) * (len(new) - 1))
            wanted.setdefault(tuple(prompt), []).extend(zip(new, new.values(), firsts, strict=True))
        elif absent:
            repeated += 1
    return [
        WorkItem((prompt, [r for _, r, _ in rows]), [key for key, _, _ in rows], [first for _, _, first in rows])
        for prompt, rows in wanted.items()
    ], repeated
