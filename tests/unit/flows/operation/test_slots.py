"""A slot is waited for, renewed, taken again after an outage, and given back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.exceptions import ObjectNotFound

from flows.operation import slots
from flows.operation.slots import hold_slot, require_slot
from preflow.errors import ConfigError

RUN = str(uuid4())


def refused(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1")
    return httpx.HTTPStatusError(str(code), request=request, response=httpx.Response(code, request=request))


class Server:
    """A limit of one slot; each answer to a renewal is taken from a list."""

    def __init__(self) -> None:
        self.there, self.busy = True, 0
        self.renewals: list[Exception | None] = []
        self.done: list[str] = []

    def read_global_concurrency_limit_by_name(self, name: str) -> None:
        if not self.there:
            raise ObjectNotFound(http_exc=Exception(name))

    def increment_concurrency_slots_with_lease(
        self, names: Any, count: int, mode: str, lease: float, holder: Any
    ) -> Any:
        assert (names, count, mode, lease, str(holder.id)) == (["gpu"], 1, "concurrency", 60.0, RUN)
        if self.busy:
            self.busy -= 1
            self.done.append("busy")
            raise refused(423)
        self.done.append("took")
        limits = [{"name": "gpu"}] if self.there else []
        return httpx.Response(200, json={"lease_id": str(uuid4()), "limits": limits})

    def renew_concurrency_lease(self, lease: Any, seconds: float) -> None:
        answer = self.renewals.pop(0) if self.renewals else None
        self.done.append("renewed" if answer is None else "not renewed")
        if answer is not None:
            raise answer

    def release_concurrency_slots_with_lease(self, lease: Any) -> None:
        self.done.append("gave back")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()

    @contextmanager
    def client(**_: Any) -> Iterator[Server]:
        yield found

    monkeypatch.setattr(slots, "get_client", client)
    monkeypatch.setattr(slots, "_ASK_SECONDS", 0.01)
    monkeypatch.setattr(slots, "_RENEW_SECONDS", 0.01)
    return found


def hold(server: Server, until: int) -> list[str]:
    """Hold the slot until so much was done; what was said."""
    said: list[str] = []

    def log(message: str, *, warning: bool = False) -> None:
        said.append(message)

    with hold_slot("gpu", RUN, log):
        while len(server.done) < until:
            pass
    return said


def test_without_a_slot_no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(slots, "get_client")
    with hold_slot(None, RUN, print):
        pass
    require_slot(None)


def test_a_busy_slot_is_waited_for_and_said_once(server: Server) -> None:
    server.busy = 3
    said = hold(server, 4)
    assert server.done[:4] == ["busy", "busy", "busy", "took"]
    assert server.done[-1] == "gave back"
    assert said == ["waiting for the slot gpu: another run holds it", "the slot gpu is this run's"]


def test_the_slot_is_given_back_where_the_run_fails(server: Server) -> None:
    with pytest.raises(KeyError), hold_slot("gpu", RUN, lambda *_: None):
        raise KeyError
    assert server.done[-1] == "gave back"


def test_an_outage_loses_nothing_where_the_lease_is_still_there(server: Server) -> None:
    server.renewals = [httpx.ConnectError("away"), refused(503), None]
    said = hold(server, 4)
    assert server.done[:4] == ["took", "not renewed", "not renewed", "renewed"]
    assert said == ["the slot gpu is this run's"]


def test_a_lease_that_ended_in_an_outage_is_taken_again(server: Server) -> None:
    server.renewals = [refused(410)]
    server.busy = 0
    said = hold(server, 4)
    assert server.done[:4] == ["took", "not renewed", "took", "renewed"]
    assert said[1:] == [
        "the lease of the slot gpu ended while the server was away; asking again",
        "the slot gpu is this run's again",
    ]


def test_a_slot_that_another_run_got_meanwhile_is_waited_for_while_training_goes_on(server: Server) -> None:
    server.renewals = [refused(410)]

    def take(*arguments: Any) -> Any:
        if server.done.count("not renewed") == 1 and server.done.count("busy") < 2:
            server.busy = 1
        return original(*arguments)

    original = server.increment_concurrency_slots_with_lease
    server.increment_concurrency_slots_with_lease = take  # type: ignore[method-assign, assignment]
    hold(server, 5)
    assert server.done[:5] == ["took", "not renewed", "busy", "busy", "took"]


def test_a_slot_that_is_not_there_is_refused_with_its_remedy(server: Server) -> None:
    server.there = False
    with pytest.raises(ConfigError, match="preflow operate slot gpu"):
        require_slot("gpu")
    with pytest.raises(ConfigError, match="preflow operate slot gpu"), hold_slot("gpu", RUN, lambda *_: None):
        pass


def test_a_slot_that_is_removed_meanwhile_is_said_and_the_run_goes_on(server: Server) -> None:
    server.renewals = [refused(410)]
    said: list[str] = []
    with hold_slot("gpu", RUN, lambda message, **_: said.append(message)):
        server.there = False
        while len(said) < 3:
            pass
    assert "no slot gpu any more" in said[2]
