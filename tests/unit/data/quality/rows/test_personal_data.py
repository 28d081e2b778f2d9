"""Personal data and secrets are named where the recipe asks for it, and only there."""

import json
from pathlib import Path
from typing import Any

import pytest

from expectations.gate import run_gate
from preflow.config.validation import ValidationSettings
from preflow.data.files.sources import resolve_sources
from preflow.data.quality.rows.personal_data import has_email, has_phone, has_secret
from preflow.observer import Silent
from preflow.specs import ValidateSpec
from tests.conftest import preference_rows, write_jsonl

# The numbers and the key are those that their makers reserve for examples.
EMAILS = ["write to Ann.Lee+shop@mail.example.org, please", "a@b.co"]
PHONES = ["call +44 20 7946 0018 today", "(650) 253-0000", "650-253-0000"]
SECRETS = ["key AKIAIOSFODNN7EXAMPLE", "-----BEGIN RSA PRIVATE KEY-----", "https://bob:hunter2secret@example.org/x"]
NOTHING = ["an order @ 5 dollars", "It costs 12,345.67 in 2024.", "18 * 25 = 450", "He went home.", "see example.org"]


@pytest.mark.parametrize("text", [*EMAILS, *PHONES, *SECRETS, *NOTHING])
def test_each_is_found_and_nothing_else(text: str) -> None:
    if "://" not in text:  # a password in a URL reads like an address, and is named either way
        assert has_email(text) == (text in EMAILS)
    assert has_phone(text, "US") == (text in PHONES)
    assert has_secret(text) == (text in SECRETS)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [False, True])
def test_they_are_named_only_where_the_recipe_asks(tmp_path: Path, asked: bool) -> None:
    rows: list[dict[str, Any]] = preference_rows(40)
    for row, text in zip(rows, (EMAILS[0], PHONES[0], SECRETS[0]), strict=False):
        row["prompt"] += " " + text
    file = write_jsonl(tmp_path / "p.jsonl", rows)
    settings = ValidationSettings(personal_data=asked)
    run_gate(ValidateSpec(preferences=resolve_sources([str(file)]), settings=settings), tmp_path, Silent())
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["preferences"]["findings"]
    named = {name: found[name]["rows"] for name in ("email_address", "phone_number", "secret") if name in found}
    expected = {"email_address": [1], "phone_number": [2], "secret": [3]}
    assert named == ({name: {"p.jsonl": numbers} for name, numbers in expected.items()} if asked else {})
