"""Sampled answers kept by prompt and number, so that nothing is sampled twice and a kill loses one batch."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from preflow.fingerprints.files import json_digest

_TABLE = "create table if not exists answer (prompt text, number integer, ids text, primary key (prompt, number))"
#: Seconds to wait for another process that writes.
_WAIT = 60.0


class AnswerStore:
    """The answers of one model under one way of sampling, in one file."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Open the file of what all its answers depend on besides prompt and number.

        Args:
            folder: Where such files are kept.
            identity: The model, its precision, the code, and how it samples.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{json_digest(identity)}.sqlite"
        with closing(self._open()) as store, store:
            store.execute(_TABLE)

    def find(self, prompts: Iterable[Sequence[int]]) -> dict[tuple[str, int], list[int]]:
        """Kept answers of some prompts, by ``prompt_key`` and number."""
        wanted = {prompt_key(prompt) for prompt in prompts}
        with closing(self._open()) as store:
            rows = store.execute("select prompt, number, ids from answer")
            return {(prompt, number): json.loads(ids) for prompt, number, ids in rows if prompt in wanted}

    def keep(self, answers: Iterable[tuple[Sequence[int], int, list[int]]]) -> None:
        """Keep the answers of a batch: prompt, number, token ids."""
        rows = [(prompt_key(prompt), number, json.dumps(ids)) for prompt, number, ids in answers]
        with closing(self._open()) as store, store:
            store.executemany("insert or replace into answer values (?, ?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        store = sqlite3.connect(self._file, timeout=_WAIT)
        store.execute("pragma journal_mode = wal")  # an answer is safe from a kill without a wait for the disk
        store.execute("pragma synchronous = normal")
        return store


def prompt_key(prompt: Sequence[int]) -> str:
    """The name of a prompt by its token ids."""
    return json_digest(list(prompt))
