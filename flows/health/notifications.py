"""Whether notifications of runs are sent: automations of the Prefect server, and messages that were not taken."""

from prefect.client.orchestration import SyncPrefectClient

from flows.health.check import Check, ok, warning
from flows.operation.automations import failures, installed, names

_SETUP = "preflow operate setup --notify TYPE/NAME"


def check_automations(client: SyncPrefectClient) -> Check:
    """Whether all automations are installed and on, and their messages arrive.

    Args:
        client: Of the server.
    """
    name = "automations"
    there = installed(client)
    missing = [each for each in names() if each not in there]
    if missing:
        found = "none is installed" if not there else f"{len(missing)} are missing: {', '.join(missing)}"
        return warning(name, f"{found}: no notifications of failed, late or dead runs", _SETUP)
    if paused := [each for each in names() if not there[each].enabled]:
        return warning(name, f"paused: {', '.join(paused)}", "switch them on in Prefect's page (Automations)")
    if failed := failures(client):
        return warning(name, f"a message was not sent: {failed[0]}", _SETUP)
    return ok(name, f"{len(there)} are installed")
