"""Verdicts kept by what was judged, row by row, so that nothing is asked twice and a kill loses what was on its way."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from preflow.fingerprints.files import json_digest
from preflow.judges.canaries import check_canaries, keep_canaries
from preflow.judges.verdict import Comparison, Judge, Outcome, RemoteJudge, ScoringJudge, Verdict

_TABLE = "create table if not exists verdict (comparison text primary key, outcome text, reason text)"
_SCORES = "create table if not exists score (text text primary key, score real)"
#: Answers that are scored before they are stored.
_SCORED_AT_ONCE = 16
#: Seconds to wait for another process that writes.
_WAIT = 60.0


def unheard(text: str) -> None:
    """Take a note of which nothing is made."""


def judge_all(
    judge: Judge,
    asked: Sequence[Comparison],
    folder: Path,
    progress: Callable[[int, int], None],
    note: Callable[[str], None] = unheard,
) -> list[Verdict]:
    """A verdict for each comparison: stored ones are read, the others asked for once each, and stored.

    A remote judge is asked for some stored verdicts again before the first new one.

    Args:
        judge: Who is asked.
        asked: N comparisons.
        folder: Where verdicts are kept, one file for each judge.
        progress: Told how many of how many distinct comparisons have their verdict.
        note: Told where a remote judge's verdicts differ from stored ones.

    Raises:
        JudgeChangedError: They differ on too many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{json_digest(judge.identity)}.sqlite"
    keys = [comparison.digest() for comparison in asked]
    distinct = dict(zip(keys, asked, strict=True))
    with closing(sqlite3.connect(file, timeout=_WAIT)) as store:
        store.execute("pragma journal_mode = wal")  # a verdict is safe from a kill without a wait for the disk
        store.execute("pragma synchronous = normal")
        with store:
            store.execute(_TABLE)
        known = {
            key: Verdict(Outcome(outcome), reason)
            for key, outcome, reason in store.execute("select comparison, outcome, reason from verdict")
            if key in distinct
        }
        missing = [key for key in distinct if key not in known]
        if missing and isinstance(judge, RemoteJudge) and judge.canaries:
            wanted = judge.canaries
            check_canaries(judge, store, note)
            keep_canaries(store, [distinct[key] for key in missing], wanted)
        for number, verdict in judge.verdicts([distinct[key] for key in missing]):
            key = missing[number]
            with store:
                store.execute("insert or replace into verdict values (?, ?, ?)", (key, verdict.outcome, verdict.reason))
            known[key] = verdict
            progress(len(known), len(distinct))
    return [known[key] for key in keys]


def score_all(
    judge: ScoringJudge,
    identity: dict[str, Any],
    texts: Sequence[tuple[str, str]],
    folder: Path,
    progress: Callable[[int, int], None],
) -> list[float]:
    """A score for each prompt with its answer: stored ones are read, the others computed once each, and stored.

    Args:
        judge: Who scores.
        identity: The judge's.
        texts: N prompts with an answer each.
        folder: Where scores are kept, in the file of the judge's verdicts.
        progress: Told how many of how many distinct answers have their score.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = [json_digest(list(text)) for text in texts]
    distinct = dict(zip(keys, texts, strict=True))
    with closing(sqlite3.connect(folder / f"{json_digest(identity)}.sqlite", timeout=_WAIT)) as store:
        store.execute("pragma journal_mode = wal")
        with store:
            store.execute(_SCORES)
        known = {key: score for key, score in store.execute("select text, score from score") if key in distinct}
        missing = [key for key in distinct if key not in known]
        for begin in range(0, len(missing), _SCORED_AT_ONCE):
            part = missing[begin : begin + _SCORED_AT_ONCE]
            found = dict(zip(part, judge.scores([distinct[key] for key in part]), strict=True))
            with store:
                store.executemany("insert or replace into score values (?, ?)", found.items())
            known.update(found)
            progress(len(known), len(distinct))
    return [known[key] for key in keys]
