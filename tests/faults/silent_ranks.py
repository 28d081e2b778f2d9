"""A rank that works for long without output: run in place of ``preflow.stages.worker``."""

import sys
import time
from pathlib import Path

from preflow.observer import Observer
from preflow.specs import SftSpec
from preflow.stages import sft, worker


def _work(spec: SftSpec, out: Path, observer: Observer) -> None:
    observer.note("working")
    time.sleep(600)


if __name__ == "__main__":
    sft.run_sft = _work
    worker.main(*sys.argv[1:])
