"""Texts without logins, tokens and keys: what is shown, logged or stored goes through here.

Logins in addresses are recognized by their form, wherever they come from. Other secrets are those of the environment:
the values of variables named as secrets (``HF_TOKEN``, ``AWS_SECRET_ACCESS_KEY``, ``PREFECT_API_AUTH_STRING``).
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote, urlsplit, urlunsplit

#: What a secret is replaced by.
HIDDEN = "***"
#: Variables whose values are secrets.
_SECRET_NAMES = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY|SECRET_KEY|AUTH_STRING)$")
#: Shorter values are not searched for: they would be found in words.
_SHORTEST = 6
_LOGIN = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/?#'\"<>]+@", re.IGNORECASE)
_HEADER = re.compile(r"\b(basic|bearer)(\s+)[A-Za-z0-9+/=_~.-]{6,}", re.IGNORECASE)


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
    return _SECRET_NAMES.search(variable) is not None


def _secrets() -> list[str]:
    """Secrets of the environment as a text may contain them, longest first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if is_secret(name):
            found |= {value, value.partition(":")[2]}  # an auth string is a name and a password
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
