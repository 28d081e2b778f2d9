"""Answers that say the same in other words are distinguished from those that do not."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import typer
from rapidfuzz import fuzz

from preflow.config.validation import ValidationSettings
from preflow.data.quality.wording.antonyms import exclude_each_other
from preflow.data.quality.wording.equivalence import meant
from preflow.data.quality.wording.paraphrase import LEAST_LETTERS, TABLE, alignment, shared_meaning
from tests.unit.data.quality.wording.paraphrases import HELD_BACK

LEAST = ValidationSettings().same_in_other_words
AGAIN = ("sentence said again", "sentences said again")


def shares() -> dict[str, float]:
    """Kind of pair to the share of those held back that is called the same."""
    asked, called = Counter[str](), Counter[str]()
    for pair in HELD_BACK:
        asked[pair["kind"]] += 1
        called[pair["kind"]] += shared_meaning(pair["a"], pair["b"]) >= LEAST
    return {kind: called[kind] / asked[kind] for kind in asked}


def test_what_is_paraphrased_is_found() -> None:
    assert all(shares()[kind] >= 0.7 for kind in AGAIN), shares()


@pytest.mark.parametrize("kind", ["another answer", "a detail more", "tone"])
def test_another_answer_is_not_called_the_same(kind: str) -> None:
    assert shares()[kind] == 0


@pytest.mark.parametrize("kind", ["fact", "negation", "another thing in like words"])
def test_most_answers_that_differ_in_a_word_that_counts_are_told_apart(kind: str) -> None:
    """Pairs written to deceive: what remains is roles that change places, and opposites that no list holds."""
    assert shares()[kind] <= 0.5, shares()


def test_letters_alone_leave_out_hardly_any() -> None:
    pairs = [pair for pair in HELD_BACK if pair["kind"] in AGAIN]
    left = [pair for pair in pairs if fuzz.ratio(pair["a"].lower(), pair["b"].lower()) / 100 < LEAST_LETTERS]
    assert len(left) <= 0.05 * len(pairs)


SENTENCE = "Water the plant once a week and keep it in a bright room away from the heater."
AGAIN_SAID = "Give the plant water once a week, and let it stand in a bright room far from the heater."


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(SENTENCE, SENTENCE, id="no other word"),
        pytest.param(SENTENCE, f"Well, {SENTENCE.lower()} That is all it ever asks of you.", id="only more"),
        pytest.param(SENTENCE, AGAIN_SAID.replace("once a week", "twice every 3 weeks"), id="number"),
        pytest.param(SENTENCE, AGAIN_SAID.replace("Give", "Never give"), id="negation"),
        pytest.param(SENTENCE, AGAIN_SAID.replace("bright", "dark"), id="opposite"),
        pytest.param(SENTENCE, AGAIN_SAID.replace("once a week", "once a month"), id="unit"),
        pytest.param(SENTENCE, AGAIN_SAID + " Obviously.", id="rude"),
        pytest.param(SENTENCE + " Ask our Anna.", AGAIN_SAID + " Ask our Maria.", id="name"),
        pytest.param("She went by taxi.", "She drove by taxi.", id="too short to say"),
        pytest.param(SENTENCE, "Water it weekly in a bright room.", id="much shorter"),
        pytest.param(SENTENCE, "", id="nothing"),
        pytest.param(
            "Gib der Pflanze Wasser und stell sie hell.", "Die Pflanze braucht Wasser und Licht.", id="German"
        ),
        pytest.param("你应该每周给植物浇一次水", "每周应该给你的植物浇水一次", id="Chinese"),
        pytest.param("3 + 4 = 7, 8 + 1 = 9", "8 + 1 = 9, 3 + 4 = 7", id="numbers alone"),
    ],
)
def test_a_difference_that_counts_is_no_paraphrase(left: str, right: str) -> None:
    assert shared_meaning(SENTENCE, AGAIN_SAID) >= LEAST, "the pair that each case changes"
    assert shared_meaning(left, right) < LEAST
    assert shared_meaning(right, left) < LEAST


def test_order_of_the_answers_makes_no_difference() -> None:
    for pair in HELD_BACK:
        assert shared_meaning(pair["a"], pair["b"]) == pytest.approx(shared_meaning(pair["b"], pair["a"]), abs=1e-6)


def test_alignment_by_hand() -> None:
    """Three words each, two of them in both: the third counts as its vector lies; unknown words by their letters."""
    with np.load(TABLE) as table:
        words = str(table["words"]).split()
        vectors, weights = table["vectors"].astype(float), table["weights"].astype(float)

    def vector(word: str) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        row = vectors[words.index(word)]
        return np.asarray(row / np.sqrt((row**2).sum()))

    cat, kitten, milk, drinks = (words.index(word) for word in ("cat", "kitten", "milk", "drinks"))
    near = float(vector("cat") @ vector("kitten"))
    assert 0.3 < near < 1
    expected = (weights[cat] * near + weights[milk] + weights[drinks]) / weights[[cat, milk, drinks]].sum()
    mirrored = (weights[kitten] * near + weights[milk] + weights[drinks]) / weights[[kitten, milk, drinks]].sum()
    found = alignment(["cat", "drinks", "milk"], ["milk", "kitten", "drinks"])
    assert found == pytest.approx(min(expected, mirrored), abs=1e-3)
    known = ["the", "cat", "drinks", "milk"]
    assert alignment([*known, "zorbulating"], [*known, "zorbulatings"]) < 1
    assert alignment([*known, "zorbulating"], [*known, "zorbulating"]) == pytest.approx(1)
    assert (
        alignment([*known, "zorbulating"], [*known, "zorbulatings"]) > alignment([*known, "zorbulating"], known) + 0.1
    )
    assert alignment([*known, "zorbulating"], [*known, "walking"]) == alignment([*known, "zorbulating"], known)
    assert alignment(["zorbulating", "cat"], ["zorbulating", "cat"]) == 0, "half of the words are unknown"


@pytest.mark.parametrize(
    ("left", "right", "differ"),
    [
        ("rises", "dropped", True),
        ("dropped", "rises", True),
        ("monday", "tuesday", True),
        ("teaspoons", "tablespoon", True),
        ("kilometres", "miles", True),
        ("kilometres", "kilometers", False),
        ("hotter", "colder", True),
        ("big", "large", False),
        ("plant", "water", False),
    ],
)
def test_words_that_exclude_each_other(left: str, right: str, differ: bool) -> None:
    assert exclude_each_other(set(meant(left)), set(meant(right))) is differ


def test_a_text_that_speaks_of_both_sides_excludes_neither() -> None:
    assert not exclude_each_other({"rise", "fall"}, {"drop"})


@pytest.mark.slow
def test_the_table_is_made_of_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tiny encoder with random weights: whole words alone, common ones weigh less, the same when made again."""
    from transformers import BertConfig, BertModel, BertTokenizer

    import preflow.data.quality.wording.paraphrase_vectors as maker

    words = [f"w{'abcdefgh'[n // 26 % 8]}{chr(97 + n % 26)}" for n in range(200)]
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##ing", "7", *words]), encoding="utf-8"
    )
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=207, hidden_size=160, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(tmp_path)
    monkeypatch.setattr(maker, "TABLE", tmp_path / "table.npz")
    table = maker.make(tmp_path)
    assert str(table["words"]).split() == words
    assert table["vectors"].shape == (200, 127)
    assert (np.abs(table["vectors"].astype(int)).max(axis=1) == 127).all()
    assert (np.diff(table["weights"].astype(float)) >= 0).all()
    assert table["weights"].max() == 1
    maker.write(table)
    for changed, code in ((False, 0), (True, 1)):
        if changed:
            maker.write({**table, "vectors": table["vectors"] // 2})
        with pytest.raises(typer.Exit) as ended:
            maker.main(tmp_path, check=True)
        assert ended.value.exit_code == code
