"""A rank whose steps take long: run in place of ``preflow.stages.worker``."""

import sys
import time
from collections.abc import Mapping

from preflow.stages import worker


class SlowLines(worker.Lines):
    """Reports, and leaves the reader time before the next step."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write metrics, and wait."""
        super().metrics(values, step)
        time.sleep(0.5)


if __name__ == "__main__":
    worker.Lines = SlowLines  # type: ignore[misc]
    worker.main(*sys.argv[1:])
