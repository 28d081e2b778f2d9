"""Generated pages name everything that the code has."""

import json
import re

import pytest
import yaml

from docs.tools import pages
from docs.tools.words import ROOT
from preflow.config import recipe_schema
from preflow.data.row_formats.examples import DEMONSTRATION_EXAMPLES, PREFERENCE_EXAMPLES, VERDICT_EXAMPLES
from preflow.data.row_formats.table import DEMONSTRATIONS, PREFERENCES, VERDICT
from preflow.diagnosis.diagnose import RUN_FINDINGS
from preflow.findings import FINDINGS


def schema_settings() -> set[str]:
    """Every setting's name in the JSON schema that editors read."""
    schema = json.loads(json.dumps(recipe_schema()))
    found = set(schema["properties"])
    for section in schema["$defs"].values():
        found |= set(section.get("properties", {}))
    return found - {
        "sft",
        "dpo",
        "reading",
        "validation",
        "evaluation",
        "launch",
        "augment",
        "reward_model",
        "rloo",
        "promotion",
        "guards",
        "judge",
        "benchmarks",
        "review",
    }


def test_every_setting_has_a_row_with_type_default_and_meaning() -> None:
    rows = [line.split(" | ") for line in pages.settings().splitlines() if line.startswith("| `")]

    assert {row[0].strip("| `") for row in rows} == schema_settings()
    for row in rows:
        assert all(cell.strip(" |") for cell in row[:4]), row


def test_a_setting_shows_its_bounds_and_its_default() -> None:
    """``max_grad_norm``: a number above 0, 1 where not given; ``sft.learning_rate`` has a word besides numbers."""
    assert "| `max_grad_norm` | number, above `0` | `1.0` |" in pages.settings()
    assert "| `learning_rate` | number or `auto` | `0.0002` |" in pages.settings()
    assert "| `init_lora_weights` | `true`, `gaussian`, `zero_a` | `true` |" in pages.settings()


def test_dpo_shows_what_differs_from_both_stages_settings_alone() -> None:
    dpo = pages.settings().split("## `dpo:`")[1].split("\n## ")[0]

    assert "| `beta` |" in dpo
    assert "| `seed` |" not in dpo
    assert "| `warmup_ratio` |" not in dpo


def test_every_finding_has_a_row_with_its_severity() -> None:
    rows = [line.split(" | ") for line in pages.findings().splitlines() if line.startswith("| `")]

    assert {row[0].strip("| `"): row[1].strip("`") for row in rows} == {
        name: finding.severity for name, finding in FINDINGS.items()
    }


def test_every_format_has_its_suffixes_and_compressions() -> None:
    made = pages.formats()

    assert "| jsonl | `.jsonl`, `.ndjson` | `.gz`, `.zst` |" in made
    assert "| parquet | `.parquet` |  |" in made


def test_every_format_of_rows_has_its_line_and_its_example() -> None:
    made = pages.row_formats()

    for form in (*DEMONSTRATIONS, *PREFERENCES, VERDICT):
        assert f"| {form.name} | {form.how} | `{json.dumps(form.example)}` |" in made
    for each in (*DEMONSTRATION_EXAMPLES, *PREFERENCE_EXAMPLES, *VERDICT_EXAMPLES):
        assert f"| {each.called} | {each.form} | `{json.dumps(each.row)}` |" in made


def test_every_subcommand_has_its_usage_and_its_options() -> None:
    made = pages.commands()

    for module in (ROOT / "flows" / "commands").glob("[a-z]*.py"):
        if module.stem != "app":
            assert f"\npreflow {module.stem} [OPTIONS]" in made, module
    assert "\npreflow store show [OPTIONS]" in made
    assert "| `--set NAME=VALUE` | Override a setting" in made.split("### preflow run")[1].split("\n### ")[0]


def test_the_architecture_page_has_every_import_contract() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    names = re.findall(r'^name = "(.*)"$', text.split("[tool.importlinter]")[1], re.MULTILINE)

    assert names
    assert [name for name in names if f"**{name}**" not in pages.import_rules()] == []


def test_a_page_that_names_an_unknown_part_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        pages.on_page_markdown("# Page\n\n<!-- generated: nothing -->\n")


def test_parts_take_the_place_of_their_marker() -> None:
    made = pages.on_page_markdown("# Page\n\n<!-- generated: findings -->\n\nEnd.\n")

    assert "mojibake" in made
    assert "generated:" not in made


def test_every_page_is_in_the_navigation_and_exists() -> None:
    def listed(entries: list[object]) -> set[str]:
        found = set()
        for entry in entries:
            for value in entry.values() if isinstance(entry, dict) else (entry,):
                found |= listed(value) if isinstance(value, list) else {str(value)}
        return found

    nav = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])

    assert nav == {file.relative_to(ROOT / "docs").as_posix() for file in (ROOT / "docs").rglob("*.md")}


def test_every_finding_about_a_run_has_a_row() -> None:
    rows = [line.split(" | ")[0].strip("| `") for line in pages.run_findings().splitlines() if line.startswith("| `")]

    assert rows == list(RUN_FINDINGS)
