"""Automations that are missing, paused, or cannot send are a line with its remedy."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.health import notifications
from flows.health.check import Level
from flows.health.notifications import check_automations
from flows.operation.automations import names


@pytest.mark.parametrize(
    ("there", "paused", "failed", "level", "found"),
    [
        (names(), [], [], Level.ok, "5 are installed"),
        ([], [], [], Level.warning, "none is installed"),
        (names()[1:], [], [], Level.warning, f"1 are missing: {names()[0]}"),
        (names(), names()[:1], [], Level.warning, f"paused: {names()[0]}"),
        (names(), [], ["Notification failed"], Level.warning, "Notification failed"),
    ],
    ids=["fine", "none", "one is missing", "one is paused", "a message was not sent"],
)
def test_what_keeps_notifications_from_arriving_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, there: list[str], paused: list[str], failed: list[str], level: Level, found: str
) -> None:
    installed = {name: SimpleNamespace(enabled=name not in paused) for name in there}
    monkeypatch.setattr(notifications, "installed", lambda _: installed)
    monkeypatch.setattr(notifications, "failures", lambda _: failed)
    server: Any = None
    check = check_automations(server)
    assert check.level is level
    assert found in check.found
    assert bool(check.remedy) == (level is not Level.ok)
