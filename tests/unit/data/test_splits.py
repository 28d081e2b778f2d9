"""No prompt on both sides, whatever the kind of row; adding rows moves none."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preflow.data.splits import Side, is_held_out, prompt_key, split, split_key
from preflow.data.text import is_blank, normalise

PROMPTS = st.lists(st.text(min_size=1, max_size=4), max_size=40)


def side(prompts: list[str], share: float | None, named: int = 0) -> Side:
    """Rows with these prompts, of which the last ``named`` are named as held-out data."""
    keys = np.array([split_key(prompt) for prompt in prompts], np.uint64)
    return Side(keys, np.arange(len(prompts)) >= len(prompts) - named, share)


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
    kinds = [asked, compared]
    parts = split([side(asked, sft_share), side(compared, dpo_share)])
    held = {prompt_key(kind[i]) for kind, (mask, _) in zip(kinds, parts, strict=True) for i in np.flatnonzero(mask)}
    for kind, (mask, leaked) in zip(kinds, parts, strict=True):
        assert not (mask & leaked).any()
        trained = {prompt_key(kind[i]) for i in np.flatnonzero(~mask & ~leaked)}
        assert not trained & held
        assert all(prompt_key(kind[i]) in held for i in np.flatnonzero(leaked))


@given(PROMPTS, st.floats(0, 1))
def test_the_split_of_many_rows_is_that_of_each(prompts: list[str], share: float) -> None:
    assert side(prompts, share).held_out().tolist() == [is_held_out(prompt_key(prompt), share) for prompt in prompts]


@given(PROMPTS, PROMPTS)
def test_adding_rows_moves_none(before: list[str], more: list[str]) -> None:
    ((first, _),) = split([side(before, 0.1)])
    ((second, _),) = split([side([*before, *more], 0.1)])
    assert first.tolist() == second[: len(before)].tolist()


def test_equal_shares_put_a_prompt_on_the_same_side_in_both_kinds() -> None:
    prompts = [str(number) for number in range(300)]
    (first, leaked), (second, also) = split([side(prompts, 0.3), side(prompts, 0.3)])
    assert first.tolist() == second.tolist()
    assert not leaked.any()
    assert not also.any()


def test_named_held_out_rows_take_their_prompts_out_of_training_in_both_kinds() -> None:
    (shown, gone), (held, also) = split([side(["A", "b"], 0.0), side([" a", "c", "a"], None, named=1)])
    assert (shown.tolist(), gone.tolist()) == ([False, False], [True, False])
    assert (held.tolist(), also.tolist()) == ([False, False, True], [True, False, False])
