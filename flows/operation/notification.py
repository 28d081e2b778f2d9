"""Where messages to people go: a block of the Prefect server, named ``TYPE/NAME`` (``slack-webhook/team``).

A block is made in Prefect's page, or from an address: of a webhook, of Slack's, or of a mail server
(``mailtos://USER:PASSWORD@mail.example?from=preflow@example.org&to=team@example.org``).
"""

from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.abstract import NotificationError as NotTakenError
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from preflow.errors import ConfigError, NotificationError
from preflow.redaction import without_secrets

_SLACK = ("hooks.slack.com", "hooks.slack-gov.com")
_MAIL = ("mailto", "mailtos")
_REMEDY = "give another block, or make this one again: preflow operate address NAME"


def load_block(name: str) -> NotificationBlock:
    """The block of a name.

    Args:
        name: Its type and its own name, with a slash between.

    Raises:
        ConfigError: There is none, or it cannot send messages.
    """
    if name.count("/") != 1:
        raise ConfigError(
            f"--notify {name}: expected TYPE/NAME of a block of the Prefect server, as slack-webhook/team"
        )
    try:
        block: Any = Block.load(name)
    except (ValueError, RuntimeError, TypeError) as error:  # unknown, of an unknown type, or with an address unusable
        reason = " ".join(without_secrets(str(error)).split())[:200]
        raise ConfigError(f"--notify {name}: the Prefect server has no such block ({reason}): {_REMEDY}") from error
    if not isinstance(block, NotificationBlock):
        raise ConfigError(f"--notify {name}: this block sends no messages. Take one of a webhook, Slack or e-mail")
    return block


def load_block_by_id(client: SyncPrefectClient, found: UUID) -> NotificationBlock:
    """The block of an id.

    Raises:
        ConfigError: As ``load_block``.
    """
    try:
        document = client.read_block_document(found)
    except ObjectNotFound as error:
        raise ConfigError(f"the block of the installed automations is gone: {_REMEDY}, with --notify") from error
    slug = document.block_type.slug if document.block_type else "unknown"
    return load_block(f"{slug}/{document.name}")


def send(block: NotificationBlock, subject: str, text: str) -> None:
    """Send a message, and know that it was taken.

    Raises:
        NotificationError: It was not.
    """
    try:
        with block.raise_on_failure():  # without it a wrong address is a line in a log
            block.notify(subject=subject, body=text)  # type: ignore[unused-coroutine]  # outside an event loop
    except (NotTakenError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = getattr(error, "log", "") or str(error) or type(error).__name__
        said = " ".join(_without_address(block, str(reason)).split())[-300:]
        raise NotificationError(
            f"the message by the block {block_name(block)} was not taken: {said}. Then {_REMEDY}"
        ) from None


def block_name(block: Block) -> str:
    """Type and name of a saved block."""
    return f"{block.get_block_type_slug()}/{block._block_document_name}"


def _without_address(block: NotificationBlock, text: str) -> str:
    """A text without the block's address, which lets anyone who has it send messages."""
    url: Any = getattr(block, "url", None)
    secret = url.get_secret_value() if hasattr(url, "get_secret_value") else str(url or "")
    path = urlsplit(secret).path
    for part in (secret, path):
        if len(part) > 1:
            text = text.replace(part, "***")
    return without_secrets(text)


def make_block(name: str, address: str) -> str:
    """Make or replace a block from an address.

    Args:
        name: The block's own name.
        address: Of a webhook, or in apprise's form (``mailtos://``, ``slack://``, ...).

    Returns:
        Its type and name.

    Raises:
        ConfigError: The address cannot be read.
    """
    from apprise import Apprise

    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and parts.hostname not in _SLACK:
        message = {"subject": "{{subject}}", "text": "{{body}}"}
        block: Any = CustomWebhookNotificationBlock.model_validate({"name": name, "url": address, "json_data": message})
    elif Apprise.instantiate(address, suppress_exceptions=True):
        # Prefect has no type of block for mail servers; this one takes whatever address apprise can read.
        block = SlackWebhook(url=SecretStr(address))
    else:
        raise ConfigError(
            f"the address ({parts.scheme or 'none'}://...) is none that apprise can read: see preflow operate"
        )
    try:
        block.save(name, overwrite=True)
    except ValueError as error:
        raise ConfigError(f"{name} is no name for a block: expected small letters, digits and dashes") from error
    return block_name(block)
