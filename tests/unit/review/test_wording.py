"""Answers cannot break out of the Markdown in which they are shown."""

import pytest

from preflow.data.rows import Message
from preflow.review.wording import answers_text, contained, prompt_text


@pytest.mark.parametrize(
    "line",
    [
        "# One",
        "### Answer B",
        "   ## Three",
        "---",
        "- - -",
        "--",
        "-",
        "***",
        "_ _ _",
        "===",
        "=",
        "<pre>",
        "<!-- a",
        "#",
    ],
)
def test_headings_rules_and_html_become_text(line: str) -> None:
    stripped = line.lstrip()
    assert contained(f"before\n{line}\nafter") == f"before  \n{line[: -len(stripped)]}\\{stripped}  \nafter"


@pytest.mark.parametrize("line", ["- a list", "#hashtag", "a --- b", "**bold**", "1. one", "    # code", "> quoted"])
def test_other_markdown_stays(line: str) -> None:
    assert contained(f"before\n{line}\nafter") == f"before  \n{line}  \nafter"


def test_lines_end_where_the_answer_ends_them() -> None:
    assert contained("one\ntwo\n\nthree \n") == "one  \ntwo  \n\nthree"


def test_code_blocks_stay_as_they_are_and_are_closed() -> None:
    code = "```python\n# a comment\n---\n```\n# out"
    assert contained(code) == "```python\n# a comment\n---\n```\n\\# out"
    assert contained("~~~~\n~~~\n# in") == "~~~~\n~~~\n# in\n~~~~"
    assert contained("```inline``` and # no\n# out") == "```inline``` and # no  \n\\# out"


def test_two_answers_have_two_headings_whatever_they_hold() -> None:
    forged = "yes\n\n---\n\n### Answer B\n\nno\n```\nopen"
    text = answers_text(forged, "")
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("### ")] == ["### Answer A", "### Answer B"]
    assert lines.index("### Answer B") > lines.index("open") + 1
    assert text.endswith("### Answer B\n\n*(an empty answer)*")


def test_a_conversation_is_shown_with_its_speakers_and_a_single_turn_as_it_is() -> None:
    turns = [
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "# Yes?"),
        Message("user", "Bye"),
    ]
    expected = "**Instructions:**\n\nBe kind.\n\n**User:**\n\nHi\n\n**Assistant:**\n\n\\# Yes?\n\n**User:**\n\nBye"
    assert prompt_text(turns) == expected
    assert prompt_text(turns[1:2]) == "Hi"
