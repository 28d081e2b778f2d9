"""What ``preflow plan`` prints: what a run would take, before any weight is loaded."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from flows.planning.devices import USABLE, Device, Kind, device_for, on_a_card
from flows.planning.row_lengths import Rows, lengths, read_model
from flows.running.preparation import PreparedRun
from preflow.config import Recipe
from preflow.config.training import DpoSettings, TrainingSettings
from preflow.errors import ModelError
from preflow.models.precision import Precision
from tasks.runtime.progress import CONSOLE

if TYPE_CHECKING:
    from preflow.estimates.flops import Shape, Work
    from preflow.estimates.memory import Memory
    from preflow.estimates.training import Change
    from preflow.models.resolve import ModelRef

GIB = 2**30
#: Cards by the memory they are sold with, GB.
CARDS = (12, 16, 24, 80, 141)
_PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "workspace", "heap")


class Tables(NamedTuple):
    """What is printed."""

    numbers: Table
    memories: "dict[str, Memory]"
    verdicts: list[str]

    def add(self, stage: str, counts: Sequence[int | None], operations: Sequence[float | None], time: str) -> None:
        """Add what a stage computes; None where a column has nothing to say."""
        shown = ["" if value is None else f"{value:,}" for value in counts]
        shown += ["" if value is None else f"{value:.2e}" for value in operations]
        self.numbers.add_row(stage, *shown, time)

    def add_memory(self, stage: str, memory: "Memory", on_card: "Callable[[float], Memory]", device: Device) -> bool:
        """Add what a stage holds on the device, and which cards have room for it; whether the device has."""
        self.memories[stage] = memory
        rooms = {size: size * 1e9 * USABLE for size in CARDS}
        fits = [f"{size}" for size, room in rooms.items() if on_card(room).total <= room]
        self.verdicts.append(f"{stage}: of cards of {CARDS} GB it fits {', '.join(fits) or 'none'}")
        return memory.total <= device.room

    def refuse(self, stage: str, device: Device, change: "Change | str | None") -> None:
        """Say that a stage has no room on the device, and which change of its settings would make some."""
        known = change or "none is known"
        self.verdicts.append(f"{stage}: does NOT fit {device.name}; nearest setting that does: {known}")

    def parts(self, device: Device) -> Table:
        """What every stage holds, part by part."""
        table = Table("GiB", *self.memories, title=f"At the peak, on {device.name}")
        for name, part in (*((part, part) for part in _PARTS), ("peak", "total")):
            table.add_row(name, *(f"{getattr(memory, part) / GIB:.2f}" for memory in self.memories.values()))
        return table


def show(prepared: PreparedRun, memory: float | None, rate: float | None, kind: Kind = Kind.AUTO) -> None:
    """Print the tables.

    Args:
        prepared: What is run.
        memory: GB of the device; none for the one found.
        rate: TFLOP/s; none to measure it on the device found.
        kind: Of device.
    """
    base = read_model(prepared.recipe)
    shapes = shapes_of(prepared.recipe, base)
    device = device_for(prepared.recipe, memory, rate, kind)
    columns = ("rows", "tokens", "scored", "steps", "forward", "training", "time")
    numbers = Table("stage", *columns, title="What is computed")
    tables = Tables(numbers, {}, [])
    rows = lengths(prepared, base)
    for stage, settings in prepared.recipe.training_sections:
        _show_training(tables, prepared.recipe, stage, settings, shapes[stage], rows[stage], device)
    _show_scoring(tables, prepared.recipe, next(reversed(shapes.values())), rows, device)
    CONSOLE.print(numbers, tables.parts(device), *tables.verdicts, sep="\n")
    CONSOLE.print(_footer(device, rate))


def shapes_of(recipe: Recipe, base: "ModelRef") -> "dict[str, Shape]":
    """The model's sizes with the adapter of each training stage.

    Raises:
        ModelError: Its configuration cannot be read.
    """
    from transformers import AutoConfig

    from preflow.estimates.flops import shape_of
    from preflow.models.resolve import adapted_modules

    try:
        config = AutoConfig.from_pretrained(base.path, trust_remote_code=recipe.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"model_name {recipe.model_name}: no configuration can be read: {error}") from error
    everything = "all-linear"  # without an adapter its modules are of no account, and may be named wrongly
    return {
        stage: shape_of(config, adapted_modules(base, settings) if recipe.tuning == "lora" else everything)
        for stage, settings in recipe.training_sections
    }


def _footer(device: Device, rate: float | None) -> str:
    if device.rate is None:
        return (
            "Operations are floating-point operations. No time is given: the rate of a card that is only named is not "
            "known here. Give --rate, in TFLOP/s, as measured on it (bench/bench_dpo.py --device cuda prints it)."
        )
    return (
        f"Operations are floating-point operations; time is these alone at {device.rate / 1e12:.2f} TFLOP/s "
        f"({'given' if rate is not None else 'measured here by one large product'}), without a margin."
    )


def _show_training(
    tables: Tables,
    recipe: Recipe,
    stage: str,
    settings: TrainingSettings,
    shape: "Shape",
    rows: "Rows",
    device: Device,
) -> None:
    from preflow.estimates.training import forecast, nearest_that_fits

    seen = forecast(shape, recipe, settings, rows.train, device.precision, rows.common)
    counts = (seen.rows, seen.tokens, seen.scored, seen.steps)
    share = seen.training / recipe.launch.num_processes
    tables.add(stage, counts, (seen.forward, seen.training), _minutes(share, device))
    if not shape.packed:
        tables.verdicts.append(f"{stage}: rows of this model are padded to the longest of their batch; that is counted")
    if isinstance(settings, DpoSettings):
        _show_beside(tables, recipe, settings, shape, rows, seen.steps, device)
    card = forecast(shape, recipe, settings, rows.train, on_a_card(recipe), rows.common).memory
    if tables.add_memory(stage, seen.memory, lambda room: card, device):
        tables.verdicts.append(f"{stage}: fits {device.name}")
        return
    change = nearest_that_fits(shape, recipe, settings, rows.train, device.precision, device.room, rows.common)
    tables.refuse(stage, device, change)


def _show_beside(
    tables: Tables,
    recipe: Recipe,
    settings: DpoSettings,
    shape: "Shape",
    rows: "Rows",
    steps: int,
    device: Device,
) -> None:
    """What DPO runs beside its training, in every process of a launch."""
    from preflow.estimates.flops import forward_flops
    from preflow.estimates.scoring import held_so_that, looks_work, proof_memory, proof_work

    rank = settings.lora_r if recipe.tuning == "lora" else 0
    beside = {
        "dpo: proof": proof_work(recipe, settings, rows.train, packed=shape.packed, common=rows.common),
        "dpo: looks": looks_work(settings, steps, rows.held_out, packed=shape.packed),
    }
    for name, work in beside.items():
        operations = forward_flops(shape, work, rank)
        tables.add(name, (None, work.tokens, work.scored, None), (operations, None), _minutes(operations, device))
    holds = partial(proof_memory, shape, recipe, settings, rows.train)
    need = holds(device.precision, device.room)
    if tables.add_memory("dpo: proof", need, partial(holds, on_a_card(recipe)), device):
        tables.verdicts.append(f"dpo: proof: fits {device.name}")
        return
    change = held_so_that(
        lambda given, held: proof_memory(shape, given, settings, rows.train, held, device.room).total <= device.room,
        recipe,
        device.precision,
    )
    tables.refuse("dpo: proof", device, change)


def _show_scoring(tables: Tables, recipe: Recipe, shape: "Shape", rows: "dict[str, Rows]", device: Device) -> None:
    from preflow.estimates.scoring import forecast_scoring, held_so_that
    from preflow.models.scoring import BATCH_TOKENS

    for stage, work in scoring(recipe, rows, packed=shape.packed).items():
        holds = partial(_scoring_memory, shape, work, _prompts(rows) if stage == "evaluate" else [])
        seen = forecast_scoring(shape, recipe, work, device.precision, device.room)
        share = seen.forward / (recipe.launch.num_processes if stage == "reference" else 1)
        tables.add(stage, (seen.rows, seen.tokens, seen.scored, None), (seen.forward, None), _minutes(share, device))
        need = holds(recipe, device.precision, device.room)
        if tables.add_memory(stage, need, partial(holds, recipe, on_a_card(recipe)), device):
            halved = seen.batch is not None and seen.batch < BATCH_TOKENS
            batches = f", scoring in batches of {seen.batch:,} tokens, which a run finds by halving" if halved else ""
            tables.verdicts.append(f"{stage}: fits {device.name}{batches}")
            continue
        fits = partial(_fits, holds, device.room)
        tables.refuse(stage, device, held_so_that(fits, recipe, device.precision))


def _fits(
    holds: "Callable[[Recipe, Precision, float], Memory]", room: float, recipe: Recipe, precision: Precision
) -> bool:
    return holds(recipe, precision, room).total <= room


def _scoring_memory(
    shape: "Shape", work: "list[Work]", prompts: list[int], recipe: Recipe, precision: Precision, room: float
) -> "Memory":
    """What a stage that scores holds, and, where ``prompts`` are answered, what that takes."""
    from preflow.estimates.scoring import evaluation_memory, forecast_scoring

    if prompts:
        return evaluation_memory(shape, recipe, work, prompts, precision, room)
    return forecast_scoring(shape, recipe, work, precision, room).memory


def _prompts(rows: dict[str, Rows]) -> list[int]:
    """Tokens of the held-out prompts that an evaluation answers."""
    none = Rows([], [], 0)
    asked = [whole - response for whole, response in rows.get("sft", none).held_out]
    return [prompt for prompt, *_ in rows.get("dpo", none).held_out] or asked


def _minutes(operations: float, device: Device) -> str:
    return "-" if device.rate is None else f"{operations / device.rate / 60:.1f} min"


def scoring(recipe: Recipe, rows: dict[str, Rows], *, packed: bool) -> "dict[str, list[Work]]":
    """What the stages that only score run; each has at least one row."""
    from preflow.estimates.scoring import evaluation_work, scoring_work

    none = Rows([], [], 0)
    pairs, demonstrations = rows.get("dpo", none), rows.get("sft", none)
    texts, answers = (scoring_work(each.held_out, packed=packed) for each in (demonstrations, pairs))
    evaluated = evaluation_work(recipe, texts, answers, _prompts(rows))
    found = {"reference": scoring_work(pairs.train + pairs.held_out, packed=packed), "evaluate": evaluated}
    return {stage: work for stage, work in found.items() if work}
