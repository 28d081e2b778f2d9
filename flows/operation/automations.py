"""Automations of the Prefect server that notify people: of runs that failed, are late, ended, or ask.

Each has a name of its own and is found again by it, so that they are installed as often as wanted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from preflow.errors import ConfigError

#: Flows whose runs are looked at; other projects may use the same server.
FLOWS = ["two-stage", "promote"]
_RUN = "prefect.flow-run."
_HEARTBEAT = _RUN + "heartbeat"
#: A run that sent no event for so long is closed. A server that is restarted receives none for two heartbeats (30 s
#: each) and the time that it is away, and must not close runs that live.
ZOMBIE_SECONDS = 180
_ZOMBIE = "preflow: closes runs whose process is gone"
_ASKED_DAYS = 7
_MOST = 50


@dataclass(frozen=True, slots=True)
class Alert:
    """What people are notified of.

    Attributes:
        name: The automation's.
        states: Names of the states that a run takes then.
        subject: Of the message; ``flow_run`` and ``flow`` are Prefect's, by Jinja.
        text: Of the message.
    """

    name: str
    states: tuple[str, ...]
    subject: str
    text: str


_PAGE = "{{ flow_run|ui_url }}"
ALERTS = (
    Alert(
        "preflow: notifies of failed and crashed runs",
        ("Failed", "Crashed", "TimedOut"),
        "Preflow: {{ flow_run.name }} ended as {{ flow_run.state.name }}",
        "{{ flow_run.state.message }}\n" + _PAGE,
    ),
    Alert(
        "preflow: notifies of late runs",
        ("Late",),
        "Preflow: {{ flow_run.name }} is late",
        "No worker has taken it yet: start one (preflow worker), or see what it runs.\n" + _PAGE,
    ),
    Alert(
        "preflow: notifies of finished runs",
        ("Completed",),
        "Preflow: {{ flow_run.name }} is finished",
        "Its summary and its table of metrics: " + _PAGE,
    ),
    Alert(
        "preflow: notifies of decisions to be made",
        ("Suspended", "Paused"),
        "Preflow: {{ flow_run.name }} waits for a decision",
        "preflow decide {{ flow_run.id }} --approve (or --reject) --by NAME --reason TEXT\n" + _PAGE,
    ),
)


def names() -> list[str]:
    """Names of all automations that are installed."""
    return [_ZOMBIE, *(alert.name for alert in ALERTS)]


def _of_our_flows(**trigger: Any) -> EventTrigger:
    return EventTrigger(
        type="event",  # what is not given is left out where an automation is renewed
        match=ResourceSpecification({"prefect.resource.id": _RUN + "*"}),
        match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": FLOWS}),
        **trigger,
    )


def wanted(blocks: Sequence[UUID]) -> list[AutomationCore]:
    """All automations as they are to be.

    Args:
        blocks: Ids of the blocks by which messages go.
    """
    closing = AutomationCore(
        name=_ZOMBIE,
        description=f"A run that sent no event for {ZOMBIE_SECONDS} s is set to Crashed.",
        enabled=True,
        trigger=_of_our_flows(
            after={_HEARTBEAT},
            expect={_RUN + "*"},  # whatever a run does: one that was handed back or asks has no heartbeat
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=ZOMBIE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                type="change-flow-run-state",
                state=StateType.CRASHED,
                name="Crashed",
                force=False,  # a run that ended meanwhile stays as it ended
                message=f"This run sent no event for {ZOMBIE_SECONDS} s: its process or machine is gone.",
            )
        ],
    )
    notifying = [
        AutomationCore(
            name=alert.name,
            description="Made by preflow operate setup.",
            enabled=True,
            trigger=_of_our_flows(
                expect={_RUN + state for state in alert.states},
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                SendNotification(
                    type="send-notification", block_document_id=block, subject=alert.subject, body=alert.text
                )
                for block in blocks
            ],
        )
        for alert in ALERTS
    ]
    return [closing, *notifying]


def installed(client: SyncPrefectClient) -> dict[str, Automation]:
    """Our automations on a server, by name."""
    found = {}
    for name in names():
        for automation in client.read_automations_by_name(name):
            found[name] = automation
    return found


def blocks_of(automations: Iterable[Automation]) -> list[UUID]:
    """Ids of the blocks by which installed automations send messages, each once."""
    actions = [action for automation in automations for action in automation.actions]
    return list(dict.fromkeys(action.block_document_id for action in actions if isinstance(action, SendNotification)))


def install(client: SyncPrefectClient, blocks: Sequence[UUID]) -> list[str]:
    """Make what is missing and renew what is there; one that was paused stays paused.

    Args:
        client: Of the server.
        blocks: Ids of the blocks by which messages go; those that are installed where empty.

    Returns:
        The names.

    Raises:
        ConfigError: No block is given, and none is installed.
    """
    there = installed(client)
    blocks = list(blocks) or blocks_of(there.values())
    if not blocks:
        raise ConfigError("no block is installed yet: name one of the Prefect server with --notify TYPE/NAME")
    for automation in wanted(blocks):
        if (old := there.get(automation.name)) is None:
            client.create_automation(automation)
        else:
            client.update_automation(old.id, automation.model_copy(update={"enabled": old.enabled}))
    return [*names()]


def failures(client: SyncPrefectClient, days: int = _ASKED_DAYS) -> list[str]:
    """Why messages of our automations were not sent during the last days, newest first, each reason once.

    Args:
        client: Of the server.
        days: How many.
    """
    since = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    asked = {"event": {"name": ["prefect.automation.action.failed"]}, "occurred": {"since": since}}
    found = client.request("POST", "/events/filter", json={"filter": asked, "limit": _MOST}).raise_for_status().json()
    ours = {f"prefect.automation.{automation.id}" for automation in installed(client).values()}
    reasons = [
        str(event.get("payload", {}).get("reason", "no reason given"))
        for event in found["events"]
        if event["resource"].get("prefect.resource.id") in ours
    ]
    return list(dict.fromkeys(reasons))
