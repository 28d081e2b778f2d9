"""One stage in several processes: what ``accelerate launch -m preflow.stages.worker`` runs in each of them.

Process 0 writes the stage's files, and tells the process that launched it what happens, one JSON object a line.
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

#: Names the environment's word that standard input stays open as long as the process that asked for the launch lives.
ENDS_WITH_INPUT = "PREFLOW_ENDS_WITH_INPUT"
#: How long processes wait for each other: process 0 writes and digests checkpoints of all weights meanwhile.
_PATIENCE = timedelta(hours=2)


class Lines:
    """An observer that writes what it receives to standard output."""

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
    """Make this process one of the ranks that train together; the trainer would find that out only later."""
    load_full_weights_on_every_rank()
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def _end_with_input() -> None:
    """End this process when its input ends: who would read its results is gone, and nothing else would end it."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def load_full_weights_on_every_rank() -> None:
    """Let every process load the whole model, which it proves before the trainer shards the weights.

    Raises:
        ConfigError: The launch asks for FSDP 1, whose flat parameters have no names to save them under.
    """
    os.environ.pop("FSDP_CPU_RAM_EFFICIENT_LOADING", None)  # which loads it in process 0 alone
    version = os.environ.get("FSDP_VERSION", "1")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and version != "2":
        raise ConfigError(
            f"launch.config says fsdp_version {version}, expected 2: set it under fsdp_config, as "
            "infra/accelerate/fsdp.yaml does"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
