"""A chunk looked at quickly gives what the careful way gives; whatever a file holds is a row or a clear error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from preflow.config.validation import ValidationSettings
from preflow.data.conversion import RowProblem, to_demonstration, to_pair
from preflow.data.files.chunks import Chunk, chunks
from preflow.data.files.jsonl import jsonl_row
from preflow.data.files.raw_rows import RawRow
from preflow.data.files.sources import resolve_sources
from preflow.data.quality.rows.ingest import PROBLEMS
from preflow.data.quality.rows.row_checks import ChunkTask, measure_chunk
from preflow.data.quality.rows.word_hashes import SLOTS, Words, bands
from preflow.data.text import folded_words
from preflow.data.validated import DataKind
from preflow.errors import DataFileError

TEXT = st.text(max_size=12)
VALUE = st.one_of(TEXT, st.none(), st.booleans(), st.integers(), st.lists(TEXT, max_size=2))
KEYS = ["prompt", "chosen", "rejected", "completion", "messages", "source"]
ROWS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUE), max_size=6)
TMP = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def order(kind: DataKind, chunk: Chunk, folder: Path) -> ChunkTask:
    return ChunkTask(kind, chunk, 0, folder / "rows.jsonl", ValidationSettings())


@TMP
@given(ROWS, st.sampled_from(["preferences", "demonstrations"]))
def test_the_quick_way_gives_the_rows_of_the_careful_way(
    tmp_path: Path, rows: list[dict[str, Any]], kind: DataKind
) -> None:
    raws = tuple(RawRow("f", number, row) for number, row in enumerate(rows, 1))
    found = measure_chunk(order(kind, Chunk("f", "train", rows=raws), tmp_path))
    lines = (tmp_path / "rows.jsonl").read_bytes().split(b"\n")[:-1]
    assert len(lines) == len(rows) == len(found.columns["row"])
    for raw, line, problem in zip(raws, lines, found.columns["problem"], strict=True):
        finding, careful = converted(raw, kind)
        assert PROBLEMS[problem] == finding
        assert careful is None or line.decode() == careful


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"rejected_finished": False}, "unfinished_answer"),
        ({"finish_reason_chosen": "length"}, "unfinished_answer"),
        ({"chosen_truncated": True}, "unfinished_answer"),
        ({"chosen": "array([{'role': 'assistant'\n 'content': 'x'}], dtype=object)"}, "turns_as_text"),
        ({"chosen_finished": True, "topic": "t"}, "fine"),
    ],
)
def test_what_says_that_a_row_means_something_else_takes_the_careful_way(
    tmp_path: Path, columns: dict[str, Any], problem: str
) -> None:
    row = RawRow("f", 1, {"prompt": "a", "chosen": "b", "rejected": "c", **columns})
    found = measure_chunk(order("preferences", Chunk("f", "train", rows=(row,)), tmp_path))
    assert [PROBLEMS[place] for place in found.columns["problem"]] == [problem]


def converted(raw: RawRow, kind: DataKind) -> tuple[str, str | None]:
    """What is wrong with a row, and the row as the validated files hold it."""
    try:
        row = to_pair(raw) if kind == "preferences" else to_demonstration(raw)
    except RowProblem as problem:
        return problem.finding, None
    return "fine", json.dumps(row.to_json(), ensure_ascii=False)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from([*KEYS, "role"]), inner)),
    max_leaves=8,
)


@given(JSON)
@example({"prompt": -(2**63) - 1})  # beyond 64 bits orjson gives a float
@example({"prompt": [2**64]})
def test_the_quick_parser_reads_what_the_careful_one_reads(value: Any) -> None:
    line = json.dumps(value).encode()
    row = jsonl_row(line, "f", 1)
    plain = json.loads(line, parse_constant=lambda _: None)
    if isinstance(plain, dict):
        assert (row.malformed, row.values) == (None, plain)
    else:
        assert row.malformed is not None


NAMES = ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.json.zst"]


@TMP
@given(st.binary(max_size=200), st.sampled_from(NAMES))
def test_whatever_bytes_a_file_holds_it_gives_rows_or_a_clear_error(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    complaint = name
    try:
        (source,) = resolve_sources([str(tmp_path / name)])
        for chunk in chunks(source, name, "train"):
            measure_chunk(order("preferences", chunk, tmp_path))
    except DataFileError as error:
        complaint = str(error)
    assert name in complaint


def test_chunks_give_the_rows_of_the_whole_with_their_line_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preflow.data.files.chunks.CHUNK_BYTES", 100)
    text = b"\xef\xbb\xbf" + b"".join(b'{"prompt": "%d"}\r\n\n' % number for number in range(50))
    (tmp_path / "a.jsonl").write_bytes(text)
    (source,) = resolve_sources([str(tmp_path / "a.jsonl")])
    parts = list(chunks(source, "a", "train"))
    rows = [row for part in parts for row in part.read()]
    assert len(parts) > 5
    assert [(row.row, row.values["prompt"]) for row in rows] == [(2 * n + 1, str(n)) for n in range(50)]


@pytest.mark.slow
@given(st.lists(st.text(max_size=30), max_size=8))
def test_words_of_many_texts_are_the_words_of_each(texts: list[str]) -> None:
    words = Words.of(texts)
    assert words.counts.tolist() == [len(folded_words(text)) for text in texts]
    for text, bag, sequence in zip(texts, words.bags(), words.sequences(), strict=True):
        again = Words.of([" ".join(reversed(folded_words(text)))])
        assert bag == again.bags()[0]
        assert (sequence == again.sequences()[0]) == (folded_words(text) == folded_words(text)[::-1])


def test_signatures_estimate_the_jaccard_index_and_near_copies_share_a_band() -> None:
    rng = np.random.default_rng(3)
    shared, own = [f"w{n}" for n in range(80)], [f"v{n}" for n in range(2000)]
    pairs = []
    for _ in range(200):
        mine, yours = rng.choice(own, 20, replace=False).reshape(2, 10)
        pairs += [" ".join([*shared, *mine]), " ".join([*shared, *yours])]
    words = Words.of(pairs)
    signatures = words.signatures(words.offsets[:-1], words.offsets[1:])
    agree = (signatures[0::2] == signatures[1::2]).mean(axis=1)
    # Jaccard 80/100; the mean of 200 estimates of 48 slots has a standard error of 0.4 / sqrt(9600) = 0.0041.
    assert abs(agree.mean() - 0.8) < 4 * 0.0041 + 0.005
    keys = bands(signatures)
    assert keys.shape == (SLOTS // 4, 400)
    met = (keys[:, 0::2] == keys[:, 1::2]).any(axis=0)
    assert met.mean() > 0.98
    assert (keys[:, 0] == keys[:, 3]).sum() <= SLOTS // 4


QUESTION = "What is a neutron star made of?"


@pytest.mark.parametrize(
    ("prompt", "answer", "repeats"),
    [
        (QUESTION, 'You asked: "what is a  neutron star made of" and it is neutrons.', True),
        (QUESTION, "I hear: WHAT IS A NEUTRON STAR MADE OF? Neutrons.", True),
        (QUESTION, "Glad to say what is a neutron star made of, as it were.", False),
        (QUESTION, "It is made of what a neutron star is made of.", False),
        ("How are you?", "how are you", True),
        ("Good morning!", "Good morning!", False),
        ("Is it far?", "Well. Is it far? I think so.", False),
    ],
)
def test_an_answer_repeats_what_it_says_on_its_own(tmp_path: Path, prompt: str, answer: str, repeats: bool) -> None:
    raws = tuple(
        RawRow("f", 1, {"prompt": prompt, "chosen": c, "rejected": r}) for c, r in ((answer, "A"), ("B", answer))
    )
    found = measure_chunk(order("preferences", Chunk("f", "train", rows=raws), tmp_path))
    assert found.columns["repeats"].tolist() == [repeats, repeats]


def test_answers_with_a_shared_beginning_alone_are_not_similar(tmp_path: Path) -> None:
    """The whole of long texts counts, not the beginning that is compared first."""
    begin = " ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(340))
    ends = [" ".join(f"{word}{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(200)) for word in ("river", "hill")]
    pairs = [(f"{begin} {ends[0]}", f"{begin} {ends[1]}"), (f"{begin} {ends[0]} so", f"{begin} {ends[0]}")]
    assert len(begin) > 2000
    raws = tuple(RawRow("f", n, {"prompt": "p", "chosen": c, "rejected": r}) for n, (c, r) in enumerate(pairs, 1))
    found = measure_chunk(order("preferences", Chunk("f", "train", rows=raws), tmp_path)).columns
    assert np.isnan(found["alike"]).tolist() == [True, False]
    raws = tuple(RawRow("f", n, {"prompt": c, "completion": r}) for n, (c, r) in enumerate(pairs, 1))
    found = measure_chunk(order("demonstrations", Chunk("f", "train", rows=raws), tmp_path)).columns
    assert found["repeats"].tolist() == [False, True]
