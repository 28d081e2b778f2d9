"""The fake pipeline, which prints at its end what it has loaded: ``python -m ... RECIPE``."""

import atexit
import sys

from tests.integration.fakes import install

if __name__ == "__main__":
    atexit.register(lambda: print("loaded", *sys.modules))
    install()
    import typer

    from flows.commands.run import main

    typer.run(main)
