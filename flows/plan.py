"""``python -m flows.plan``: the same as ``preflow plan``."""

from flows.commands.plan import main

__all__ = ["main"]

if __name__ == "__main__":
    import typer

    typer.run(main)
