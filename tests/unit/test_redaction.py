"""No secret in a text that is shown: logins in addresses by their form, others by the variables that hold them."""

import re

import pytest

from preflow.errors import ConfigError
from preflow.redaction import (
    as_written,
    code_span,
    escaped,
    quoted,
    redact,
    redacted_errors,
    without_login,
    without_secrets,
)


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_Pl4nted")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:Pl4nted/Auth")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:Pl4ntedProxy@proxy.example:3128")
    monkeypatch.setenv("JUDGE_API_KEY", "sk-Pl4nted-judge")
    monkeypatch.setenv("SHORT_TOKEN", "true")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "API request to http://alice:S3cret@127.0.0.1:5000/api failed",
            "API request to http://127.0.0.1:5000/api failed",
        ),
        ("postgresql+asyncpg://prefect:p%40ss@db/prefect", "postgresql+asyncpg://db/prefect"),
        ("https://t0ken@host/x and s3://k:s@b", "https://host/x and s3://b"),
        ("token hf_Pl4nted refused", "token *** refused"),
        ("admin:Pl4nted/Auth", "***"),
        ("auth=Pl4nted%2FAuth", "auth=***"),
        ("the proxy's Pl4ntedProxy", "the proxy's ***"),
        ("{'Authorization': 'Basic YWxpY2U6UzNjcmV0'}", "{'Authorization': 'Basic ***'}"),
        ("key sk-Pl4nted-judge.", "key ***."),
        ("write to a@b.example, it is true", "write to a@b.example, it is true"),
        ("mail://x?to=a@b and http://host/@scope", "mail://x?to=a@b and http://host/@scope"),
        ("a basic idea", "a basic idea"),
    ],
)
def test_a_text_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_an_address_keeps_all_but_its_login() -> None:
    assert without_login("https://a:b@host:5000/path?q=1") == "https://host:5000/path?q=1"
    assert without_login("/folder/a@b") == "/folder/a@b"


def test_a_preflow_error_says_no_secret() -> None:
    error = ConfigError("cannot read s3://key:secret@bucket with hf_Pl4nted")
    assert str(error).startswith("cannot read s3://bucket with ***")
    assert error.message == "cannot read s3://bucket with ***"


def test_errors_of_libraries_leave_without_secrets_and_so_do_their_causes() -> None:
    inner, outer = OSError("inner hf_Pl4nted"), ValueError("outer hf_Pl4nted")
    with pytest.raises(ValueError, match=r"^outer \*\*\*$"), redacted_errors():
        raise outer from inner
    assert str(inner) == "inner ***"


def test_an_error_that_keeps_its_text_twice_is_redacted_twice() -> None:
    class TwiceError(Exception):
        def __init__(self, message: str) -> None:
            self.message = message
            super().__init__(message)

    error = TwiceError("http://a:b@host")
    redact(error)
    assert (error.message, str(error)) == ("http://host", "http://host")


def test_errors_in_a_circle_are_redacted_once() -> None:
    first, second = ValueError("hf_Pl4nted"), ValueError("hf_Pl4nted")
    first.__cause__, second.__cause__ = second, first
    redact(first)
    assert (str(first), str(second)) == ("***", "***")


def test_what_a_message_quotes_is_cut_on_one_line_and_without_control_characters() -> None:
    assert quoted("a" * 41) == "a" * 40 + "…"
    assert quoted("a\x1b[31m\n\tb\udcff\u202e") == "a\\x1b[31m\\n\\tb\\udcff\\u202e"
    assert quoted(["x"] * 1000).startswith("['x', 'x'")
    assert as_written("a") == "'a'"
    assert len(as_written(dict.fromkeys(range(100), "b" * 1000))) <= 121
    assert as_written(1 << 20_000) == "a int of too many digits"
    nested: list[object] = []
    nested.append(nested)
    assert len(as_written(nested)) < 100


def test_text_that_holds_nothing_to_obey_is_shown_as_it_is() -> None:
    for text in (
        "plain",
        "two\nlines\tand tabs",
        "caf\u00e9 \u4e2d\u6587 \u0645\u0631 \U0001f44d\u200d",
    ):
        assert escaped(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://evil/t.png)",
        "<img src=x>",
        "# head",
        "a | b",
        "`code`",
        "``",
        "a `` b",
        "\n\n- item",
        "[c](x:y)",
    ],
)
def test_markdown_shows_a_quoted_text_and_makes_nothing_of_it(text: str) -> None:
    """A code span ends at as many backticks as it began with (CommonMark, section 6.1)."""
    span = code_span(text)
    fence = span[: len(span) - len(span.lstrip("`"))]
    inside = span[len(fence) : -len(fence)]
    assert span.endswith(fence)
    assert fence not in re.findall("`+", inside)
    assert inside.strip() == " ".join(text.split())
    assert "\n" not in span


def test_a_long_text_without_an_address_is_looked_through_at_once() -> None:
    text = "a" * 2_000_000
    assert without_secrets(text) == text
    assert without_secrets("see http://me:hunter2@host/x") == "see http://host/x"
