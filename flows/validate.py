"""``python -m flows.validate``: the same as ``preflow validate``."""

from flows.commands.validate import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
