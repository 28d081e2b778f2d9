"""One of two first runs on a fresh home folder, which wait for each other where only a lock keeps them apart.

``python -m tests.integration.first_run RECIPE`` is the fake pipeline; ``... store`` makes MLflow's database alone.
``MEETING`` is a folder: each of the two leaves a file there, and goes on when it sees the other's, or is out of
patience, as it must be where a lock lets only one of them come so far.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

LONG, SHORT = 120.0, 10.0


def meet(place: str, patience: float) -> None:
    """Wait until both are here."""
    folder = Path(os.environ["MEETING"]) / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + patience
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)


def create_app() -> Any:
    """Prefect's server, which meets the other one directly before it makes its tables."""
    from prefect.server.api import server
    from prefect.server.database.interface import PrefectDBInterface

    create = PrefectDBInterface.create_db

    async def create_db(interface: PrefectDBInterface) -> None:
        await asyncio.to_thread(meet, "prefect", SHORT)
        await create(interface)

    setattr(PrefectDBInterface, "create_db", create_db)  # noqa: B010 - a method, to which types allow no assignment
    return server.create_app()


def make_store() -> None:
    """MLflow's database, met before the lock that guards it."""
    from tasks.tracking import client

    create = client._create_database

    def create_database(uri: str) -> None:
        meet("mlflow", LONG)
        create(uri)

    vars(client)["_create_database"] = create_database
    client.prepare_store()


def run() -> None:
    """The fake pipeline with such a server."""
    from flows.commands.run import main
    from flows.running import embedded_server
    from tests.integration.fakes import install

    vars(embedded_server)["_APPLICATION"] = "tests.integration.first_run:create_app"
    install()
    import typer

    meet("start", LONG)
    typer.run(main)


if __name__ == "__main__":
    make_store() if sys.argv[1] == "store" else run()
