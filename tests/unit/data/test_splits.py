"""No prompt is in both splits, whatever the kind of row; adding rows moves none."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preflow.data.splits import SplitRows, assign_splits, split_key
from preflow.data.text import is_blank, normalise
from tests.unit.data.prompt_hashes import is_held_out, prompt_hash

PROMPTS = st.lists(st.text(min_size=1, max_size=4), max_size=40)


def rows(prompts: list[str], share: float | None, named: int = 0) -> SplitRows:
    """Rows with these prompts, of which the last ``named`` are named as held-out data."""
    keys = np.array([split_key(prompt) for prompt in prompts], np.uint64)
    return SplitRows(keys, np.arange(len(prompts)) >= len(prompts) - named, share)


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
    assert split_key(" Hi ") >> 48 == 0x8F43
    assert rows(["Hi"], 0.56).held_out().tolist() == [True]
    assert rows(["Hi"], 0.559).held_out().tolist() == [False]


def test_shares_are_kept_and_nested() -> None:
    prompts = [str(number) for number in range(20_000)]
    tenth, fifth, none = (rows(prompts, share).held_out() for share in (0.1, 0.2, 0.0))
    # Standard deviation of the share: sqrt(0.1 * 0.9 / 20000) = 0.0021; four of them.
    assert abs(tenth.mean() - 0.1) < 0.0085
    assert fifth[tenth].all()
    assert not none.any()


@given(PROMPTS, PROMPTS, st.floats(0, 0.9), st.floats(0, 0.9))
def test_no_prompt_is_in_both_splits_and_every_row_is_in_one(
    asked: list[str], compared: list[str], sft_share: float, dpo_share: float
) -> None:
    kinds = [asked, compared]
    parts = assign_splits([rows(asked, sft_share), rows(compared, dpo_share)])
    held = {prompt_hash(kind[i]) for kind, (mask, _) in zip(kinds, parts, strict=True) for i in np.flatnonzero(mask)}
    for kind, (mask, leaked) in zip(kinds, parts, strict=True):
        assert not (mask & leaked).any()
        trained = {prompt_hash(kind[i]) for i in np.flatnonzero(~mask & ~leaked)}
        assert not trained & held
        assert all(prompt_hash(kind[i]) in held for i in np.flatnonzero(leaked))


@given(PROMPTS, st.floats(0, 1))
def test_the_split_of_many_rows_is_that_of_each(prompts: list[str], share: float) -> None:
    assert rows(prompts, share).held_out().tolist() == [is_held_out(prompt_hash(prompt), share) for prompt in prompts]


@given(PROMPTS, PROMPTS)
def test_adding_rows_moves_none(before: list[str], more: list[str]) -> None:
    ((first, _),) = assign_splits([rows(before, 0.1)])
    ((second, _),) = assign_splits([rows([*before, *more], 0.1)])
    assert first.tolist() == second[: len(before)].tolist()


def test_equal_shares_put_a_prompt_into_the_same_split_in_both_kinds() -> None:
    prompts = [str(number) for number in range(300)]
    (first, leaked), (second, also) = assign_splits([rows(prompts, 0.3), rows(prompts, 0.3)])
    assert first.tolist() == second.tolist()
    assert not leaked.any()
    assert not also.any()


def test_named_held_out_rows_take_their_prompts_out_of_training_in_both_kinds() -> None:
    (shown, gone), (held, also) = assign_splits([rows(["A", "b"], 0.0), rows([" a", "c", "a"], None, named=1)])
    assert (shown.tolist(), gone.tolist()) == ([False, False], [True, False])
    assert (held.tolist(), also.tolist()) == ([False, False, True], [True, False, False])
