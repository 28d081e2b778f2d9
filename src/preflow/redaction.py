"""Texts as they may be shown: without logins, tokens and keys, and without what a terminal or a page would obey.

Whatever a message, log, terminal, Markdown text or report quotes from outside goes through here.

Logins in addresses are recognized by their form, wherever they come from. Other secrets are those of the environment:
the values of variables named as secrets (``HF_TOKEN``, ``AWS_SECRET_ACCESS_KEY``, ``PREFECT_API_AUTH_STRING``).
"""

import os
import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote, urlsplit, urlunsplit

#: What a secret is replaced by.
HIDDEN = "***"
#: Variables whose values are secrets.
_SECRET_NAMES = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY|SECRET_KEY|AUTH_STRING)$")
#: Variables that a setting names as one with a secret, besides.
_DECLARED: set[str] = set()
#: Shorter values are not searched for: they would be found in words.
_SHORTEST = 6
_LOGIN = re.compile(r"(?<=[a-z0-9+.-])(://)[^\s/?#'\"<>]+@", re.IGNORECASE)
#: Characters of a quotation: enough to find what is meant, too few to carry a text into a report.
_QUOTED = 40
#: Control characters but tab and line ends, what turns the direction of writing, and lone surrogates.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BACKTICKS = re.compile("`+")
_HEADER = re.compile(r"\b(basic|bearer)(\s+)[A-Za-z0-9+/=_~.-]{6,}", re.IGNORECASE)


def escaped(text: str) -> str:
    r"""The text with what a terminal would obey, and what no encoding can write, as escapes (``\\x1b``)."""
    if text.isascii() and text.isprintable():
        return text
    return _OBEYED.sub(lambda found: repr(found[0])[1:-1], text)


def cut(text: str, most: int = 400) -> str:
    """A text that quotes what others wrote, cut to what a person reads."""
    return text if len(text) <= most else f"{text[:most]}…"


def as_written(value: object) -> str:
    """A value as Python writes it, cut: ``'a'`` is a text and ``1`` a number."""
    return quoted(_written(value, 2 * _QUOTED), 3 * _QUOTED)


def quoted(value: object, most: int = _QUOTED) -> str:
    """The beginning of a text, or of how Python writes another value, on one line, as messages name it.

    A value that is large is not written out to be cut.
    """
    text = value if isinstance(value, str) else _written(value, most)
    text = text if len(text) <= most else f"{text[:most]}…"
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def _written(value: object, most: int) -> str:
    """How Python writes a value, of which no more is written than is shown."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = most
    brief.maxlist = brief.maxtuple = brief.maxdict = brief.maxset = brief.maxfrozenset = 6
    brief.maxlevel = 3
    try:
        return brief.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a {type(value).__name__} of too many digits"


def code_span(text: str) -> str:
    """A text as Markdown shows it and nothing else: no link, picture, heading or HTML is made of it."""
    line = " ".join(escaped(text).split())
    fence = "`" * (max(map(len, _BACKTICKS.findall(line)), default=0) + 1)
    padded = f" {line} " if line.startswith("`") or line.endswith("`") else line
    return f"{fence}{padded or ' '}{fence}"


def without_login(address: str) -> str:
    """An address without the user name and password that may be in it: addresses are shown and stored."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else address


def without_secrets(text: str) -> str:
    """A text without logins in addresses, credentials of HTTP headers and secrets of the environment."""
    text = _LOGIN.sub(r"\1", text)
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    for secret in _secrets():
        if secret in text:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", HIDDEN, text)
    return text


def is_secret(variable: str) -> bool:
    """Whether a variable of the environment is named as a secret."""
    return variable in _DECLARED or _SECRET_NAMES.search(variable) is not None


def declare_secret(variable: str) -> None:
    """Treat a variable of the environment as a secret in this process, whatever its name."""
    _DECLARED.add(variable)


def _secrets() -> list[str]:
    """Secrets of the environment as a text may contain them, longest first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if is_secret(name):
            # a file's value may end in a new line, and an auth string is a name and a password
            found |= {value, value.strip(), value.partition(":")[2]}
        elif "://" in value and (login := _LOGIN.search(value)) is not None:
            found.add(login.group().rpartition("@")[0].partition("://")[2].partition(":")[2])
    spelled = {spelling for secret in found for spelling in (secret, quote(secret, safe=""), unquote(secret))}
    return sorted((secret for secret in spelled if len(secret) >= _SHORTEST), key=len, reverse=True)


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Errors of libraries leave the block without secrets: Prefect stores and shows their texts."""
    try:
        yield
    except BaseException as error:
        redact(error)
        raise


def redact(error: BaseException | None) -> None:
    """Remove secrets from an error's text, and from those of the errors that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.args = tuple(without_secrets(part) if isinstance(part, str) else part for part in error.args)
        if isinstance(message := vars(error).get("message"), str):  # MLflow's errors have their text twice
            vars(error)["message"] = without_secrets(message)
        redact(error.__context__ if error.__cause__ is not None else None)
        error = error.__cause__ or error.__context__
