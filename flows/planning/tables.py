"""The plan as text: a table of stages, a table of memory, a verdict and, where something does not fit, a suggestion."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.planning.devices import USABLE, Device, DeviceChoice, device_for, on_gpu
from flows.planning.row_lengths import Rows, position_warnings, read_lengths, read_model
from flows.planning.stages import StageEstimate, Suggestion, shapes_of, stage_estimates, suggest
from flows.running.preparation import PreparedRun
from preflow.config import Recipe
from preflow.console import TextConsole
from preflow.estimates.scoring import BatchedMemory
from preflow.units import duration

GB = 1e9
#: Memory that GPUs are sold with, GB.
GPU_SIZES = (12, 16, 24, 48, 80, 141)
_PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "workspace", "heap")


class RunEstimate(NamedTuple):
    """What every stage of a run needs on a device."""

    recipe: Recipe
    device: Device
    stages: Sequence[StageEstimate]
    memories: Mapping[str, BatchedMemory]
    """Peak memory on the device, by stage; of those that have a peak of their own."""
    padded: bool
    """Whether rows are padded, since the architecture is not packed."""
    warnings: Sequence[str] = ()
    """What the model's positions say of the rows."""
    notes: Sequence[str] = ()
    """What the chat template did to rows."""


def print_plan(
    prepared: PreparedRun,
    memory: float | None,
    rate: float | None,
    choice: DeviceChoice = DeviceChoice.AUTO,
    console: Console | None = None,
) -> None:
    """Print the plan of a run.

    Args:
        prepared: What is run.
        memory: GB of a target device; None for the one found.
        rate: TFLOP/s of the device; None to measure it on the one found.
        choice: Which device.
        console: Where to print; standard output unless given.
    """
    console = console or TextConsole()
    run = estimate_run(prepared, device_for(prepared.recipe, memory, rate, choice))
    console.print(stage_table(run), memory_table(run), sep="\n")
    console.print(caption(run, measured=rate is None), style="dim", markup=False)
    for line in run.warnings:
        console.print(f"warning: {line}", style="yellow", markup=False, soft_wrap=True)
    for line in run.notes:
        console.print(f"note: {line}", markup=False, soft_wrap=True)
    fits = all(stage.fits(run.recipe, run.device) for stage in run.stages)
    console.print(verdict(run), style="bold green" if fits else "bold red", markup=False)
    if not fits:
        suggestion = suggest(run.stages, run.recipe, run.device)
        console.print(suggestion_line(suggestion), markup=False, soft_wrap=True)


def estimate_run(prepared: PreparedRun, device: Device) -> RunEstimate:
    """Estimate every stage; reads the model's small files and the data, and loads no weight."""
    recipe = prepared.recipe.model_copy(update={"trust_remote_code": False})  # a plan runs no model's code
    prepared = prepared.model_copy(update={"recipe": recipe})
    base = read_model(recipe)
    shapes = shapes_of(recipe, base)
    rows = read_lengths(prepared, base)
    stages = stage_estimates(recipe, shapes, rows, device.precision)
    needs = {stage.name: need for stage in stages if (need := stage.memory_on(recipe, device)) is not None}
    padded = any(not shape.supports_packing for shape in shapes.values())
    return RunEstimate(recipe, device, stages, needs, padded, position_warnings(recipe, base, rows), _notes(rows))


def _notes(rows: Mapping[str, Rows]) -> list[str]:
    """What the chat template did, by stage; said once where stages say the same."""
    said: dict[str, list[str]] = {}
    for stage, held in rows.items():
        for note in held.notes:
            said.setdefault(note, []).append(stage)
    return [f"{' and '.join(stages)}: {note}" for note, stages in said.items()]


def stage_table(run: RunEstimate) -> Table:
    """One row per stage: what it computes, and the smallest GPU that it fits."""
    title = f"{run.recipe.name}: {run.recipe.strategy}, {run.recipe.tuning}, on {run.device.name}"
    timed = run.device.rate is not None
    table = _table(title, "stage", "rows", "tokens", "steps", "FLOPs", *(["time"] if timed else []), "peak GB", "GPU")
    for stage in run.stages:
        need = run.memories.get(stage.name)
        seconds = [stage.flops / stage.ranks / run.device.rate] if run.device.rate is not None else []
        table.add_row(
            stage.name,
            *(_count(value) for value in (stage.rows, stage.tokens, stage.steps)),
            f"{stage.flops:.1e}",
            *map(duration, seconds),
            "" if need is None else f"{need.total / GB:.2f}",
            "" if need is None else smallest_gpu(stage, run.recipe),
        )
    return table


def smallest_gpu(stage: StageEstimate, recipe: Recipe) -> str:
    """The smallest usual GPU that a stage fits."""
    for size in GPU_SIZES:
        if stage.fits(recipe, Device("", on_gpu(recipe), size * GB * USABLE, None)):
            return f"{size} GB"
    return "none"


def memory_table(run: RunEstimate) -> Table:
    """Peak memory of one process, part by part."""
    table = _table("Peak memory by part, GB", "", *run.memories)
    for part in _PARTS:
        values = [getattr(need.memory, part) / GB for need in run.memories.values()]
        table.add_row(part, *(f"{value:.2f}" for value in values))
    table.add_row("peak", *(f"{need.total / GB:.2f}" for need in run.memories.values()))
    return table


def caption(run: RunEstimate, *, measured: bool) -> str:
    """What the columns mean."""
    parts = ["GPU: the smallest usual one that fits. FLOPs: floating-point operations."]
    if run.device.rate is None:
        parts.append("No time without --rate: the TFLOP/s of a GPU that is not here (bench/bench_dpo.py measures it).")
    else:
        source = "measured by one large matrix product" if measured else "given"
        parts.append(f"Time is FLOPs at {run.device.rate / 1e12:.2f} TFLOP/s ({source}), a lower bound.")
    if run.padded:
        parts.append("Tokens include padding, since this architecture is not packed.")
    if run.recipe.launch.num_processes > 1:
        parts.append(f"Memory is that of one of {run.recipe.launch.num_processes} processes.")
    return " ".join(parts)


def verdict(run: RunEstimate) -> str:
    """One line: whether the run fits, with which halved batches, or which stages do not."""
    limit = run.device.available
    misfits = {name: need for name, need in run.memories.items() if need.total > limit}
    if misfits:
        needs = ", ".join(f"{name} needs {need.total / GB:.1f} GB" for name, need in misfits.items())
        return f"Does NOT fit {run.device.name}: {needs}; {limit / GB:.1f} GB are usable."
    halved = [
        f"{name} with batches halved to {need.batch:,} {need.unit}"
        for name, need in run.memories.items()
        if need.halved
    ]
    return f"Fits {run.device.name}{', ' if halved else ''}{', '.join(halved)}."


def suggestion_line(suggestion: Suggestion | None) -> str:
    """One line: the settings with which everything fits."""
    if suggestion is None:
        return "No setting is known with which it fits: take a larger GPU or a smaller model."
    settings = " ".join(f"--set {name}={str(value).lower()}" for name, value in suggestion.settings.items())
    costs = f" (cuts the prompts of {suggestion.cut} rows and drops {suggestion.dropped})"
    return f"Nearest settings that fit: {settings}{costs if suggestion.cut or suggestion.dropped else ''}"


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(
        title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
        pad_edge=False,
    )  # fmt: skip
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
