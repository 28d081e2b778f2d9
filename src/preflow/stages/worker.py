"""One stage in a distributed run: what ``accelerate launch -m preflow.stages.worker`` runs in every rank.

Rank 0 writes the stage's files, and reports to the process that launched it, one JSON object a line. The table of
stages names the function of ``preflow.stages.ranks`` that is run.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preflow.observer import Observer
from preflow.specs import STAGES, rank_function

#: Environment variable: 1 where standard input stays open for as long as the launching process lives.
ENDS_WITH_INPUT = "PREFLOW_ENDS_WITH_INPUT"


class Lines:
    """An observer that writes what it receives to standard output."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Write progress."""
        self._write(kind="progress", done=done, total=total, what=what)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write metrics."""
        self._write(kind="metrics", values=dict(values), step=step)

    def note(self, message: str) -> None:
        """Write a note."""
        self._write(kind="note", message=message)

    def _write(self, **values: Any) -> None:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()


def relay(line: str, observer: Observer) -> bool:
    """Pass a line of ``Lines`` on to an observer; False where the line is something else."""
    if not line.startswith('{"kind": '):
        return False
    fields = json.loads(line)
    kind = fields.pop("kind")
    getattr(observer, kind)(**fields)
    return True


def main(stage: str, spec_file: str, out: str) -> None:
    """Run a stage's part in this process.

    Args:
        stage: ``sft``, ``dpo``, or ``reference``, whose ranks fill the store and write no artifact.
        spec_file: Its specification as JSON.
        out: The stage's partial folder, the same for all ranks.
    """
    if os.environ.get(ENDS_WITH_INPUT) == "1":
        threading.Thread(target=_end_with_input, daemon=True).start()
    text = Path(spec_file).read_text(encoding="utf-8")
    run = rank_function(stage)
    run(STAGES[stage].spec.model_validate_json(text), Path(out), Lines())


def _end_with_input() -> None:
    """End this process when its input ends: the launching process is gone, and nothing else would end this one."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
