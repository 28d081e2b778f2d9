"""Stages that are run in processes of their own, which can be killed or told to end."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

from preflow.artifacts import build
from preflow.config import Launch, Recipe
from preflow.observer import Silent
from preflow.specs import DpoSpec, SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.sft import run_sft
from tests.fixtures.prepared_run import Run


class Steps(Silent):
    """Sends each logged step, and leaves the reader time to kill before the next one."""

    def __init__(self, steps: "Connection[int, int]") -> None:
        self.steps = steps

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.steps.send(step)
        time.sleep(0.15)


def work(stage: str, spec: str, final: Path, steps: "Connection[int, int]") -> None:
    """Run one stage."""
    torch.set_num_threads(1)
    if stage == "sft":
        build(final, lambda out: run_sft(SftSpec.model_validate_json(spec), out, Steps(steps)))
    else:
        build(final, lambda out: run_dpo(DpoSpec.model_validate_json(spec), out, Steps(steps)))


class Stage:
    """One stage, run in processes of its own."""

    def __init__(self, context: ForkServerContext, stage: str, spec: SftSpec | DpoSpec) -> None:
        self.context, self.stage, self.spec = context, stage, spec.model_dump_json()

    def run(self, final: Path, kill_after: int | None = None, order: signal.Signals = signal.SIGKILL) -> list[int]:
        """The steps it logged, whole or until it is killed, or told to end, as soon as it has logged a step."""
        steps, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=work, args=(self.stage, self.spec, final, sender))
        process.start()
        sender.close()
        logged = []
        with steps, suppress(EOFError):
            while kill_after is None or kill_after not in logged:
                logged.append(steps.recv())
            assert process.pid is not None
            os.kill(process.pid, order)
            while order is not signal.SIGKILL:
                logged.append(steps.recv())
        process.join()
        assert process.exitcode == (0 if kill_after is None else -order)
        return logged


#: SFT in the ranks of a launch, of the module ``ranks`` in place of ``preflow.stages.worker``.
_LAUNCHED = """
import signal, sys
from pathlib import Path
from preflow.observer import Silent
from preflow.specs import SftSpec
import tasks.runtime.launcher
import tasks.runtime.processes

class Printed(Silent):
    def note(self, message):
        print(message, flush=True)

    def metrics(self, values, step):
        print(step, flush=True)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
own = tasks.runtime.launcher.command
names = {"preflow.stages.worker": sys.argv[3]}
tasks.runtime.launcher.command = lambda *given: [names.get(word, word) for word in own(*given)]
spec = SftSpec.model_validate_json(Path(sys.argv[1]).read_text())
tasks.runtime.processes.in_processes("sft", None)(spec, Path(sys.argv[2]), Printed())
"""


def launched(run: Run, recipe: Recipe, folder: Path, ranks: str) -> list[str]:
    """The command that does SFT in two ranks and prints notes and steps, line by line.

    Args:
        run: Gives model and data.
        recipe: Its settings.
        folder: Where the specification is written, and ``out``, the stage's partial folder.
        ranks: The module that each rank runs.
    """
    config = str(Path(__file__).parents[3] / "infra" / "accelerate" / "cpu.yaml")
    asked = recipe.model_copy(update={"launch": Launch(num_processes=2, config=config)})
    spec = folder / "spec.json"
    spec.write_text(SftSpec(recipe=asked, base=run.base, data=run.data).model_dump_json(), encoding="utf-8")
    return [sys.executable, "-c", _LAUNCHED, str(spec), str(folder / "out"), ranks]
