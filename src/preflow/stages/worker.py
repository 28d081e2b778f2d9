"""One stage in a distributed run: what ``accelerate launch -m preflow.stages.worker`` runs in every rank.

Rank 0 writes the stage's files, and reports to the process that launched it, one JSON object a line.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from preflow import distributed
from preflow.errors import ConfigError
from preflow.observer import Observer, Silent
from preflow.specs import STAGES, ReferenceSpec, StageSpec

#: Environment variable: 1 where standard input stays open for as long as the launching process lives.
ENDS_WITH_INPUT = "PREFLOW_ENDS_WITH_INPUT"
#: How long ranks wait for each other, as rank 0 writes and digests checkpoints of the full weights.
_PATIENCE = timedelta(hours=2)


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
    if stage == "reference":
        from preflow.stages.reference import prepare

        prepare(
            ReferenceSpec.model_validate_json(text), Lines() if distributed.current_ranks().index == 0 else Silent()
        )
        return
    info = STAGES[stage]
    run: Callable[[StageSpec, Path, Observer], None] = getattr(import_module(info.module), info.function)
    observer = Lines() if join_training().is_main_process else Silent()
    run(info.spec.model_validate_json(text), Path(out), observer)
    distributed.shut_down()


def join_training() -> PartialState:
    """Make this process one of the ranks that train together; the trainer alone would do so only later."""
    load_full_weights_on_every_rank()
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def _end_with_input() -> None:
    """End this process when its input ends: the launching process is gone, and nothing else would end this one."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def load_full_weights_on_every_rank() -> None:
    """Let every rank load the full weights, which it checks before the trainer shards them.

    Raises:
        ConfigError: The launch configures FSDP 1, whose flat parameters cannot be saved by name.
    """
    os.environ.pop("FSDP_CPU_RAM_EFFICIENT_LOADING", None)  # it would load them on rank 0 alone
    version = os.environ.get("FSDP_VERSION", "1")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and version != "2":
        raise ConfigError(
            f"launch.config says fsdp_version {version}, expected 2: set it under fsdp_config, as "
            "infra/accelerate/fsdp.yaml does"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
