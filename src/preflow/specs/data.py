"""What the stages that check and measure data are asked to do."""

from pathlib import Path
from typing import Any

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen, Rendering, numbers
from preflow.config.validation import ReadingSettings, ValidationSettings
from preflow.data.files.raw_rows import DataSource
from preflow.formats import file_format
from preflow.models.resolve import ModelRef

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
            **lengths_of(self.recipe),
            **{f"{stage} targets": settings.lora_target_modules for stage, settings in sections},
        }


def lengths_of(recipe: Recipe) -> dict[str, Any]:
    """By training stage of a recipe: its limit, what happens to a response beyond it, and which answers are learnt."""
    names = ("max_seq_length", "overlong_response", "train_on")
    return {
        stage: {name: getattr(settings, name) for name in names if hasattr(settings, name)}
        for stage, settings in recipe.training_sections
    }
