"""Starting the ranks of ``accelerate launch``: their command, their reports, their end."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from preflow.config import Recipe
from preflow.config.checks.launch import launched_precision, wrong_precision
from preflow.errors import KilledRankError, TrainingError
from preflow.observer import Observer
from preflow.specs import DpoSpec, ReferenceSpec, SftSpec
from preflow.stages.worker import ENDS_WITH_INPUT, relay

#: Last lines of the ranks' output that an error shows.
_LAST = 200
#: How torchrun reports a rank that the system or a person killed.
_KILLED = re.compile(r"exitcode\s*: -9\b")


def run_ranks(stage: str, spec: SftSpec | ReferenceSpec | DpoSpec, out: Path, observer: Observer) -> None:
    """Run a stage's ranks to their end.

    Raises:
        ConfigError: As ``launch_options``.
        KilledRankError: One of them was killed.
        TrainingError: One of them failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spec.json"
        file.write_text(spec.model_dump_json(), encoding="utf-8")
        _accelerate(command(spec.recipe, stage, file, out), stage, observer)


def command(recipe: Recipe, stage: str, spec: Path, out: Path) -> list[str]:
    """The command that starts the ranks.

    Raises:
        ConfigError: As ``launch_options``.
    """
    start = [sys.executable, "-m", "accelerate.commands.launch", *launch_options(recipe, spec.parent)]
    return [*start, "-m", "preflow.stages.worker", stage, str(spec), str(out)]


def launch_options(recipe: Recipe, folder: Path) -> list[str]:
    """Options of ``accelerate launch`` for a recipe.

    Every option that accelerate would take from elsewhere is given: the precision is the recipe's, and where the recipe
    names no configuration, one is written into ``folder``. Otherwise accelerate would read the user's own, which is in
    no artifact's identity.

    Raises:
        ConfigError: ``launch.config`` asks for another precision than the recipe has on this machine.
    """
    from preflow.models.precision import choose_precision

    precision = choose_precision(recipe)
    asked = launched_precision(recipe.launch.config) if recipe.launch.config is not None else "no"
    if asked not in ("no", precision.mixed()):
        wrong_precision(recipe, asked)
    config = recipe.launch.config or str(_own_config(folder, cpu=precision.device.type == "cpu"))
    processes = ["--num_processes", str(recipe.launch.num_processes)]
    return [*processes, "--config_file", config, "--mixed_precision", precision.mixed()]


def _own_config(folder: Path, *, cpu: bool) -> Path:
    """Ranks on this machine, each with the full weights; the same as ``infra/accelerate/ddp.yaml`` and ``cpu.yaml``."""
    options: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",  # accelerate's name for torchrun, on the CPU too
        "num_machines": 1,
        "machine_rank": 0,
        "use_cpu": cpu,
        "mixed_precision": "no",  # the command gives it
        **({} if cpu else {"gpu_ids": "all"}),
    }
    file = folder / "accelerate.json"
    file.write_text(json.dumps(options), encoding="utf-8")
    return file


def _accelerate(arguments: list[str], stage: str, observer: Observer) -> None:
    """Run the ranks to their end; none of them outlives this call.

    Raises:
        KilledRankError: One of them was killed.
        TrainingError: One of them failed; includes the last lines of their output.
    """
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,  # closed by the system when this process ends, even by a kill; the ranks end then too
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, ENDS_WITH_INPUT: "1"},
        encoding="utf-8",
        errors="replace",  # a library's message in another encoding is no reason to end a training
        process_group=0,
    )
    last: deque[str] = deque(maxlen=_LAST)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if not relay(line, observer):
                last.append(line.rstrip())
        code = process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if code:
        killed = any(_KILLED.search(line) for line in last)
        kind = KilledRankError if killed else TrainingError
        raise kind(
            f"{stage}: accelerate launch ended with code {code}, expected 0. The last lines of its processes:\n"
            + "\n".join(last)
        )
