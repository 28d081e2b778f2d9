"""The fake pipeline, started by two processes at the very same moment: ``python -m ... ME OTHER FOLDER RECIPE``."""

import sys
import time
from pathlib import Path

from tests.integration.fakes import install

if __name__ == "__main__":
    install()
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - what takes time is loaded before both begin
    import prefect.server.api.server  # noqa: F401
    import typer

    import flows.two_stage  # noqa: F401
    from flows.commands.run import main

    me, other, folder = sys.argv.pop(1), sys.argv.pop(1), Path(sys.argv.pop(1))
    (folder / me).touch()
    while not (folder / other).exists():
        time.sleep(0.002)
    typer.run(main)
