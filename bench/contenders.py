"""What benchmarks of training have in common: one way to take a step, and a process for each of several ways."""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import torch

from preflow.estimates.flops import ModelShape
from preflow.models.heap import freed_memory_kept, hand_back
from preflow.models.peak_memory import PeakMemory
from preflow.models.precision import Precision

#: After a step the threads of a process wait at work for the next one this long at most, on the others' cores.
_QUIET_SECONDS = 0.3


@dataclass
class Contender:
    """One way to take an optimizer step on a batch.

    Attributes:
        trainer: TRL's.
        optimizer: Of its model.
        precision: Device and dtypes.
        keeps_memory: Whether freed memory is kept, as Preflow's stages do.
    """

    trainer: Any
    optimizer: Any
    precision: Precision
    keeps_memory: bool

    def batch(self, indices: list[int]) -> Any:
        """The trainer's own batch of some rows."""
        return self.trainer._prepare_inputs(
            self.trainer.data_collator([self.trainer.train_dataset[i] for i in indices])
        )

    def step(self, indices: list[int]) -> tuple[float, float, float]:
        """Take a step twice; gives the second one's seconds, seconds of processor time, and loss.

        The second finds the memory that the first left, as a step of a training does. Between steps it is handed back,
        since the gigabytes of all contenders together would not fit.
        """
        self.take(indices)
        return self.take(indices)

    def take(self, indices: list[int]) -> tuple[float, float, float]:
        """Take a step once."""
        begin, work = time.perf_counter(), time.process_time()
        batch = self.batch(indices)
        # Without train() nothing wraps the model; what accelerate would wrap around its forward stands here.
        with self.precision.autocast():
            loss = self.trainer.compute_loss(self.trainer.model, batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        value = float(loss.detach())  # waits for a GPU
        return time.perf_counter() - begin, time.process_time() - work, value

    @torch.no_grad()
    def log_probs(self, indices: list[int]) -> list[float]:
        """Log-prob of every response in a batch of pairs, chosen ones first."""
        batch = self.batch(indices)
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with self.precision.autocast():
            values = self.trainer.model(**given, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        return [float(value) for value in values.double().sum(-1)]


@dataclass
class Apart:
    """A contender in a process of its own, where it finds no memory that another freed; and what was measured of it."""

    make: Callable[[], Contender]
    seconds: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _made: bool = False

    def __post_init__(self) -> None:
        """Begin to make it, at the same time as others."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self.make, theirs), daemon=True)
        process.start()
        theirs.close()  # so that a process that died is noticed

    def wait(self) -> None:
        """Wait until it is made."""
        if not self._made:
            self._pipe.recv()
            self._made = True

    def step(self, indices: list[int]) -> None:
        """Take a step and note what it took."""
        seconds, work, loss = self.ask("step", indices)
        self.seconds.append(seconds)
        self.work.append(work)
        self.losses.append(loss)
        time.sleep(_QUIET_SECONDS)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the contender, or ``peak``: bytes at the highest above the loaded, idle trainer."""
        self.wait()
        self._pipe.send((method, arguments))
        return self._pipe.recv()


def _serve(make: Callable[[], Contender], pipe: Connection) -> None:
    contender = make()
    device = contender.precision.device
    memory = PeakMemory(device, contender.trainer.model)
    pipe.send("ready")
    with freed_memory_kept(device) if contender.keeps_memory else nullcontext():
        while True:
            try:
                method, arguments = pipe.recv()
            except EOFError:  # the benchmark has ended
                return
            pipe.send(memory.above_idle() if method == "peak" else getattr(contender, method)(*arguments))
            if not contender.keeps_memory:
                hand_back()


class MatrixRate:
    """Floating-point operations per second in a product of a model's own shape: tokens by width by the MLP's width."""

    def __init__(self, shape: ModelShape, tokens: int, precision: Precision) -> None:
        """Prepare.

        Args:
            shape: The model's sizes.
            tokens: Rows of the product.
            precision: Device and dtypes.
        """
        options: Any = {"device": precision.device, "dtype": precision.compute}
        self._rows = torch.randn(tokens, shape.hidden, **options)
        self._weight = torch.randn(shape.hidden, shape.mlp_width, **options)
        self._out = torch.empty(tokens, shape.mlp_width, **options)
        self._work = 2.0 * tokens * shape.hidden * shape.mlp_width
        self._wait: Any = torch.cuda.synchronize if precision.device.type == "cuda" else lambda: None
        self._found: list[float] = []
        self._seconds(20)  # warms up

    def measure(self) -> None:
        """Measure once more, for about 0.3 s."""
        count = max(20, int(0.3 / (self._seconds(5) / 5)))
        self._found.append(count * self._work / self._seconds(count))
        time.sleep(_QUIET_SECONDS)

    def last(self) -> float:
        """The latest."""
        return self._found[-1]

    def value(self) -> float:
        """The median."""
        return median(self._found)

    def _seconds(self, count: int) -> float:
        self._wait()
        begin = time.perf_counter()
        for _ in range(count):
            torch.mm(self._rows, self._weight, out=self._out)
        self._wait()
        return time.perf_counter() - begin
