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
from transformers import AutoModelForCausalLM

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

    def profile(self, indices: list[int], rows: int = 25) -> dict[str, Any]:
        """Take a step under PyTorch's profiler.

        Args:
            indices: Of the batch.
            rows: Of the table.

        Returns:
            ``table``: the operators that took longest, by themselves; ``seconds`` of the step, which profiling
            prolongs; on a GPU ``busy``, the seconds in which it computed, and ``kernels``, how many it was given.
        """
        activity, cuda = torch.profiler.ProfilerActivity, self.precision.device.type == "cuda"
        with torch.profiler.profile(activities=[activity.CPU, *([activity.CUDA] if cuda else [])]) as seen:
            seconds, *_ = self.take(indices)
        events = seen.key_averages()
        table = events.table(sort_by="self_device_time_total" if cuda else "self_cpu_time_total", row_limit=rows)
        found: dict[str, Any] = {"table": table, "seconds": seconds}
        if cuda:  # operators carry the time of their kernels too
            kernels = [event for event in events if event.device_type.name == "CUDA"]
            found["busy"] = sum(event.self_device_time_total for event in kernels) / 1e6
            found["kernels"] = sum(event.count for event in kernels)
        return found

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
    """A contender in a process of its own, where it finds no memory that another freed; and what was measured of it.

    Attributes:
        make: Makes it, in that process.
        start_method: How Python starts the process.
        seconds: Of each step.
        work: Seconds of processor time of each step.
        losses: Of each step.
    """

    make: Callable[[], Contender]
    start_method: str = "spawn"
    seconds: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _made: bool = False

    def __post_init__(self) -> None:
        """Begin to make it, at the same time as others."""
        context: Any = multiprocessing.get_context(self.start_method)
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

    def forget(self) -> None:
        """Drop what was measured so far."""
        for values in (self.seconds, self.work, self.losses):
            values.clear()
        self.ask("forget")

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the contender.

        ``peak`` gives the bytes at the highest above the loaded, idle trainer, ``whole_peak`` with what it holds;
        ``forget`` begins both anew on a GPU.
        """
        self.wait()
        self._pipe.send((method, arguments))
        return self._pipe.recv()


def plain_tokenizer() -> Any:
    """A tokenizer of single words for trainers that want one, where rows are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<end>": 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")  # type: ignore[no-untyped-call]


def random_model(config: Any, precision: Precision) -> Any:
    """A model made from its configuration, always with the same weights, which take no gradient."""
    torch.manual_seed(0)
    with precision.device:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=precision.weights)  # type: ignore[no-untyped-call]
    return model.requires_grad_(False).eval()


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
            pipe.send(_measured(memory, method) if method in _OF_MEMORY else getattr(contender, method)(*arguments))
            if not contender.keeps_memory:
                hand_back()


#: Questions about memory that ``Apart.ask`` knows.
_OF_MEMORY = ("peak", "whole_peak", "forget")


def _measured(memory: PeakMemory, question: str) -> int | None:
    if question == "forget":
        if memory.device.type == "cuda":  # elsewhere the peak of a process stays
            torch.cuda.reset_peak_memory_stats(memory.device)
        return None
    return memory.above_idle() if question == "peak" else memory.peak()


class MatrixRate:
    """Floating-point operations per second in a product of matrices."""

    def __init__(self, rows: int, inner: int, columns: int, precision: Precision) -> None:
        """Prepare.

        Args:
            rows: Of the product.
            inner: Columns of the first matrix, rows of the second.
            columns: Of the product.
            precision: Device and dtypes.
        """
        options: Any = {"device": precision.device, "dtype": precision.compute}
        self._rows = torch.randn(rows, inner, **options)
        self._weight = torch.randn(inner, columns, **options)
        self._out = torch.empty(rows, columns, **options)
        self._work = 2.0 * rows * inner * columns
        self._wait: Any = torch.cuda.synchronize if precision.device.type == "cuda" else lambda: None
        self._found: list[float] = []
        self._seconds(20)  # warms up

    @classmethod
    def of(cls, shape: ModelShape, tokens: int, precision: Precision) -> "MatrixRate":
        """That of a model's own shape: tokens by width by the MLP's width."""
        return cls(tokens, shape.hidden, shape.mlp_width, precision)

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
