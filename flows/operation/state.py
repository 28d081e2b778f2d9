"""What ``preflow operate show`` lists: automations, messages that were not taken, slots, decisions to be made."""

from collections.abc import Iterator
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from flows.operation.automations import blocks_of, failures, installed, names
from flows.operation.decisions import waiting

_MOST_SLOTS = 200


def state_lines() -> Iterator[str]:
    """One line for each thing."""
    with get_client(sync_client=True) as client:
        there = installed(client)
        for name in names():
            automation = there.get(name)
            state = "missing" if automation is None else "on" if automation.enabled else "paused"
            yield f"{state:<8} {name}"
        for block in blocks_of(there.values()):
            yield f"by       {_block(client, block)}"
        for reason in failures(client):
            yield f"failed   a message was not sent: {reason}"
        for limit in client.read_global_concurrency_limits(limit=_MOST_SLOTS):
            if not limit.name.startswith("deployment:"):  # Prefect keeps those of deployments in the same list
                yield f"slot     {limit.name}: {limit.active_slots} of {limit.limit} held"
        for run in waiting(client):
            yield f"asks     {run.name} ({run.id})"


def _block(client: SyncPrefectClient, block: UUID) -> str:
    try:
        found = client.read_block_document(block, include_secrets=False)
    except ObjectNotFound:
        return f"a block that is gone ({block}): preflow operate setup --notify TYPE/NAME"
    slug = found.block_type.slug if found.block_type else "unknown"
    return f"{slug}/{found.name}"
