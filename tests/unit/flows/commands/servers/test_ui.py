"""``preflow ui``: its servers start under the locks that guard their databases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.commands.servers import ui


def test_prefects_server_starts_while_no_other_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it answers, another may start."""
    lock = FileLock(tmp_path / "server.lock", is_singleton=False)
    held: list[bool] = []

    @contextmanager
    def server(*_: object) -> Iterator[str]:
        with pytest.raises(Timeout):
            lock.acquire(timeout=0)
        held.append(True)
        yield "http://127.0.0.1:1"

    monkeypatch.setattr(ui, "_server", server)
    with (
        temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: tmp_path}),
        ui._prefect(ui.Which.prefect, 1) as url,
        lock.acquire(timeout=0),
    ):
        assert (url, held) == ("http://127.0.0.1:1", [True])
