"""One stage in several processes: what ``accelerate launch -m preflow.stages.launched`` runs in each of them.

Process 0 writes the stage's files, and tells the process that launched it what happens, one JSON object a line.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from preflow.observer import Observer, Silent
from preflow.stages import ranks
from preflow.stages.specs import DpoSpec, ReferenceSpec, SftSpec


class Lines:
    """An observer that writes what it hears to standard output."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Tell."""
        self._tell(kind="progress", done=done, total=total, what=what)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Tell."""
        self._tell(kind="metrics", values=dict(values), step=step)

    def note(self, message: str) -> None:
        """Tell."""
        self._tell(kind="note", message=message)

    def _tell(self, **values: Any) -> None:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()


def relay(line: str, observer: Observer) -> bool:
    """Pass a line of ``Lines`` on to an observer; False where the line is something else."""
    if not line.startswith('{"kind": '):
        return False
    told = json.loads(line)
    kind = told.pop("kind")
    getattr(observer, kind)(**told)
    return True


def main(stage: str, spec_file: str, out: str) -> None:
    """Run a stage's part in this process.

    Args:
        stage: ``sft``, ``dpo``, or ``reference``, whose processes fill the store and write no artifact.
        spec_file: Its specification as JSON.
        out: The stage's partial folder, the same for all processes.
    """
    text = Path(spec_file).read_text(encoding="utf-8")
    if stage == "reference":
        from preflow.stages.reference import prepare

        prepare(ReferenceSpec.model_validate_json(text), Lines() if ranks.launched().index == 0 else Silent())
        return
    from preflow.stages.dpo import run_dpo
    from preflow.stages.sft import run_sft

    works: dict[str, tuple[Callable[..., None], Any]] = {"sft": (run_sft, SftSpec), "dpo": (run_dpo, DpoSpec)}
    work, kind = works[stage]
    # The trainer would find out that processes belong together only later.
    state = PartialState(cpu=not torch.cuda.is_available())
    observer = Lines() if state.is_main_process else Silent()
    work(kind.model_validate_json(text), Path(out), observer)
    ranks.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
