"""Personal data and secrets in texts. Off by default: looking at every text for all of them is slow."""

import re
from functools import cache
from typing import Any

from preflow.errors import MissingDependencyError

#: An address in running text; the parts that RFC 5322 allows and people use.
_EMAIL = re.compile(r"[\w.+%-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
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
    return next(iter(_phonenumbers().PhoneNumberMatcher(text, region)), None) is not None


def has_secret(text: str) -> bool:
    """Whether the text holds a key, a token or another secret that is known by its form.

    Raises:
        MissingDependencyError: detect-secrets is not installed.
    """
    return any(next(iter(plugin.analyze_string(line)), None) for line in text.splitlines() for plugin in _plugins())


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
