"""Automations are installed once, however often one asks; they cover the runs of our flows in the states they name."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.events.schemas.automations import Automation

from flows.operation.automations import ALERTS, ZOMBIE_SECONDS, blocks_of, failures, install, installed, names, wanted
from preflow.environment import DEFAULTS
from preflow.errors import ConfigError

BLOCK = UUID(int=1)


class Server:
    """What a Prefect server keeps of automations."""

    def __init__(self) -> None:
        self.kept: dict[UUID, Any] = {}
        self.events: list[dict[str, Any]] = []

    def read_automations_by_name(self, name: str) -> list[Automation]:
        return [
            Automation(id=found, **automation.model_dump())
            for found, automation in self.kept.items()
            if automation.name == name
        ]

    def create_automation(self, automation: Any) -> UUID:
        self.kept[found := uuid4()] = automation
        return found

    def update_automation(self, automation_id: UUID, automation: Any) -> None:
        assert automation_id in self.kept
        sent = automation.model_dump(mode="json", exclude_unset=True)
        assert sent["trigger"]["type"] == "event", "what Prefect's client leaves out the server does not know"
        self.kept[automation_id] = automation

    def request(self, method: str, path: str, json: Any) -> Any:
        assert (method, path) == ("POST", "/events/filter")

        class Answer:
            raise_for_status = lambda self: self  # noqa: E731
            json = lambda _: {"events": self.events}  # noqa: E731

        return Answer()


@pytest.fixture
def server() -> Any:
    return Server()


def test_installing_again_changes_nothing(server: Any) -> None:
    assert install(server, [BLOCK]) == names()
    first = dict(server.kept)
    assert sorted(automation.name for automation in first.values()) == sorted(names())
    install(server, [BLOCK])
    assert server.kept == first


def test_another_block_takes_the_place_of_the_first_and_none_keeps_it(server: Any) -> None:
    install(server, [BLOCK])
    install(server, [UUID(int=2), UUID(int=3)])
    assert blocks_of(installed(server).values()) == [UUID(int=2), UUID(int=3)]
    install(server, [])
    assert blocks_of(installed(server).values()) == [UUID(int=2), UUID(int=3)]


def test_what_was_paused_stays_paused(server: Any) -> None:
    install(server, [BLOCK])
    late = next(found for found, automation in server.kept.items() if "late" in automation.name)
    server.kept[late] = server.kept[late].model_copy(update={"enabled": False})
    install(server, [BLOCK])
    assert [automation.name for automation in server.kept.values() if not automation.enabled] == [
        "preflow: notifies of late runs"
    ]


def test_without_a_block_nothing_is_installed(server: Any) -> None:
    with pytest.raises(ConfigError, match="--notify TYPE/NAME"):
        install(server, [])
    assert server.kept == {}


def test_messages_that_were_not_sent_are_found_with_their_reason(server: Any) -> None:
    install(server, [BLOCK])
    ours, other = next(iter(server.kept)), uuid4()
    server.events = [
        {"resource": {"prefect.resource.id": f"prefect.automation.{ours}"}, "payload": {"reason": "refused"}},
        {"resource": {"prefect.resource.id": f"prefect.automation.{ours}"}, "payload": {"reason": "refused"}},
        {"resource": {"prefect.resource.id": f"prefect.automation.{other}"}, "payload": {"reason": "another's"}},
    ]
    assert failures(server) == ["refused"]


def test_runs_say_that_they_live_several_times_before_they_are_taken_for_dead() -> None:
    assert int(DEFAULTS["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) * 3 <= ZOMBIE_SECONDS


def event(name: str, flow: str) -> Any:
    from prefect.server.events.schemas.events import ReceivedEvent

    of_flow = {
        "prefect.resource.id": f"prefect.flow.{uuid4()}",
        "prefect.resource.role": "flow",
        "prefect.resource.name": flow,
    }
    found = {
        "occurred": datetime.now(UTC),
        "event": f"prefect.flow-run.{name}",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"},
        "related": [of_flow],
        "id": uuid4(),
    }
    return ReceivedEvent.model_validate(found)


@pytest.mark.slow
def test_the_server_sees_the_runs_of_our_flows_in_the_states_that_are_named() -> None:
    """By the server's own reading of the automations."""
    from prefect.server.events.schemas.automations import Automation as Read

    notified: dict[str, set[str]] = {}
    states = ["Failed", "Crashed", "TimedOut", "Late", "Completed", "Suspended", "Running", "Cancelled", "heartbeat"]
    for automation in wanted([BLOCK]):
        trigger: Any = Read(**automation.model_dump(mode="json")).trigger
        assert not trigger.covers(event("Failed", "another project's"))
        for state in states:
            if trigger.covers(event(state, "two-stage")):
                notified.setdefault(state, set()).add(automation.name)
    closing = "preflow: closes runs whose process is gone"
    assert {state: found - {closing} for state, found in notified.items()} == {
        **{state: {"preflow: notifies of failed and crashed runs"} for state in ("Failed", "Crashed", "TimedOut")},
        "Late": {"preflow: notifies of late runs"},
        "Completed": {"preflow: notifies of finished runs"},
        "Suspended": {"preflow: notifies of decisions to be made"},
        **{state: set() for state in ("Running", "Cancelled", "heartbeat")},
    }
    assert all(closing in found for found in notified.values()), "whatever a run does shows that it lives"
    assert len(ALERTS) == 4
