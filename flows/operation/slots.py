"""Slots: global concurrency limits of the Prefect server, which keep runs from using one GPU at once.

A run holds its slot by a lease of a minute that it renews. A run that is killed renews nothing, and its slot is free
when the lease has ended. Prefect's own context manager gives a lease up after three attempts within seconds; this one
outlasts a restart of the server, and takes its slot again where the lease ended meanwhile.
"""

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import ObjectNotFound

from preflow.errors import ConfigError

#: The shortest lease that Prefect gives, how often it is renewed, and how often a busy slot is asked for.
LEASE_SECONDS, _RENEW_SECONDS, _ASK_SECONDS = 60.0, 15.0, 2.0

#: Logs a message for the user; ``warning`` marks it as one.
Log = Callable[..., None]


def make_slot(name: str, limit: int) -> None:
    """Make a slot that so many runs may hold at once, or change how many.

    Args:
        name: The limit's name.
        limit: Runs at once.
    """
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, limit)


def require_slot(name: str | None) -> None:
    """Refuse a slot that is not there, before anything starts.

    Raises:
        ConfigError: There is no such slot.
    """
    if name is None:
        return
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound as error:
            raise ConfigError(f"slot: there is no slot {name}: make it with preflow operate slot {name}") from error


@contextmanager
def hold_slot(name: str | None, flow_run_id: str, log: Log) -> Iterator[None]:
    """Hold a slot while the block runs, after waiting for it; do nothing where none is asked for.

    Args:
        name: The slot.
        flow_run_id: Prefect's id of the run that holds it.
        log: Logs a message for the user.

    Raises:
        ConfigError: There is no such slot.
    """
    if name is None:
        yield
        return
    require_slot(name)
    lease = _Lease(name, UUID(flow_run_id), log)
    lease.wait_for()
    here = contextvars.copy_context()  # what it logs is this run's
    keeper = threading.Thread(target=here.run, args=(lease.keep,), name=f"slot {name}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        lease.ended.set()
        keeper.join()
        lease.give_back()


class _Lease:
    """The lease of one slot."""

    def __init__(self, name: str, flow_run_id: UUID, log: Log) -> None:
        self.name, self.log = name, log
        self.ended = threading.Event()
        self._holder = ConcurrencyLeaseHolder(type="flow_run", id=flow_run_id)
        self._id: UUID | None = None

    def wait_for(self) -> None:
        """Wait until the slot is free, and take it."""
        with get_client(sync_client=True) as client:
            said = False
            while not self._take(client):
                if not said:
                    self.log(f"waiting for the slot {self.name}: another run holds it")
                said = True
                self.ended.wait(_ASK_SECONDS)
        self.log(f"the slot {self.name} is this run's")

    def keep(self) -> None:
        """Renew the lease until the block has ended; take the slot again where the lease ended meanwhile."""
        with get_client(sync_client=True) as client:
            while not self.ended.wait(_RENEW_SECONDS):
                # An answer that does not come is no loss yet: the lease is asked for again.
                with suppress(httpx.TransportError, httpx.HTTPStatusError):
                    try:
                        self._renew(client)
                    except ConfigError as error:  # it was removed meanwhile: nothing is left to be held
                        self.log(error.message, warning=True)
                        return

    def give_back(self) -> None:
        """Free the slot; where the server is away its lease ends by itself."""
        if self._id is not None:
            with suppress(httpx.TransportError, httpx.HTTPStatusError), get_client(sync_client=True) as client:
                client.release_concurrency_slots_with_lease(self._id)

    def _renew(self, client: SyncPrefectClient) -> None:
        if self._id is None:
            if self._take(client):
                self.log(f"the slot {self.name} is this run's again")
            return
        try:
            client.renew_concurrency_lease(self._id, LEASE_SECONDS)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.GONE:
                raise
            self._id = None
            self.log(f"the lease of the slot {self.name} ended while the server was away; asking again", warning=True)
            self._renew(client)

    def _take(self, client: SyncPrefectClient) -> bool:
        try:
            answer = client.increment_concurrency_slots_with_lease(
                [self.name], 1, "concurrency", LEASE_SECONDS, self._holder
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.LOCKED:
                return False
            raise
        found = answer.json()
        if not found["limits"]:
            raise ConfigError(
                f"slot: there is no slot {self.name} any more: make it with preflow operate slot {self.name}"
            )
        self._id = UUID(found["lease_id"])
        return True
