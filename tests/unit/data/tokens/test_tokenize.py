"""Rows in = used + dropped; long rows lose whole old turns first; nothing is cut in silence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.row_counts import RowCounts
from preflow.data.tokens.tokenize import Overlong, TokenizedDemonstration, tokenize_demonstrations, tokenize_pairs
from preflow.errors import DataError, TemplateError
from tests.unit.data.tokens.tokenizers import THINKS_LAST, make_tokenizer

# Every character below is one token, every special token one: a turn "<|im_start|>" "R" ":" text "<|im_end|>".
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'][0] + ':' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>a:' }}{% endif %}"
)
TOKENIZER = make_tokenizer(TEMPLATE)
RENDERER = Renderer(TOKENIZER, "chat")


def messages(*contents: str, system: str | None = None) -> tuple[Message, ...]:
    turns = tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(contents))
    return (Message("system", system), *turns) if system else turns


def shown(*contents: str, system: str | None = None, context: int = 0) -> Demonstration:
    return Demonstration(messages(*contents, system=system), Source("d", 1), context)


def pair(*prompt: str, chosen: str, rejected: str) -> Pair:
    answers = [(Message("assistant", text),) for text in (chosen, rejected)]
    return Pair(messages(*prompt), answers[0], answers[1], Source("p", 1))


def text(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids)).replace("<|im_start|>", "[").replace("<|im_end|>", "]")


def test_a_row_that_fits_exactly_is_used_whole() -> None:
    # [u:Q] is 5 tokens, [a: is 3, XYZ] is 4: 12.
    rows, counts = tokenize_demonstrations([shown("Q", "XYZ")], RENDERER, 12, "drop")
    assert text(rows[0].input_ids) == "[u:Q][a:XYZ]"
    assert rows[0].response_mask == [False] * 8 + [True] * 4
    assert (counts.rows_in, counts.used, counts.changed.total()) == (1, 1, 0)


def test_oldest_whole_turns_go_first_and_the_system_turn_stays() -> None:
    # [s:S] 5, [u:Q][a:X] 10 per exchange: three exchanges are 35 tokens, two are 25.
    row = shown("1", "X", "2", "Y", "3", "Z", system="S")
    rows, counts = tokenize_demonstrations([row], RENDERER, 34, "drop")
    assert text(rows[0].input_ids) == "[s:S][u:2][a:Y][u:3][a:Z]"
    assert counts.changed == {"turns_removed": 1}


def test_context_shrinks_with_the_turns_removed() -> None:
    # The first exchange is context; it is removed, so no turn that is left is.
    row = shown("1", "X", "2", "Y", "3", "Z", context=2)
    rows, _ = tokenize_demonstrations([row], RENDERER, 29, "drop")
    trained = [token for token, counts in zip(rows[0].input_ids, rows[0].response_mask, strict=True) if counts]
    assert text(rows[0].input_ids) == "[u:2][a:Y][u:3][a:Z]"
    assert text(trained) == "Y]Z]"


def test_a_row_that_the_template_refuses_is_named() -> None:
    renderer = Renderer(TOKENIZER, "none")
    with pytest.raises(TemplateError, match=r"p:1: .*3 turns"):
        tokenize_pairs([pair("1", "X", "2", chosen="A", rejected="B")], renderer, 99, "drop")


@pytest.mark.parametrize(
    ("limit", "overlong", "reason"), [(11, "drop", "response_too_long"), (8, "cut", "prompt_too_long")]
)
def test_a_row_that_cannot_fit_is_dropped_by_reason(limit: int, overlong: Overlong, reason: str) -> None:
    rows, counts = tokenize_demonstrations([shown("Q", "XYZ")], RENDERER, limit, overlong)
    assert rows == []
    assert counts.dropped == {reason: 1}
    assert counts.examples == {reason: ["d:1"]}


def test_a_response_is_cut_only_when_asked_and_counted_and_then_does_not_end_the_turn() -> None:
    rows, counts = tokenize_demonstrations([shown("Q", "XYZ")], RENDERER, 10, "cut")
    assert text(rows[0].input_ids) == "[u:Q][a:XY"
    assert counts.changed == {"response_cut": 1}


def test_chosen_and_rejected_answer_the_same_prompt() -> None:
    # The longer response alone (8 + 10 + 4 > 21) makes both lose the first exchange.
    rows, counts = tokenize_pairs([pair("1", "X", "2", chosen="A", rejected="BCD")], RENDERER, 21, "drop")
    row = rows[0]
    assert (text(row.prompt_ids), text(row.chosen_ids), text(row.rejected_ids)) == ("[u:2][a:", "A]", "BCD]")
    assert counts.changed == {"turns_removed": 1}


def test_a_pair_that_cutting_makes_equal_is_dropped_by_reason() -> None:
    rows, counts = tokenize_pairs([pair("Q", chosen="ABC", rejected="ABD")], RENDERER, 10, "cut")
    assert rows == []
    assert counts.dropped == {"equal_when_cut": 1}


def test_a_pair_is_cut_on_the_side_that_is_too_long() -> None:
    rows, counts = tokenize_pairs([pair("Q", chosen="A", rejected="BCDE")], RENDERER, 10, "cut")
    assert (text(rows[0].chosen_ids), text(rows[0].rejected_ids)) == ("A]", "BC")
    assert counts.changed == {"response_cut": 1}


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(DataError, match="3 rows in"):
        RowCounts(rows_in=3, used=1).check()


def test_counts_name_the_first_rows_of_each_reason() -> None:
    counts = RowCounts(rows_in=9, used=2)
    for row in range(7):
        counts.drop("prompt_too_long", Source("f", row))
    assert counts.to_json()["examples"] == {"prompt_too_long": ["f:0", "f:1", "f:2", "f:3", "f:4"]}
    assert str(counts) == "9 rows in, 2 used; 7 dropped: prompt_too_long (f:0, f:1, f:2, f:3, f:4, ...)"


TEXT = st.text(alphabet="abc", min_size=1, max_size=9)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.lists(TEXT, min_size=0, max_size=4), TEXT, TEXT, TEXT), max_size=6),
    st.integers(8, 60),
    st.sampled_from(["drop", "cut"]),
)
def test_every_pair_is_used_or_dropped_and_no_used_one_is_too_long(
    contents: list[tuple[list[str], str, str, str]], limit: int, overlong: Overlong
) -> None:
    pairs = [
        pair(*earlier[: len(earlier) // 2 * 2], last, chosen=chosen, rejected=rejected)
        for earlier, last, chosen, rejected in contents
    ]
    rows, counts = tokenize_pairs(pairs, RENDERER, limit, overlong)
    assert counts.rows_in == len(pairs) == len(rows) + counts.dropped.total()
    for row in rows:
        responses = (row.chosen_ids, row.rejected_ids)
        assert all(len(row.prompt_ids) + len(response) <= limit and response for response in responses)
        if overlong == "drop":
            assert all(response[-1] == RENDERER.closing_id for response in responses)
    whole = sum(
        all(response[-1] == RENDERER.closing_id for response in (row.chosen_ids, row.rejected_ids)) for row in rows
    )
    assert len(rows) - whole == counts.changed["response_cut"]


def test_a_masked_turn_is_context_also_when_old_turns_are_removed() -> None:
    """Four turns of "[R:X]", four tokens each; the row without its oldest two ends "[u:e][a:f]"."""
    row = Demonstration(messages("a", "b", "c", "d", "e", "f"), Source("d", 1), masked=(3,))
    (whole,), _ = tokenize_demonstrations([row], RENDERER, 1000, "drop")
    learnt = [index for index, inside in zip(whole.input_ids, whole.response_mask, strict=True) if inside]
    assert text(learnt) == "b]f]"
    (cut,), _ = tokenize_demonstrations([row], RENDERER, len(whole.input_ids) - 1, "drop")
    assert text([index for index, inside in zip(cut.input_ids, cut.response_mask, strict=True) if inside]) == "f]"


def test_thoughts_that_the_template_leaves_out_are_counted() -> None:
    thinks = Message("assistant", "d", reasoning="b")
    row = Demonstration((*messages("a"), thinks), Source("d", 1))
    _, counts = tokenize_demonstrations([row, shown("a", "b")], RENDERER, 1000, "drop")
    assert (counts.used, dict(counts.changed)) == (2, {"reasoning_lost": 1})
    writes = TEMPLATE.replace("+ m['content'] +", "+ m.get('reasoning_content', '') + m['content'] +")
    (kept,), counts = tokenize_demonstrations([row], Renderer(make_tokenizer(writes), "chat"), 1000, "drop")
    assert (text(kept.input_ids), dict(counts.changed)) == ("[u:a][a:bd]", {})


def test_empty_thoughts_that_the_template_writes_into_an_answer_are_counted() -> None:
    renderer = Renderer(make_tokenizer(THINKS_LAST), "chat")
    _, counts = tokenize_demonstrations([shown("a", "b")], renderer, 1000, "drop")
    assert dict(counts.changed) == {"empty_think_block": 1}


SPLITS = THINKS_LAST.replace("<think>\n\n</think>\n\n", "!")  # as Qwen3's: the last answer is written otherwise


def learnt(renderer: Renderer, rows: list[TokenizedDemonstration]) -> list[str]:
    pairs = [zip(row.input_ids, row.response_mask, strict=True) for row in rows]
    return [str(renderer.tokenizer.decode([token for token, inside in each if inside])) for each in pairs]


def test_a_template_that_rewrites_earlier_turns_gives_one_row_per_answer_counted_as_such() -> None:
    renderer = Renderer(make_tokenizer(SPLITS), "chat")
    rows, counts = tokenize_demonstrations([shown("a", "b", "c", "d"), shown("e", "f")], renderer, 1000, "drop")
    assert learnt(renderer, rows) == ["!b<|im_end|>", "!d<|im_end|>", "!f<|im_end|>"]
    assert [str(row.source) for row in rows] == ["d:1", "d:1", "d:1"]
    assert (counts.rows_in, counts.split, counts.used) == (2, 1, 3)
    assert dict(counts.changed) == {"split_by_answer": 1}
    assert str(counts).startswith("2 rows in (3 as one per answer), 3 used; 1 changed: split_by_answer (d:1)")


def test_the_prompt_of_a_split_answer_is_the_one_of_inference() -> None:
    renderer = Renderer(make_tokenizer(SPLITS), "chat")
    (_, second), _ = tokenize_demonstrations([shown("a", "b", "c", "d")], renderer, 1000, "drop")
    start = renderer.prompt_ids(messages("a", "b", "c"))
    assert second.input_ids[: len(start)] == start
    assert second.response_mask == [False] * len(start) + [True] * (len(second.input_ids) - len(start))


def test_context_and_masked_answers_get_no_row_of_their_own() -> None:
    renderer = Renderer(make_tokenizer(SPLITS), "chat")
    turns = messages("a", "b", "c", "d", "e", "f", "g", "h")
    rows, counts = tokenize_demonstrations(
        [Demonstration(turns, Source("d", 1), context=2, masked=(5,))], renderer, 1000, "drop"
    )
    assert learnt(renderer, rows) == ["!d<|im_end|>", "!h<|im_end|>"]
    assert (counts.rows_in, counts.split, counts.used) == (1, 1, 2)


def test_answers_of_a_split_row_that_do_not_fit_are_dropped_each() -> None:
    renderer = Renderer(make_tokenizer(SPLITS), "chat")
    row = shown("a", "b" * 60, "c", "d")
    (only,), counts = tokenize_demonstrations([row], renderer, 40, "drop")
    assert learnt(renderer, [only]) == ["!d<|im_end|>"]
    assert (counts.rows_in, counts.split, counts.used) == (1, 1, 1)
    assert dict(counts.dropped) == {"response_too_long": 1}
    counts.check()


@pytest.mark.parametrize("template", [TEMPLATE, SPLITS])
def test_train_on_last_learns_the_last_answer_alone(template: str) -> None:
    renderer = Renderer(make_tokenizer(template), "chat")
    row = shown("a", "b", "c", "d")
    rows, counts = tokenize_demonstrations([row], renderer, 1000, "drop", train_on="last")
    assert [text.lstrip("!") for text in learnt(renderer, rows)] == ["d<|im_end|>"]
    assert (counts.rows_in, counts.split, counts.used, dict(counts.changed)) == (1, 0, 1, {})


def test_thoughts_of_split_answers_are_counted_as_kept() -> None:
    """Each answer's thoughts are in its own row, though later prompts leave them out."""
    keeps = TEMPLATE.replace(
        "+ m['content'] +", "+ (m.get('reasoning_content', '') if loop.last else '') + m['content'] +"
    )
    renderer = Renderer(make_tokenizer(keeps), "chat")
    thinks = Message("assistant", "b", reasoning="x")
    row = Demonstration((*messages("a"), thinks, *messages("c", "d")), Source("d", 1))
    rows, counts = tokenize_demonstrations([row], renderer, 1000, "drop")
    assert learnt(renderer, rows) == ["xb<|im_end|>", "d<|im_end|>"]
    assert dict(counts.changed) == {"split_by_answer": 1}
