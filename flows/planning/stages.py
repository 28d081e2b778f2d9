"""What each stage of a run needs: one ``StageEstimate`` per row of the plan."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from flows.planning.devices import Device
from flows.planning.row_lengths import Rows
from preflow.config import Recipe
from preflow.config.recipe import TrainingStage
from preflow.config.training import DpoSettings, TrainingSettings
from preflow.estimates.fit import (
    TOP_LEVEL,
    Change,
    nearest_fitting_settings,
    shortened,
    smallest_fitting_change,
    weights_precision,
)
from preflow.estimates.flops import ModelShape, TokenWork, forward_flops, shape_of
from preflow.estimates.memory import Memory
from preflow.estimates.scoring import (
    BatchedMemory,
    estimate_scoring,
    evaluation_memory,
    evaluation_work,
    held_out_work,
    scoring_work,
    start_check_memory,
    start_check_work,
)
from preflow.estimates.training import estimate_training, training_memory
from preflow.models.adapters import require_targets
from preflow.models.loading import model_config
from preflow.models.precision import Precision
from preflow.models.resolve import ModelRef, adapted_modules

#: Peak memory of one process under a recipe, with so many bytes available.
PeakMemory = Callable[[Recipe, Precision, float], BatchedMemory]
_NO_ROWS = Rows([], [], 0)


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """One row of the plan.

    Attributes:
        name: The stage, or a part of it.
        tokens: Tokens through the layers, padding included.
        flops: Floating-point operations: forward and backward of a training, else forward.
        peak: Peak memory; None for a part that is never the peak of its stage.
        rows: Rows, pairs or responses; None for a part of a stage.
        steps: Optimizer steps of a training.
        ranks: Processes that share the work.
        section: Name of the training section that a change of the recipe edits.
        change: The smallest change with which it fits; None where only the weights' settings can help.
    """

    name: str
    tokens: int
    flops: float
    peak: PeakMemory | None = None
    rows: int | None = None
    steps: int | None = None
    ranks: int = 1
    section: TrainingStage | None = None
    change: Callable[[Recipe, Precision, float], Change | None] | None = None

    def memory_on(self, recipe: Recipe, device: Device) -> BatchedMemory | None:
        """Peak memory of one process on a device."""
        if self.peak is None:
            return None
        return self.peak(recipe, weights_precision(recipe, device.precision), device.available)

    def fits(self, recipe: Recipe, device: Device) -> bool:
        """Whether it fits a device."""
        need = self.memory_on(recipe, device)
        return need is None or need.total <= device.available

    def smallest_change(self, recipe: Recipe, device: Device) -> Change | None:
        """The smallest change of a recipe with which it fits; None where none is known."""
        precision, available = weights_precision(recipe, device.precision), device.available
        if self.change is not None:
            return self.change(recipe, precision, available)
        peak = self.peak
        assert peak is not None, "only a stage that does not fit is changed"
        return smallest_fitting_change(
            lambda given, held: peak(given, held, available).total <= available, recipe, precision
        )


def shapes_of(recipe: Recipe, base: ModelRef) -> dict[str, ModelShape]:
    """The model's sizes with the adapter of each training stage.

    Raises:
        ModelError: Its configuration cannot be read.
        ConfigError: ``lora_target_modules`` names layers that it does not have.
    """
    config = model_config(base, recipe)
    require_targets(config, base, recipe)
    everything = "all-linear"  # without an adapter its modules do not matter, and may be named wrongly
    return {
        stage: shape_of(config, adapted_modules(base, settings) if recipe.tuning == "lora" else everything)
        for stage, settings in recipe.training_sections
    }


def stage_estimates(
    recipe: Recipe, shapes: Mapping[str, ModelShape], rows: Mapping[str, Rows], precision: Precision
) -> list[StageEstimate]:
    """Every stage of a run that computes, in the order in which they run."""
    found: list[StageEstimate] = []
    last, _ = recipe.training_sections[-1]
    for stage, settings in recipe.training_sections:
        if isinstance(settings, DpoSettings):
            found += _scoring_stages(recipe, shapes[stage], rows, "reference")
        found += _training_stages(recipe, stage, settings, shapes[stage], rows[stage], precision)
    return [*found, *_scoring_stages(recipe, shapes[last], rows, "evaluate")]


def _training_stages(
    recipe: Recipe,
    stage: TrainingStage,
    settings: TrainingSettings,
    shape: ModelShape,
    rows: Rows,
    precision: Precision,
) -> Iterator[StageEstimate]:
    found = estimate_training(shape, recipe, settings, rows.train, precision, rows.common)

    known: dict[tuple[str, Precision], Memory] = {}  # every GPU size asks for the same

    def peak(given: Recipe, held: Precision, available: float) -> BatchedMemory:
        key = given.settings_digest(), held
        if key not in known:
            section = _section(given, stage)
            kept = [short for row in rows.train if (short := shortened(row, section.max_seq_length)) is not None]
            known[key] = training_memory(shape, given, section, kept, held, rows.common)
        return BatchedMemory(known[key], 0, "rows")

    def change(given: Recipe, held: Precision, available: float) -> Change | None:
        return nearest_fitting_settings(
            shape, given, _section(given, stage), rows.train, held, available, common=rows.common
        )

    training = StageEstimate(
        stage, found.tokens, found.training, peak, found.rows, found.steps, recipe.launch.num_processes, stage, change
    )
    if isinstance(settings, DpoSettings):
        yield from _dpo_parts(recipe, settings, shape, rows, found.steps, training)
    else:
        yield training


def _dpo_parts(
    recipe: Recipe, settings: DpoSettings, shape: ModelShape, rows: Rows, steps: int, training: StageEstimate
) -> Iterator[StageEstimate]:
    """DPO's start-up checks, training and held-out evaluations; each rank of a distributed run does the checks."""
    rank = settings.lora_r if recipe.tuning == "lora" else 0
    packed = shape.supports_packing
    checks = start_check_work(recipe, settings, rows.train, packed=packed, common=rows.common)

    def peak(given: Recipe, held: Precision, available: float) -> BatchedMemory:
        return start_check_memory(shape, given, settings, rows.train, held, available)

    yield StageEstimate("dpo start checks", checks.tokens, forward_flops(shape, checks, rank), peak)
    yield training
    during = held_out_work(settings, steps, rows.held_out, packed=packed)
    if during.tokens:
        yield StageEstimate("dpo held-out eval", during.tokens, forward_flops(shape, during, rank))


def _scoring_stages(recipe: Recipe, shape: ModelShape, rows: Mapping[str, Rows], stage: str) -> Iterator[StageEstimate]:
    """The stage of that name that only runs forwards; none where it has no row."""
    work = scored_work(recipe, rows, packed=shape.supports_packing)[stage]
    if not work:
        return
    prompts = _prompts(rows) if stage == "evaluate" else []
    tokens = sum(each.tokens for each in work)
    _, settings = recipe.training_sections[-1]
    flops = forward_flops(shape, sum(work, TokenWork(0, 0, 0)), settings.lora_r if recipe.tuning == "lora" else 0)
    ranks = recipe.launch.num_processes if stage == "reference" else 1
    yield StageEstimate(stage, tokens, flops, partial(_scoring_peak, shape, work, prompts), len(work), ranks=ranks)


def _scoring_peak(
    shape: ModelShape,
    work: Sequence[TokenWork],
    prompts: Sequence[int],
    recipe: Recipe,
    precision: Precision,
    available: float,
) -> BatchedMemory:
    if prompts:
        return evaluation_memory(shape, recipe, work, prompts, precision, available)
    return estimate_scoring(shape, recipe, work, precision, available).peak


def scored_work(recipe: Recipe, rows: Mapping[str, Rows], *, packed: bool) -> dict[str, list[TokenWork]]:
    """Token counts of the rows that ``reference`` and ``evaluate`` score."""
    pairs, examples = rows.get("dpo", _NO_ROWS), rows.get("sft", _NO_ROWS)
    held_examples, held_pairs = (scoring_work(each.held_out, packed=packed) for each in (examples, pairs))
    return {
        "reference": scoring_work(pairs.train + pairs.held_out, packed=packed),
        "evaluate": evaluation_work(recipe, held_examples, held_pairs, _prompts(rows)),
    }


def _prompts(rows: Mapping[str, Rows]) -> list[int]:
    """Tokens of the held-out prompts to which an evaluation samples responses."""
    of_examples = [tokens - response for tokens, response in rows.get("sft", _NO_ROWS).held_out]
    return [prompt for prompt, *_ in rows.get("dpo", _NO_ROWS).held_out] or of_examples


class Suggestion(NamedTuple):
    """A changed recipe with which every stage fits."""

    recipe: Recipe
    settings: dict[str, object]
    """By dotted name, as ``--set`` takes them."""
    cut: int
    """Rows whose prompts lose their beginning."""
    dropped: int
    """Rows whose response does not fit any more."""


def suggest(stages: Sequence[StageEstimate], recipe: Recipe, device: Device) -> Suggestion | None:
    """The smallest known changes with which all stages fit, together; None where none are known.

    The changes of one stage are part of the recipe that the next one is judged by.
    """
    made = Suggestion(recipe, {}, 0, 0)
    without_own_settings_first = sorted(stages, key=lambda stage: stage.change is not None)
    for _ in range(2 * len(stages)):
        misfit = next((each for each in without_own_settings_first if not each.fits(made.recipe, device)), None)
        if misfit is None:
            return made
        change = misfit.smallest_change(made.recipe, device)
        if change is None:
            return None
        made = _with(made, misfit.section, change)
    return None


def _with(made: Suggestion, section: TrainingStage | None, change: Change) -> Suggestion:
    top = {name: value for name, value in change.settings.items() if name in TOP_LEVEL}
    own = {name: value for name, value in change.settings.items() if name not in TOP_LEVEL}
    update: dict[str, object] = dict(top)
    if section is not None:
        update[section] = _section(made.recipe, section).model_copy(update=own)
    named = {**top, **{f"{section}.{name}": value for name, value in own.items()}}
    return Suggestion(
        made.recipe.model_copy(update=update), {**made.settings, **named}, made.cut + change.cut,
        made.dropped + change.dropped,
    )  # fmt: skip


def _section(recipe: Recipe, stage: TrainingStage) -> TrainingSettings:
    return dict(recipe.training_sections)[stage]
