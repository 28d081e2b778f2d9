"""Tokens counted many at a time are those of training; rows that are too long are named with what they would lose."""

import json
from pathlib import Path
from typing import Any

import pytest

from expectations.gate import run_gate
from preflow.data.reading import resolve_sources
from preflow.data.rows import Message, from_json
from preflow.data.templates import Renderer
from preflow.errors import ConfigError
from preflow.observer import Silent
from preflow.stages.specs import ValidateSpec
from tests.conftest import make_tokenizer, preference_rows, write_jsonl

LIMIT = 120


def report(folder: Path, rows: list[dict[str, Any]], tokenizer: Path) -> dict[str, Any]:
    file = write_jsonl(folder / "p.jsonl", rows)
    spec = ValidateSpec(preferences=resolve_sources([str(file)]), tokenizer=str(tokenizer), max_seq_length=LIMIT)
    (folder / "out").mkdir()
    run_gate(spec, folder / "out", Silent())
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))["preferences"]
    return found


def test_rows_over_the_limit_are_named_with_the_tokens_they_would_lose(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(str(tmp_path / "tokenizer"))
    rows = preference_rows(80)
    for number, row in enumerate(rows):
        row["rejected"] += " x" * number
    rows[70] = {**rows[70], "prompt": [{"role": "system", "content": "Be kind."}, *turns(rows[70]["prompt"])]}
    renderer = Renderer(tokenizer, "chat")
    expected = {}
    for number, row in enumerate(rows, 1):
        prompt = row["prompt"] if isinstance(row["prompt"], list) else turns(row["prompt"])
        messages = from_json(prompt)
        ids = renderer.prompt_ids(messages)
        sides = [renderer.response_ids(messages, (Message("assistant", row[s]),), ids) for s in ("chosen", "rejected")]
        length = len(ids) + max(map(len, sides))
        if length > LIMIT:
            expected[number] = length
    found = report(tmp_path, rows, tmp_path / "tokenizer")["findings"]["too_many_tokens"]
    assert 10 < len(expected) < 70
    assert found["rows"] == {"p.jsonl": list(expected)}
    first = next(iter(expected))
    assert f"{expected[first]} tokens: {expected[first] - LIMIT} tokens of the response" in found["example"]


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_folder_without_a_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        report(tmp_path, preference_rows(5), tmp_path)
