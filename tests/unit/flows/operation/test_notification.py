"""Messages arrive at webhooks and mail servers; one that is not taken is an error that does not show the address."""

from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from pydantic import SecretStr

from flows.operation.notification import load_block, make_block, send
from preflow.errors import ConfigError, NotificationError
from tests.fixtures.receivers import mail_server, webhook


def hook(url: str) -> CustomWebhookNotificationBlock:
    message = {"subject": "{{subject}}", "text": "{{body}}"}
    return CustomWebhookNotificationBlock.model_validate({"name": "hook", "url": url, "json_data": message})


def test_a_webhook_gets_subject_and_text() -> None:
    with webhook() as (url, arrived):
        send(hook(url), "a run failed", "out of memory")
    assert arrived == [{"subject": "a run failed", "text": "out of memory"}]


@pytest.mark.parametrize("code", [404, 500])
def test_a_webhook_that_refuses_is_an_error_without_its_address(code: int) -> None:
    with webhook(code) as (url, _), pytest.raises(NotificationError, match=str(code)) as raised:
        send(hook(url), "subject", "text")
    assert "hook-of-the-team" not in str(raised.value)


def test_a_webhook_that_is_not_there_is_an_error() -> None:
    with pytest.raises(NotificationError, match="was not taken"):
        send(hook("http://127.0.0.1:9/hook"), "subject", "text")


def test_an_address_of_slack_that_is_none_is_an_error() -> None:
    """Prefect's block itself reports it in a log alone."""
    with pytest.raises(NotificationError, match="was not taken"):
        send(SlackWebhook(url=SecretStr("https://example.com/services/T/B/C")), "subject", "text")


def mail(port: int) -> SlackWebhook:
    people = "from=preflow@example.org&to=team@example.org"
    return SlackWebhook(url=SecretStr(f"mailto://127.0.0.1:{port}?{people}&mode=insecure"))


@pytest.mark.slow
def test_a_mail_server_gets_a_message_for_those_who_are_named() -> None:
    with mail_server() as (port, arrived):
        send(mail(port), "a run failed", "out of memory")
    (message,) = arrived
    assert "To: team@example.org" in message
    assert "Subject: a run failed" in message
    assert "out of memory" in message


@pytest.mark.slow
def test_a_mail_server_that_refuses_is_an_error() -> None:
    with mail_server(refuses=True) as (port, arrived), pytest.raises(NotificationError):
        send(mail(port), "subject", "text")
    assert arrived == []


@pytest.mark.parametrize("name", ["team", "slack-webhook/team/more"])
def test_a_block_is_named_by_its_type_and_its_name(name: str) -> None:
    with pytest.raises(ConfigError, match="TYPE/NAME"):
        load_block(name)


@pytest.mark.parametrize(
    ("raised", "match"), [(ValueError("Unable to find block"), "no such"), (RuntimeError("bad"), "no such")]
)
def test_a_block_that_is_not_there_is_one_error(monkeypatch: pytest.MonkeyPatch, raised: Exception, match: str) -> None:
    def load(name: str) -> None:
        raise raised

    monkeypatch.setattr(Block, "load", load)
    with pytest.raises(ConfigError, match=match):
        load_block("slack-webhook/team")


def test_a_block_that_sends_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "load", lambda name: object())
    with pytest.raises(ConfigError, match="sends no messages"):
        load_block("secret/token")


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Blocks that were saved, in place of a server that keeps them."""
    found: list[Any] = []

    def save(block: Any, name: str, overwrite: bool) -> None:
        assert overwrite
        block._block_document_name = name
        found.append(block)

    monkeypatch.setattr(Block, "save", save)
    return found


@pytest.mark.parametrize(
    ("address", "made"),
    [
        ("https://example.com/hook?key=1", "custom-webhook/team"),
        ("https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX", "slack-webhook/team"),
        ("mailtos://ada:s3cret@mail.example?from=a@example.org&to=b@example.org", "slack-webhook/team"),
    ],
)
def test_an_address_becomes_a_block_of_its_kind(saved: list[Any], address: str, made: str) -> None:
    assert make_block("team", address) == made
    (block,) = saved
    url = getattr(block.url, "get_secret_value", lambda: block.url)()
    assert url == address


@pytest.mark.parametrize("address", ["hooks.slack.com", "nonsense://x", "mailto://"])
def test_an_address_that_nothing_can_read_is_refused(saved: list[Any], address: str) -> None:
    with pytest.raises(ConfigError, match="none that apprise can read"):
        make_block("team", address)
    assert saved == []
