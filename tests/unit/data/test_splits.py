"""No prompt on both sides, whatever the kind of row; adding rows moves none."""

from hypothesis import given
from hypothesis import strategies as st

from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.splits import is_blank, is_held_out, normalise, prompt_key, row_key, split_rows

ANSWER = Message("assistant", "yes")
PROMPTS = st.lists(st.text(min_size=1, max_size=4), max_size=40)


def shown(prompt: str, row: int = 1) -> Demonstration:
    return Demonstration((Message("system", "s"), Message("user", prompt), ANSWER), Source("d", row))


def pair(prompt: str, row: int = 1) -> Pair:
    return Pair((Message("user", prompt),), (ANSWER,), (ANSWER,), Source("p", row))


def test_normalisation_is_of_unicode_form_case_and_white_space() -> None:
    assert (
        normalise("  \ufb01ne\u00a0STRASSE \n e\u0301") == normalise("Fine stra\u00dfe \u00e9") == "fine strasse \u00e9"
    )


@given(st.text())
def test_normalisation_is_idempotent(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_blank_is_what_cannot_be_seen() -> None:
    assert all(is_blank(text) for text in ("", " \n", "\u200b", "\ufeff\u2060", "\x00"))
    assert not any(is_blank(text) for text in (".", " a", "\U0001f600", "\u200bx"))


def test_the_hash_is_fixed_for_ever() -> None:
    # SHA-256 of "hi" begins with 8f43: 0x8f43 / 0x10000 = 0.5596.
    assert prompt_key(" Hi ").startswith("8f43")
    assert is_held_out(prompt_key("Hi"), 0.56)
    assert not is_held_out(prompt_key("Hi"), 0.559)


def test_shares_are_kept_and_nested() -> None:
    keys = [prompt_key(str(number)) for number in range(20_000)]
    tenth = {key for key in keys if is_held_out(key, 0.1)}
    # Standard deviation of the share: sqrt(0.1 * 0.9 / 20000) = 0.0021; four of them.
    assert abs(len(tenth) / len(keys) - 0.1) < 0.0085
    assert tenth <= {key for key in keys if is_held_out(key, 0.2)}
    assert not any(is_held_out(key, 0.0) for key in keys)


@given(PROMPTS, PROMPTS, st.floats(0, 0.9), st.floats(0, 0.9))
def test_no_prompt_is_on_both_sides_and_every_row_is_somewhere(
    asked: list[str], compared: list[str], sft_share: float, dpo_share: float
) -> None:
    rows = [shown(prompt, i) for i, prompt in enumerate(asked)]
    pairs = [pair(prompt, i) for i, prompt in enumerate(compared)]
    split_d, split_p = split_rows(rows, pairs, sft_share=sft_share, dpo_share=dpo_share)
    trained = {row_key(row) for row in split_d.train} | {row_key(row) for row in split_p.train}
    held = {row_key(row) for row in split_d.held_out} | {row_key(row) for row in split_p.held_out}
    assert not trained & held
    for split, given_rows in ((split_d, rows), (split_p, pairs)):
        parts = [*split.train, *split.held_out, *split.leaked]
        assert sorted(row.source.row for row in parts) == [row.source.row for row in given_rows]


@given(PROMPTS, PROMPTS)
def test_adding_rows_moves_none(before: list[str], more: list[str]) -> None:
    first, _ = split_rows([shown(prompt, i) for i, prompt in enumerate(before)], [])
    both = [shown(prompt, i) for i, prompt in enumerate([*before, *more])]
    second, _ = split_rows(both, [])
    old = range(len(before))
    assert [row.source.row for row in first.train] == [row.source.row for row in second.train if row.source.row in old]


def test_equal_shares_put_a_prompt_on_the_same_side_in_both_kinds() -> None:
    prompts = [str(number) for number in range(300)]
    rows, pairs = [shown(prompt) for prompt in prompts], [pair(prompt) for prompt in prompts]
    split_d, split_p = split_rows(rows, pairs, sft_share=0.3, dpo_share=0.3)
    assert {row_key(row) for row in split_d.held_out} == {row_key(row) for row in split_p.held_out}
    assert not split_d.leaked
    assert not split_p.leaked


def test_named_held_out_rows_take_their_prompts_out_of_training_in_both_kinds() -> None:
    split_d, split_p = split_rows(
        [shown("A", 1), shown("b", 2)], [pair(" a", 1), pair("c", 2)], pairs_eval=[pair("a", 9)], sft_share=0.0
    )
    assert [row.source.row for row in split_d.leaked] == [1]
    assert [row.source.row for row in split_d.train] == [2]
    assert [row.source.row for row in split_p.leaked] == [1]
    assert [row.source.row for row in split_p.held_out] == [9]
