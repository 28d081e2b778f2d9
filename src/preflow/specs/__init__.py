"""What each stage is asked to do. A specification also says what can change the stage's result (its identity).

The specifications hold paths, digests and settings alone, so they are small JSON values for the orchestrator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen, Rendering, numbers
from preflow.config.recipe import RANGE_TEST
from preflow.config.validation import ReadingSettings, ValidationSettings
from preflow.data.files.raw_rows import DataSource
from preflow.data.validated import Split, rows_file
from preflow.formats import file_format
from preflow.models.resolve import ModelRef
from preflow.observer import Observer
from preflow.specs.benchmarks import BenchmarkSpec
from preflow.specs.pairs import JudgeAnswersSpec, PairSpec, SampleSpec

__all__ = [
    "STAGES",
    "BenchmarkSpec",
    "DpoSpec",
    "EvaluateSpec",
    "JudgeAnswersSpec",
    "JudgeSpec",
    "LengthsSpec",
    "PairSpec",
    "ReferenceSpec",
    "SampleSpec",
    "SftSpec",
    "StageInfo",
    "StageSpec",
    "TuneSpec",
    "ValidateSpec",
    "rank_function",
    "stage_function",
]
#: The fields of ``ValidateSpec`` that name files.
_FILES = ("demonstrations", "demonstrations_eval", "preferences", "preferences_eval", "benchmarks")


class ValidateSpec(Frozen):
    """Check, quarantine, split."""

    demonstrations: tuple[DataSource, ...] = ()
    demonstrations_eval: tuple[DataSource, ...] = ()
    preferences: tuple[DataSource, ...] = ()
    preferences_eval: tuple[DataSource, ...] = ()
    sft_eval_split: float = 0.1
    dpo_eval_split: float = 0.1
    sft_validation_split: float = 0.0
    dpo_validation_split: float = 0.0
    benchmarks: tuple[DataSource, ...] = ()
    """Files whose prompts must not train."""
    tokenizer: str | None = None
    """Folder of a tokenizer to count tokens with; none where the pipeline's own lengths stage does so."""
    max_seq_length: int | None = None
    """Most tokens of a row under that tokenizer."""
    rendering: Rendering = Rendering()
    """How rows are rendered for it, as the recipe says."""
    settings: ValidationSettings = ValidationSettings()
    reading: ReadingSettings = ReadingSettings()
    """How rows are read where a file alone does not say it."""

    @classmethod
    def of(cls, recipe: Recipe, **sources: tuple[DataSource, ...]) -> "ValidateSpec":
        """What a recipe asks of data validation, for these files."""
        given: dict[str, Any] = dict(sources)
        for stage, section in recipe.training_sections:
            given[f"{stage}_eval_split"] = section.eval_split
            given[f"{stage}_validation_split"] = section.validation_split
        return cls(settings=recipe.validation, reading=recipe.reading, **given)

    def sources(self) -> tuple[DataSource, ...]:
        """Every file that is read."""
        return tuple(source for name in _FILES for source in getattr(self, name))

    def inputs(self) -> dict[str, Any]:
        """Digests of the files, in order, and how they are read; their names do not matter otherwise."""
        return {name: [_source_identity(source) for source in getattr(self, name)] for name in _FILES}

    def options(self) -> dict[str, Any]:
        """The thresholds that can change the outcome."""
        tokens: dict[str, Any] = {"tokenizer": self.tokenizer, "max_seq_length": self.max_seq_length}
        if self.tokenizer is not None:
            tokens["rendering"] = numbers(self.rendering)
        read = {"reading": numbers(self.reading)}
        return {
            "validation": numbers(self.settings),
            **read,
            "splits": [self.sft_eval_split, self.dpo_eval_split],
            "validation_splits": [self.sft_validation_split, self.dpo_validation_split],
            **tokens,
        }


def _source_identity(source: DataSource) -> list[Any]:
    """Digest and format of a file, and what the recipe says of its rows where it says something."""
    said = source.reading_settings()
    return [source.digest, *(file_format(Path(source.path)) or ()), *([said] if said else [])]


class LengthsSpec(Frozen):
    """Count the tokens of every row that later stages will use."""

    recipe: Recipe
    base: ModelRef
    data: Artifact

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in."""
        return {"base": self.base.digest, "data": self.data.digest}

    def options(self) -> dict[str, Any]:
        """The template, by stage what happens to a row that is too long, and layers that must be in the model."""
        sections = self.recipe.training_sections if self.recipe.tuning == "lora" else []
        return {
            "rendering": numbers(self.recipe.rendering),
            "trust_remote_code": self.recipe.trust_remote_code,
            **_lengths(self.recipe),
            **{f"{stage} targets": settings.lora_target_modules for stage, settings in sections},
        }


class SftSpec(Frozen):
    """Fine-tune the base model on the training demonstrations."""

    recipe: Recipe
    base: ModelRef
    data: Artifact

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the training demonstrations alone."""
        return {"base": self.base.digest, "data": self.data.digests_of(rows_file("demonstrations", "train"))}

    def options(self) -> dict[str, Any]:
        """The settings that can change the weights."""
        return self.recipe.identity_settings("sft")


class ReferenceSpec(Frozen):
    """Log-probs of every pair, training and held out, under the reference model."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    sft: Artifact | None = None
    """The SFT model; none where the named model itself is the reference."""

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the pairs alone."""
        pairs = self.data.digests_of(*(rows_file("preferences", split) for split in get_args(Split)))
        return {"base": self.base.digest, "data": pairs, "sft": self.sft and self.sft.digest}

    def options(self) -> dict[str, Any]:
        """The settings that can change a log-prob: precision, template and truncation; nothing of the optimizer."""
        dpo = self.recipe.dpo
        names = ("tuning", "use_4bit", "provider", "trust_remote_code")
        shared = {name: getattr(self.recipe, name) for name in names}
        cut = {} if dpo is None else {"max_seq_length": dpo.max_seq_length, "overlong_response": dpo.overlong_response}
        return {**shared, "rendering": numbers(self.recipe.rendering), **cut}


class TuneSpec(Frozen):
    """Choose the learning rate of DPO by a short range test on some of the training pairs."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    reference: Artifact
    sft: Artifact | None = None

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the reference, the pairs that no report is about."""
        return {
            "base": self.base.digest,
            "reference": self.reference.digests_of("train.parquet", "validation.parquet"),
            "sft": self.sft and self.sft.digest,
        }

    def options(self) -> dict[str, Any]:
        """The settings of DPO that can change the choice, whatever its own learning rate is, and those of the test."""
        dpo = self.recipe.dpo
        test = {} if dpo is None else {name: getattr(dpo, name) for name in RANGE_TEST}
        settings = self.recipe.identity_settings("dpo")
        return {**settings, "dpo": {**(settings["dpo"] or {}), "learning_rate": None}, "range_test": test}


class DpoSpec(Frozen):
    """Align the SFT model on the training pairs against its own stored log-probs."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    reference: Artifact
    sft: Artifact | None = None

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in; the pairs' tokens come with the reference."""
        return {
            "base": self.base.digest,
            "reference": self.reference.digest,
            "sft": self.sft and self.sft.digest,
        }

    def options(self) -> dict[str, Any]:
        """The settings that can change the weights."""
        return self.recipe.identity_settings("dpo")


class EvaluateSpec(Frozen):
    """Compare base, SFT and DPO model on held-out rows."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    sft: Artifact | None = None
    dpo: Artifact | None = None
    reference: Artifact | None = None

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: of the data, the held-out rows alone."""
        artifacts = {name: getattr(self, name) for name in ("sft", "dpo", "reference")}
        held_out = self.data.digests_of(rows_file("demonstrations", "eval"), rows_file("preferences", "eval"))
        digests = {name: a and a.digest for name, a in artifacts.items()}
        return {"base": self.base.digest, "data": held_out, **digests}

    def options(self) -> dict[str, Any]:
        """The settings that can change a measurement."""
        recipe = self.recipe
        names = ("tuning", "use_4bit", "seed", "provider", "trust_remote_code")
        beta = {} if recipe.dpo is None else {"beta": recipe.dpo.beta}
        return {
            "evaluation": numbers(recipe.evaluation),
            **{name: getattr(recipe, name) for name in names},
            "rendering": numbers(recipe.rendering),
            **_lengths(recipe),
            **beta,
        }


class JudgeSpec(Frozen):
    """Let a judge compare the answers of the finished model with those of its reference."""

    recipe: Recipe
    data: Artifact
    evaluation: Artifact

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: the held-out rows that people judged, and the kept answers."""
        held_out = self.data.digests_of(rows_file("demonstrations", "eval"), rows_file("preferences", "eval"))
        return {"data": held_out, "evaluation": self.evaluation.digest}

    def options(self) -> dict[str, Any]:
        """The judge, and what its intervals depend on."""
        settings = self.recipe.evaluation
        names = ("bootstrap_samples", "confidence")
        judge = None if settings.judge is None else numbers(settings.judge)
        return {"judge": judge, "seed": self.recipe.seed, **{name: getattr(settings, name) for name in names}}


def _lengths(recipe: Recipe) -> dict[str, Any]:
    """By training stage of a recipe: its limit, what happens to a response beyond it, and which answers are learnt."""
    names = ("max_seq_length", "overlong_response", "train_on")
    return {
        stage: {name: getattr(settings, name) for name in names if hasattr(settings, name)}
        for stage, settings in recipe.training_sections
    }


StageSpec = (
    ValidateSpec
    | LengthsSpec
    | SftSpec
    | ReferenceSpec
    | TuneSpec
    | DpoSpec
    | EvaluateSpec
    | BenchmarkSpec
    | JudgeSpec
    | SampleSpec
    | JudgeAnswersSpec
    | PairSpec
)


@dataclass(frozen=True, slots=True)
class StageInfo:
    """Where a stage is implemented, and what others need to know of it.

    Attributes:
        spec: The class of its specification.
        module: The module that computes it; every definition that its function reaches is part of the identity.
        function: The function of that module to call with a specification, an output folder and an observer.
        uses_model: Whether it runs a model, so that device and dtypes are part of the identity.
        rank: The function of ``preflow.stages.ranks`` that each rank of a launch calls, where it can run in several.
        read_later: Whether a command reads its artifact after the run has ended.
        tasks: The module of its task, where that has another name than the stage.
    """

    spec: type[StageSpec]
    module: str
    function: str
    uses_model: bool = True
    rank: str | None = None
    read_later: bool = False
    tasks: str | None = None

    @property
    def launches(self) -> bool:
        """Whether ``launch:`` of the recipe applies."""
        return self.rank is not None


#: The module of the tasks that make new pairs.
_NEW_PAIRS = "tasks.new_pairs"
#: Every stage by name, in the order in which they run; the last three make new pairs (``preflow augment``).
STAGES = {
    "validate": StageInfo(ValidateSpec, "expectations.gate", "run_gate", uses_model=False, read_later=True),
    "lengths": StageInfo(LengthsSpec, "preflow.stages.lengths", "run_lengths", uses_model=False),
    "sft": StageInfo(SftSpec, "preflow.stages.sft", "run_sft", rank="train", read_later=True),
    "reference": StageInfo(ReferenceSpec, "preflow.stages.reference", "run_reference", rank="fill", read_later=True),
    "tune": StageInfo(TuneSpec, "preflow.stages.tune", "run_tune"),
    "dpo": StageInfo(DpoSpec, "preflow.stages.dpo", "run_dpo", rank="train", read_later=True),
    "evaluate": StageInfo(EvaluateSpec, "preflow.stages.evaluation", "run_evaluation"),
    "benchmarks": StageInfo(BenchmarkSpec, "preflow.stages.benchmarks", "run_benchmarks"),
    "judge": StageInfo(JudgeSpec, "preflow.stages.judging", "run_judging", uses_model=False),
    "sample": StageInfo(SampleSpec, "preflow.stages.sampling", "run_sampling", tasks=_NEW_PAIRS),
    "judge_answers": StageInfo(
        JudgeAnswersSpec, "preflow.stages.judging_answers", "run_judging_answers", uses_model=False, tasks=_NEW_PAIRS
    ),
    "pair": StageInfo(PairSpec, "preflow.stages.pairing", "run_pairing", uses_model=False, tasks=_NEW_PAIRS),
}


def stage_function(spec: StageSpec) -> Callable[[Any, Path, Observer], None]:
    """The function that computes the stage of a specification."""
    info = next(info for info in STAGES.values() if isinstance(spec, info.spec))
    function: Callable[[Any, Path, Observer], None] = getattr(import_module(info.module), info.function)
    return function


def rank_function(stage: str) -> Callable[[Any, Path, Observer], None]:
    """The function that each rank of a stage's launch calls.

    Raises:
        ValueError: The stage runs in one process alone.
    """
    name = STAGES[stage].rank
    if name is None:
        raise ValueError(f"{stage} runs in one process: {', '.join(s for s in STAGES if STAGES[s].rank)} run in ranks")
    function: Callable[[Any, Path, Observer], None] = getattr(import_module("preflow.stages.ranks"), name)
    return function
