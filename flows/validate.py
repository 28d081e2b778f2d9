"""``python -m flows.validate``: the same as ``preflow validate``."""

from flows.commands.validate import main

__all__ = ["main"]

if __name__ == "__main__":
    import typer

    typer.run(main)
