"""Tokens counted many at a time are those of training; rows that are too long are named with what they would lose."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from expectations.gate import run_gate
from flows.commands.validate import main
from preflow.config.validation import ValidationSettings
from preflow.data.files.sources import resolve_sources
from preflow.data.rows import Message, from_json
from preflow.data.tokens.chat_template import Renderer
from preflow.errors import ConfigError
from preflow.findings import Severity
from preflow.observer import Silent
from preflow.specs import ValidateSpec
from tests.conftest import make_tokenizer, preference_rows, write_jsonl

LIMIT = 120


def report(folder: Path, rows: list[dict[str, Any]], tokenizer: Path, severity: Severity = "warn") -> dict[str, Any]:
    file = write_jsonl(folder / "p.jsonl", rows)
    spec = ValidateSpec(
        preferences=resolve_sources([str(file)]),
        tokenizer=str(tokenizer),
        max_seq_length=LIMIT,
        settings=ValidationSettings(severity={"too_many_tokens": severity}, maximum_set_aside=1.0),
    )
    (folder / "out").mkdir()
    run_gate(spec, folder / "out", Silent())
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))["preferences"]
    return found


@pytest.mark.slow
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
        responses = [
            renderer.response_ids(messages, (Message("assistant", row[s]),), ids) for s in ("chosen", "rejected")
        ]
        length = len(ids) + max(map(len, responses))
        if length > LIMIT:
            expected[number] = length
    found = report(tmp_path, rows, tmp_path / "tokenizer")["findings"]["too_many_tokens"]
    assert 10 < len(expected) < 70
    assert found["rows"] == {"p.jsonl": list(expected)}
    first = next(iter(expected))
    assert f"{expected[first]} tokens: {expected[first] - LIMIT} tokens of the response" in found["example"]


@pytest.mark.slow
def test_what_is_lost_is_what_no_longer_fits_when_old_turns_are_gone(tmp_path: Path) -> None:
    """By the tokenizer's own template: the last user turn and the answer are all that is left of an overlong row."""
    tokenizer = make_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(8)  # as some files on the hub have it
    backend.enable_padding(length=64)
    tokenizer.save_pretrained(str(tmp_path / "tokenizer"))
    rows, expected = preference_rows(60), {}
    for number in range(1, 41):
        row = rows[number - 1]
        if number % 4 == 0:  # the prompt alone is too long
            row["prompt"] += " y" * 150
        elif number % 2:
            row["chosen"] += " x" * (30 + 3 * number)
        asked = turns(row["prompt"])
        if number % 3 == 0:
            old = [{"role": "user", "content": "Hello! " * 20}, {"role": "assistant", "content": "Hi. " * 15}]
            row["prompt"] = [*old, *asked]
        whole, answer = tokens(tokenizer, as_turns(row["prompt"]), row), tokens(tokenizer, asked, row)
        if max(whole) > LIMIT:
            room = LIMIT - prompt_tokens(tokenizer, asked)
            answers = [total - prompt_tokens(tokenizer, asked) for total in answer]
            expected[number] = (max(whole), max(max(0, length - room) if room > 0 else length for length in answers))
    found = report(tmp_path, rows, tmp_path / "tokenizer", severity="set_aside")
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    details = {line["row"]: line["detail"] for line in lines}
    assert list(found["findings"]["too_many_tokens"]["rows"]["p.jsonl"]) == list(expected)
    assert {lost > 0 for _, lost in expected.values()} == {True, False}
    assert details == {
        row: f"the row has {total} tokens: {lost} tokens of the response would be lost"
        for row, (total, lost) in expected.items()
    }


def as_turns(prompt: str | list[dict[str, str]]) -> list[dict[str, str]]:
    return turns(prompt) if isinstance(prompt, str) else prompt


def prompt_tokens(tokenizer: Any, prompt: list[dict[str, str]]) -> int:
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def tokens(tokenizer: Any, prompt: list[dict[str, str]], row: dict[str, Any]) -> list[int]:
    """Of prompt and each answer, up to the answer's end mark."""
    found = []
    for side in ("chosen", "rejected"):
        text = tokenizer.apply_chat_template(
            [*prompt, {"role": "assistant", "content": row[side]}], tokenize=False
        ).rstrip("\n")
        found.append(len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    return found


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.slow
def test_a_folder_without_a_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        report(tmp_path, preference_rows(5), tmp_path)


@pytest.mark.slow
def test_a_recipe_without_a_template_is_counted_without_one_and_the_limit_is_shown(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(str(tmp_path / "tokenizer"))
    rows = preference_rows(60)
    rows[20]["chosen"] += " x" * LIMIT
    write_jsonl(tmp_path / "p.jsonl", rows)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"strategy: dpo\ndataset: p.jsonl\ntemplate: none\ndpo: {{max_seq_length: {LIMIT}}}\n")
    app = typer.Typer()
    app.command()(main)
    arguments = [str(recipe), "--tokenizer", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, arguments)
    entry = json.loads(done.stdout)["preferences"]["findings"]["too_many_tokens"]
    renderer = Renderer(tokenizer, "none")
    asked = (Message("user", rows[20]["prompt"]),)
    ids = renderer.prompt_ids(asked)
    tokens = len(ids) + len(renderer.response_ids(asked, (Message("assistant", rows[20]["chosen"]),), ids))
    assert f"the row has {tokens} tokens" in entry["example"]
    assert (entry["rows"], entry["setting"], entry["threshold"]) == ({"p.jsonl": [21]}, "max_seq_length", LIMIT)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"<small>max_seq_length: {LIMIT}</small>" in page
