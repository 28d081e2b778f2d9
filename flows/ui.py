"""``python -m flows.ui``: the same as ``preflow ui``."""

from flows.commands.servers.ui import main

__all__ = ["main"]

if __name__ == "__main__":
    import typer

    typer.run(main)
