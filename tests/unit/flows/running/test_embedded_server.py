"""Prefect's embedded server: started only where Prefect would start one."""

import pytest
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings

from flows.running.embedded_server import own_server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("allowed", "address", "started"),
    [(True, None, 1), (False, None, 0), (True, "http://127.0.0.1:1/api", 0)],
    ids=["embedded", "forbidden", "another server"],
)
def test_a_server_is_started_where_none_is_named_and_prefect_may(
    allowed: bool, address: str | None, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []
    monkeypatch.setattr(SubprocessASGIServer, "start", lambda _server: starts.append(1))
    for name in ("PREFLOW_OWNER_HOST", "PREFLOW_OWNER_PID", "PREFLOW_OWNER_STARTED"):
        monkeypatch.setenv(name, "")  # put back at the end
    with temporary_settings({PREFECT_API_URL: address, PREFECT_SERVER_EPHEMERAL_ENABLED: allowed}):
        own_server()
    assert len(starts) == started
