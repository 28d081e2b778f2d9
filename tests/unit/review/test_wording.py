"""Answers cannot break out of the Markdown in which they are shown."""

import random

import pytest
from markdown_it import MarkdownIt

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


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("> ---", "> \\---"),
        ("> ### Answer B", "> \\### Answer B"),
        (">### Answer B", ">\\### Answer B"),
        ("- ### Answer B", "- \\### Answer B"),
        ("1. # x", "1. \\# x"),
        ("  * > 2) ### Answer B", "  * > 2) \\### Answer B"),
        ("> <h3>", "> \\<h3>"),
        ("> ===", "> \\==="),
        ("> ```", "> \\```"),
        ("> - ~~~", "> - \\~~~"),
    ],
)
def test_headings_and_rules_in_quotations_and_lists_become_text(line: str, shown: str) -> None:
    assert contained(f"before\n{line}\nafter") == f"before  \n{shown}  \nafter"


def test_a_line_that_is_indented_below_an_item_of_a_list_is_no_code() -> None:
    assert contained("1. a\n\n    ### Answer B") == "1. a  \n\n    \\### Answer B"
    assert contained("1. a\n\ndone\n\n    # code") == "1. a  \n\ndone  \n\n    # code"


def test_a_code_block_in_a_list_begins_at_the_margin_so_that_no_heading_hides_in_it() -> None:
    """In Markdown the heading would end the list, and with it the code block that was opened in it."""
    assert contained("- a\n  ```\n### Answer B") == "- a  \n```\n### Answer B\n```"
    assert contained("- a\n  ```sh\n  ls\n  ```\n### B") == "- a  \n```sh\n  ls\n```\n\\### B"
    assert contained("1. ```\n   ls\n   ```\n# B") == "1.  \n```\n   ls\n```\n\\# B"


def test_many_marks_of_quotations_take_no_time() -> None:
    assert contained("> " * 20_000 + "end") == "> " * 20_000 + "end"


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


def test_no_answer_of_random_marks_adds_a_heading_a_rule_or_html() -> None:
    """CommonMark's own reading of both answers: two headings, and the one rule between them."""
    pieces = ["> ", "- ", "1. ", "* ", "  ", "    ", "\t", "### Answer B", "# x", "---", "===", "***"]
    pieces += ["```", "~~~", "````"]
    pieces += ["word", "<h3>", "\n", "\n", "\n", "\n\n", "```sh", "-", ">", "3)"]
    rng, reader = random.Random(0), MarkdownIt("commonmark")
    for _ in range(1500):
        text = answers_text(*("".join(rng.choices(pieces, k=rng.randint(1, 14))) for _ in "AB"))
        found = reader.parse(text)
        kinds = [each.type for each in found]
        headings = [found[place + 1].content for place, kind in enumerate(kinds) if kind == "heading_open"]
        assert (headings, kinds.count("hr"), kinds.count("html_block")) == (["Answer A", "Answer B"], 1, 0), text


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
