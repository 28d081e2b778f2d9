"""Personal data and secrets in texts. Off by default: looking at every text for all of them is slow."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from preflow.errors import MissingDependencyError
from preflow.redaction import HIDDEN

#: An address in running text; the parts that RFC 5322 allows and people use. Tried where a run of them begins alone.
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]++@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
#: Characters of a piece of a long text, of what two of them share, and within which a blank is sought.
_PIECE, _OVERLAP, _NEAR = 3000, 1000, 200
#: detect-secrets' plugins that know a secret by its form; those that guess by entropy name too much in prose.
_PLUGINS = (
    "ArtifactoryDetector",
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "BasicAuthDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "JwtTokenDetector",
    "MailchimpDetector",
    "NpmDetector",
    "OpenAIDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SendGridDetector",
    "SlackDetector",
    "SquareOAuthDetector",
    "StripeDetector",
    "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)


def has_email(text: str) -> bool:
    """Whether the text holds an e-mail address."""
    return "@" in text and _EMAIL.search(text) is not None


def has_phone(text: str, region: str) -> bool:
    """Whether the text holds a phone number that is valid somewhere.

    Args:
        text: Any text.
        region: Country of numbers without a country code (ISO 3166, two letters).

    Raises:
        MissingDependencyError: phonenumbers is not installed.
    """
    if not any(char.isdigit() for char in text):
        return False
    matcher = _phonenumbers().PhoneNumberMatcher
    return any(next(iter(matcher(piece, region)), None) is not None for piece in pieces(text))


def has_secret(text: str) -> bool:
    """Whether the text holds a key, a token or another secret that is known by its form.

    Raises:
        MissingDependencyError: detect-secrets is not installed.
    """
    lines = (piece for line in text.splitlines() for piece in pieces(line))
    return any(next(iter(plugin.analyze_string(line)), None) for line in lines for plugin in _plugins())


def masked(text: str) -> str:
    """The text with every secret that is known by its form replaced by ``***``.

    Raises:
        MissingDependencyError: detect-secrets is not installed.
    """
    found = {
        secret.secret_value
        for line in text.splitlines()
        for piece in pieces(line)
        for plugin in _plugins()
        for secret in plugin.analyze_line(filename="text", line=piece, line_number=1)
    }
    for value in sorted((value for value in found if value), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def pieces(text: str) -> Iterator[str]:
    """A text in overlapping pieces, since libraries take time of more than the length of what they are given.

    A piece begins and ends at a blank where there is one near, so that a long number is not cut into a shorter one.
    """
    if len(text) <= _PIECE:
        yield text
        return
    start = 0
    while start < len(text):
        stop = start + _PIECE
        if stop < len(text):
            stop = max(text.rfind(" ", stop - _NEAR, stop), text.rfind("\n", stop - _NEAR, stop)) + 1 or stop
        yield text[start:stop]
        if stop >= len(text):
            return
        back = stop - _OVERLAP
        found = text.find(" ", back, back + _NEAR)
        start = back if found < 0 else found + 1


@cache
def _phonenumbers() -> Any:
    try:
        import phonenumbers
    except ImportError as error:
        raise _missing("phonenumbers") from error
    return phonenumbers


@cache
def _plugins() -> tuple[Any, ...]:
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    except ImportError as error:
        raise _missing("detect-secrets") from error
    found: Any = get_mapping_from_secret_type_to_class()
    classes = {plugin.__name__: plugin for plugin in found.values()}
    return tuple(classes[name]() for name in _PLUGINS)


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"validation.personal_data is true but {package} is missing: pip install 'preflow[personal]', or set it false"
    )
