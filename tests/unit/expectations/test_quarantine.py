"""Quarantined rows can be edited and read again; messages quote no more of a text than they must."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expectations.report.summary import remedies
from preflow.config.validation import ValidationSettings
from preflow.data.rows import Source
from preflow.data.validated import load_pairs
from preflow.errors import DataUnfitError
from tests.unit.expectations.gate_support import gate, pairs, quarantined, spec, write


@pytest.mark.slow
def test_quarantined_rows_can_be_edited_and_read_again(tmp_path: Path) -> None:
    rows: list[Any] = pairs(60)
    rows[5] = {"prompt": "Question 5?", "chosen": "", "rejected": "Rude 5.", "id": "five"}
    out = tmp_path / "out"
    gate(spec(preferences=write(tmp_path / "p.jsonl", rows)), out)
    (line,) = (out / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["values"] == rows[5]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.json"])
def test_quarantined_rows_keep_every_column_and_are_read_back_from_the_quarantine(tmp_path: Path, name: str) -> None:
    rows: list[Any] = pairs(60)
    rows[5] = {"prompt": "Question 5?", "chosen": "", "rejected": "Rude 5.", "id": "five"}
    rows[8] = {**rows[7], "id": "eight", "source": "mail"}
    rows[9] = {**pairs(1, 9)[0], "rejected": "KIND 9.", "system": "Be kind.", "made": {"by": ["me"]}}
    text = json.dumps(rows) if name == "p.json" else "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    gate(spec(preferences=str(tmp_path / name)), tmp_path / "out")
    quarantine = tmp_path / "out" / "quarantine.jsonl"
    kept = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [(line["row"], line["values"]) for line in kept] == [(place + 1, rows[place]) for place in (5, 8, 9)]
    for line, answer in zip(kept, ("Kind 5.", "Kind 8.", "Kind 9."), strict=True):
        line["values"] |= {"chosen": answer, "rejected": f"Not {answer}", "prompt": f"{answer}?"}
    edited = write(tmp_path / "edited.jsonl", [*pairs(60, 100), *map(json.dumps, kept)])
    artifact, report, _ = gate(spec(preferences=edited), tmp_path / "again")
    assert report["preferences"]["set_aside"] == 0
    found = {pair.chosen[0].content: pair for side in ("train", "eval") for pair in load_pairs(artifact, side)}
    assert found["Kind 9."].prompt[0].content == "Be kind."
    assert found["Kind 5."].source == Source("edited.jsonl", 61)


@pytest.mark.slow
def test_where_a_row_stands_is_found_without_reading_the_whole_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*pairs(60), *pairs(3)]
    sizes: list[int] = []
    read = np.fromfile

    def watched(*arguments: Any, **named: Any) -> Any:
        found = read(*arguments, **named)
        if Path(arguments[0]).name == "row.0":
            sizes.append(len(found))
        return found

    monkeypatch.setattr(np, "fromfile", watched)
    gate(spec(preferences=write(tmp_path / "p.jsonl", rows)), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["detail"] for line in lines] == [f"equals p.jsonl:{n}" for n in (1, 2, 3)]
    assert sizes.count(1) >= 3
    assert sizes.count(63) <= len(json.loads((tmp_path / "out" / "report.json").read_text())["preferences"]["findings"])


@pytest.mark.slow
def test_a_length_bias_towards_the_shorter_answer_is_not_called_one_of_the_longer(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"Yes {n}.", "rejected": f"No {n} {'x ' * (n % 9 + 1)}"}
        for n in range(200)
    ]
    _, report, _ = gate(spec(preferences=write(tmp_path / "p.jsonl", rows)), tmp_path / "out")
    (line,) = (line for line in remedies(report) if "length_bias" in line)
    assert "'the longer answer' marks rejected in 1.00" in line
    assert "the longer answer wins" not in line


@pytest.mark.slow
def test_a_line_of_the_quarantine_that_was_not_edited_is_quarantined_again(tmp_path: Path) -> None:
    line, twice = "{", json.dumps(pairs(1, 80)[0])[:-1] + ', "chosen": "Other."}'
    gate(spec(preferences=write(tmp_path / "p.jsonl", [*pairs(60), line, twice])), tmp_path / "out")
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(kept)["values"] for kept in lines] == [{"line": line}, {"line": twice}]
    gate(spec(preferences=write(tmp_path / "q.jsonl", [*pairs(60), *lines])), tmp_path / "again")
    assert quarantined(tmp_path / "again") == dict.fromkeys([("q.jsonl", 61), ("q.jsonl", 62)], "malformed_line")
    edited = [{**json.loads(kept), "values": {"line": json.dumps(pairs(1, 80)[0])}} for kept in lines[1:]]
    _, report, _ = gate(spec(preferences=write(tmp_path / "r.jsonl", [*pairs(60), *edited])), tmp_path / "third")
    assert report["preferences"]["used"] == 61


@pytest.mark.slow
def test_what_no_encoding_and_no_json_can_write_is_no_error_of_the_program(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    rows = [
        *pairs(60),
        *(json.dumps({**row, "source": "\ud800x"}) for row in pairs(2, 80)),
        '{"prompt": "a", "\\udfff": "b"}',
        '{"prompt": "a", "chosen": "b", "\\udfff": "c", "\\udfff": "d"}',
        f'{{"prompt": "a", "chosen": "b", "rejected": 1e999, "nan": NaN, "deep": {deep}}}',
    ]
    rows += [{**row, "source": "y"} for row in pairs(2, 90)]
    options = {"settings": ValidationSettings(dominant_source=0.4)}
    out = tmp_path / "out"
    _, report, _ = gate(spec(options, preferences=write(tmp_path / "p.jsonl", rows)), out)
    assert report["preferences"]["measures"]["dominant_source"]["source"] == "\\ud800x"
    assert [name for _, name in sorted(quarantined(out))] == [63, 64, 65]
    last = (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    values = json.loads(last, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["values"]
    assert (values["rejected"], values["nan"], values["prompt"]) == (None, None, "a")
    assert "nested too deeply" in json.dumps(values["deep"])


@pytest.mark.slow
def test_reports_hold_no_whole_text_of_a_role_or_a_column(tmp_path: Path) -> None:
    text = "a private text that goes on and on and on and on and on, secretword"
    turn = [{"role": text, "content": "a"}]
    rows = [*pairs(60), {"prompt": turn, "chosen": "b", "rejected": "c"}, {text: "a"}]
    gate(spec(preferences=write(tmp_path / "p.jsonl", rows)), tmp_path / "out")
    (tmp_path / "t.csv").write_text(f'"{text}",b,c\n1,2,3\n1,2\n')
    with pytest.raises(DataUnfitError):
        gate(spec(preferences=str(tmp_path / "t.csv")), tmp_path / "table")
    for name in ("out", "table"):
        for file in ("report.json", "report.html"):
            assert "secretword" not in (tmp_path / name / file).read_text()
