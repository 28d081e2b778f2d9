"""What MLflow records of a finished run, and where its artifacts lie; imports no torch, as a rollback reads it too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.environment import store_folder


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What MLflow records of a finished pipeline run.

    Attributes:
        run_id: Its id.
        tags: Its tags.
        recipe: The text of ``recipe.yaml``; none where it is gone.
        card: The text of its model card; none where it has none.
        data: Path and digest of each file of rows.
        stages: Tags of each stage's run, by the stage's name.
        specifications: What each stage's identity is the digest of, by its name; None where it was not recorded.
        later: What its model card says of the time after it, as reviews and decisions give it.
        found: Artifacts of stages that are as they were; filled by the checks.
    """

    run_id: str
    tags: Mapping[str, str]
    recipe: str | None
    card: str | None
    data: Sequence[tuple[str, str]]
    stages: Mapping[str, Mapping[str, str]]
    specifications: Mapping[str, Any] = field(default_factory=dict)
    later: str = ""
    found: dict[str, Artifact] = field(default_factory=dict)


def parsed(text: str | None) -> Recipe | None:
    """A recipe from its text; none where it is none any more."""
    try:
        return None if text is None else Recipe.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError):
        return None


def place_of(path: str) -> Path:
    """Where an artifact lies: where it was written, or at the same place of a store that was moved."""
    written = Path(path)
    return written if written.is_dir() else store_folder().joinpath(*written.parts[-2:])
