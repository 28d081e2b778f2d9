"""No prompt is in both splits, whatever the kind of row; adding rows moves none."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preflow.data.splits import SplitRows, assign_splits, split_key, validation_rows
from preflow.data.text import is_blank, normalise
from tests.unit.data.prompt_hashes import is_held_out, prompt_hash

PROMPTS = st.lists(st.text(min_size=1, max_size=4), max_size=40)


def rows(prompts: list[str], share: float | None, named: int = 0, validation: float = 0.0) -> SplitRows:
    """Rows with these prompts, of which the last ``named`` are named as held-out data."""
    keys = np.array([split_key(prompt) for prompt in prompts], np.uint64)
    return SplitRows(keys, np.arange(len(prompts)) >= len(prompts) - named, share, validation)


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


@given(PROMPTS, PROMPTS, st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 5), st.floats(0, 0.5), st.floats(0, 0.5))
def test_no_prompt_is_in_two_of_the_three_splits(
    asked: list[str], compared: list[str], share: float, other: float, named: int, first: float, second: float
) -> None:
    kinds = [asked, compared]
    given_rows = [rows(asked, share, validation=first), rows(compared, None, named, second)]
    for same_kind in (given_rows, [given_rows[0], rows(compared, other, validation=second)]):
        found: dict[str, set[str]] = {"train": set(), "test": set(), "validation": set()}
        parts = zip(kinds, assign_splits(same_kind), validation_rows(same_kind), strict=True)
        for kind, (held, leaked), choosing in parts:
            assert not (choosing & ~held).any()
            assert not (held & leaked).any()
            masks = {"train": ~held & ~leaked, "test": held & ~choosing, "validation": choosing}
            for name, mask in masks.items():
                found[name] |= {prompt_hash(kind[i]) for i in np.flatnonzero(mask)}
        assert not found["train"] & found["test"]
        assert not found["train"] & found["validation"]
        assert not found["test"] & found["validation"]


def test_neither_held_out_share_moves_the_rows_of_the_other() -> None:
    prompts = [str(number) for number in range(20_000)]
    alone = [rows(prompts, 0.1).held_out(), *validation_rows([rows(prompts, 0.0, validation=0.1)])]
    both = rows(prompts, 0.1, validation=0.1)
    (more,) = validation_rows([rows(prompts, 0.1, validation=0.2)])
    (choosing,) = validation_rows([both])
    assert both.held_out().tolist() == alone[0].tolist()
    assert choosing.tolist() == alone[1].tolist()
    assert more[choosing].all()
    assert abs(choosing.mean() - 0.1) < 0.0085  # as for the test's share


def test_a_prompt_of_a_named_test_row_chooses_nothing() -> None:
    """With a validation share of nearly 1 all prompts fall to it, but that of the named test row, in both kinds."""
    kinds = [rows(["A", "b"], 0.0, validation=0.9999), rows(["c", "a"], None, named=1, validation=0.9999)]
    assert [mask.tolist() for mask in validation_rows(kinds)] == [[False, True], [True, False]]
    (_, gone), (held, _) = assign_splits(kinds)
    assert (gone.tolist(), held.tolist()) == ([True, False], [True, True])
