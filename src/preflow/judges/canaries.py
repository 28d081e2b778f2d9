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
#: Share of verdicts that an unchanged judge gives otherwise: a server that batches requests is not the same to the last
#: bit, and many sample.
_NOISE = 0.1
#: Largest probability of refusing a judge with that noise: at 10 canaries, 5 must differ.
_LEVEL = 0.005


def check_canaries(judge: RemoteJudge, store: sqlite3.Connection, note: Callable[[str], None]) -> None:
    """Ask a judge for stored verdicts again, once.

    Args:
        judge: Who is asked; it is asked for no more afterwards.
        store: The store of its verdicts.
        note: Told of verdicts that differ where they are few enough, and of replies that cannot be read.

    Raises:
        JudgeChangedError: More of the readable verdicts differ than noise explains: a one-sided binomial test rejects
            that a tenth of them do.
    """
    with store:
        store.execute(_TABLE)
    rows = store.execute(_KNOWN, (Outcome.UNREADABLE, judge.canaries)).fetchall()
    judge.canaries = 0
    again = dict(judge.verdicts([Comparison(*texts) for *texts, _ in rows]))
    pairs = [(again[place].outcome, outcome) for place, (*_, outcome) in enumerate(rows)]
    readable = [(new, old) for new, old in pairs if new is not Outcome.UNREADABLE]
    changed, unreadable = sum(new != old for new, old in readable), len(rows) - len(readable)
    if _exceeds_noise(changed, len(readable)):
        raise JudgeChangedError(
            f"the judge {judge.identity.get('model')} has changed: {changed} of {len(readable)} questions that it "
            "was asked before have another verdict now, and stored verdicts are not mixed with another judge's. Set "
            f"{judge.section}.revision to another word, under which everything is asked anew"
        )
    found = {f"{changed} came out differently": changed, f"{unreadable} could not be read": unreadable}
    if any(found.values()):
        what = " and ".join(text for text, count in found.items() if count)
        note(f"judge: of {len(rows)} stored verdicts that were asked for again, {what}")


def _exceeds_noise(changed: int, of: int) -> bool:
    """Whether so many other verdicts are too many for an unchanged judge (one-sided exact binomial test)."""
    from scipy import stats  # takes seconds to import

    if changed <= _NOISE * of:
        return False
    return float(stats.binomtest(changed, of, _NOISE, alternative="greater").pvalue) < _LEVEL


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
