"""``python -m flows.export``: the same as ``preflow export``."""

from flows.commands.export import main

__all__ = ["main"]

if __name__ == "__main__":
    import typer

    typer.run(main)
