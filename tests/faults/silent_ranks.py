"""A process of a launch that works for long without a word: run in place of ``preflow.stages.launched``."""

import sys
import time
from pathlib import Path

from preflow.observer import Observer
from preflow.stages import launched, sft
from preflow.stages.specs import SftSpec


def _work(spec: SftSpec, out: Path, observer: Observer) -> None:
    observer.note("working")
    time.sleep(600)


if __name__ == "__main__":
    sft.run_sft = _work
    launched.main(*sys.argv[1:])
