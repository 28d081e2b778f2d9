"""What rows are known by."""

import hashlib
from dataclasses import replace

import pytest

from preflow.data.rows import Message, Pair, Source, content_id
from preflow.data.splits import cluster_key, split_key

PAIR = Pair(
    prompt=(Message("user", "Hi"),),
    chosen=(Message("assistant", "Hello."),),
    rejected=(Message("assistant", "What?"),),
    source=Source("p.jsonl", 3),
)


def test_a_content_id_is_the_digest_of_prompt_chosen_and_rejected_as_json() -> None:
    text = (
        '[[{"content":"Hi","role":"user"}],[{"content":"Hello.","role":"assistant"}],'
        '[{"content":"What?","role":"assistant"}]]'
    )
    assert PAIR.id == hashlib.sha256(text.encode()).hexdigest()


def test_a_content_id_does_not_know_where_a_row_stands() -> None:
    assert replace(PAIR, source=Source("other.csv", 99)).id == PAIR.id


@pytest.mark.parametrize(
    "other",
    [
        replace(PAIR, prompt=(Message("user", "hi"),)),
        replace(PAIR, chosen=(Message("assistant", "Hello. "),)),
        replace(PAIR, chosen=PAIR.rejected, rejected=PAIR.chosen),
        replace(PAIR, prompt=(Message("system", "Hi"),)),
        replace(PAIR, chosen=(Message("assistant", "Hello.", "They greet."),)),
    ],
    ids=["case", "a blank", "sides", "role", "reasoning"],
)
def test_a_content_id_is_of_the_exact_contents(other: Pair) -> None:
    assert other.id != PAIR.id


def test_where_a_part_ends_counts() -> None:
    one, two = Message("user", "a"), Message("assistant", "b")
    assert len({content_id((one, two)), content_id((one,), (two,)), content_id((), (one, two))}) == 3


def test_a_cluster_is_named_by_the_key_that_splits_rows() -> None:
    """First turns that differ in case and white space alone come to one side, and are one cluster."""
    assert int(cluster_key("Where  is it?"), 16) == split_key("where is it?")
    assert len(cluster_key("x")) == 16
