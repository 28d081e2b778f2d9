"""The page names everything that the report holds, shows users' texts as text, and needs no other file."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from expectations.report.page import page
from preflow.config.validation import ValidationSettings
from tests.unit.expectations.gate_support import gate, pairs, spec, write

TAGS = '<script>alert("x")</script> & <b>bold</b>'


class Reading(HTMLParser):
    """Tags and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("page")
    rows = [
        *pairs(60),
        *[pairs(1)[0]] * 25,
        {"prompt": "a", "chosen": f"{TAGS} yes", "rejected": f"{TAGS.upper()} YES"},
    ]
    asked = spec({"settings": ValidationSettings(whole_examples=True)}, preferences=write(folder / "p.jsonl", rows))
    gate(asked, folder / "out")
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_texts_of_rows_are_shown_as_text_and_never_as_markup(report: dict[str, Any]) -> None:
    read = Reading(page(report))
    assert f"{TAGS} yes" in read.text
    assert read.tags.count("b") == 4, "the four counts alone are bold"
    assert "script" not in read.tags


@pytest.mark.slow
def test_every_finding_and_every_row_number_is_on_the_page(report: dict[str, Any]) -> None:
    read = Reading(page(report))
    for name, entry in report["preferences"]["findings"].items():
        assert name.replace("_", " ") in read.text
        for numbers in entry["rows"].values():
            assert ", ".join(map(str, numbers)) in read.text
    assert "all 25" in read.text, "25 copies are more than are shown before the rest is folded away"
    many = [n for entry in report["preferences"]["findings"].values() for n in entry["rows"].values() if len(n) > 20]
    assert read.tags.count("details") == len(many) >= 1


def test_the_page_needs_no_other_file(report: dict[str, Any]) -> None:
    text = page(report)
    read = Reading(text)
    assert read.links == []
    assert "link" not in read.tags
    assert "url(" not in text


@pytest.mark.parametrize(("verdict", "title"), [("fit", "fit for training"), ("unfit", "not fit for training")])
def test_the_verdict_is_the_title(report: dict[str, Any], verdict: str, title: str) -> None:
    critical = ["preferences: <none>"] if verdict == "unfit" else []
    text = page({**report, "verdict": verdict, "critical": critical})
    assert f"The data are {title}</title>" in text
    assert ("preferences: <none>" in Reading(text).text) == (verdict == "unfit")
