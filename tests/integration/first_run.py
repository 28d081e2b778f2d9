"""One of two first runs on a fresh home folder, which wait for each other before they go on.

``python -m tests.integration.first_run RECIPE`` is the fake pipeline; ``... store`` makes MLflow's database alone.
``MEETING`` is a folder: each of the two leaves a file there, and goes on when it sees the other's.
"""

import os
import sys
import time
from pathlib import Path

PATIENCE = 120.0


def meet(place: str) -> None:
    """Wait until both are here."""
    folder = Path(os.environ["MEETING"]) / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + PATIENCE
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)


def make_store() -> None:
    """MLflow's database, met before the lock that guards it."""
    from tasks.tracking import client

    create = client._create_database

    def create_database(uri: str) -> None:
        meet("mlflow")
        create(uri)

    vars(client)["_create_database"] = create_database
    client.prepare_store()


def run() -> None:
    """The fake pipeline, begun by both at once."""
    from flows.commands.run import main
    from tests.integration.fakes import install

    install()
    import typer

    meet("start")
    typer.run(main)


if __name__ == "__main__":
    make_store() if sys.argv[1] == "store" else run()
