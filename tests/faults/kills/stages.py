"""Stages that are run in processes of their own, which can be killed or told to end."""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

from preflow.artifacts import build
from preflow.observer import Silent
from preflow.specs import DpoSpec, SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.sft import run_sft


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
