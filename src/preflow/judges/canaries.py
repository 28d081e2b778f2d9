"""Canaries: stored verdicts that a remote judge is asked for again, since what answers at an address may change.

The identity of a judge behind an address is the address, the model's name and what it is asked; another model under the
same name has the same identity. So some of the first questions are kept whole, and before a new question is asked,
these are asked again.
"""

import sqlite3
from collections.abc import Callable, Sequence

from preflow.errors import JudgeChangedError
from preflow.judges.verdict import Comparison, Outcome, RemoteJudge
from preflow.maths.spread import evenly_spaced

_TABLE = "create table if not exists canary (comparison text primary key, prompt text, first text, second text)"
_KNOWN = """
    select prompt, first, second, outcome from canary join verdict using (comparison)
    where outcome != ? order by comparison limit ?
"""
#: Share of the canaries whose verdicts may differ: a server that batches requests is not the same to the last bit.
_TOLERATED = 0.1


def check_canaries(judge: RemoteJudge, store: sqlite3.Connection, note: Callable[[str], None]) -> None:
    """Ask a judge for stored verdicts again, once.

    Args:
        judge: Who is asked; it is asked for no more afterwards.
        store: The store of its verdicts.
        note: Told of verdicts that differ where they are few enough.

    Raises:
        JudgeChangedError: More than a tenth of them, and more than one, differ.
    """
    with store:
        store.execute(_TABLE)
    rows = store.execute(_KNOWN, (Outcome.UNREADABLE, judge.canaries)).fetchall()
    judge.canaries = 0
    again = dict(judge.verdicts([Comparison(*texts) for *texts, _ in rows]))
    changed = sum(again[place].outcome != outcome for place, (*_, outcome) in enumerate(rows))
    if changed > max(1, _TOLERATED * len(rows)):
        raise JudgeChangedError(
            f"the judge {judge.identity.get('model')} has changed: {changed} of {len(rows)} questions that it "
            "was asked before have another verdict now, and stored verdicts are not mixed with another judge's. Set "
            f"{judge.section}.revision to another word, under which everything is asked anew"
        )
    if changed:
        note(f"judge: of {len(rows)} stored verdicts that were asked for again, {changed} came out differently")


def keep_canaries(store: sqlite3.Connection, asked: Sequence[Comparison], wanted: int) -> None:
    """Keep some of the questions that are about to be asked whole, until there are as many as wanted.

    Args:
        store: The store of a remote judge's verdicts.
        asked: The questions.
        wanted: How many canaries there shall be.
    """
    with store:
        store.execute(_TABLE)
        (there,) = store.execute("select count(*) from canary").fetchone()
        for one in evenly_spaced(asked, max(0, wanted - there)):
            values = (one.digest(), one.prompt, one.first, one.second)
            store.execute("insert or replace into canary values (?, ?, ?, ?)", values)
