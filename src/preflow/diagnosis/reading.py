"""A finished run's measurements, read from its artifacts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.data.quality.rows.form_marks import CUES, form_marks
from preflow.data.rows import Message
from preflow.data.validated import REPORT, each_pair
from preflow.diagnosis.measurements import PairMeasures, RunMeasurements, Vector


def measurements(
    recipe: Recipe,
    data: Artifact,
    evaluation: Artifact,
    trained: Mapping[str, Artifact | None],
    tracked: Mapping[str, float],
    judged: Artifact | None = None,
) -> RunMeasurements:
    """All that a run measured.

    Args:
        recipe: Its resolved settings.
        data: The artifact of data validation.
        evaluation: That of the evaluation.
        trained: Those of the training stages, by name.
        tracked: What is in no artifact, as it differs by the run: memory in GiB, seconds of each stage.
        judged: The artifact of the judge, where one was asked.
    """
    found = {name: artifact for name, artifact in trained.items() if artifact is not None}
    metrics = {name: value for artifact in found.values() for name, value in artifact.load("metrics.json").items()}
    rows = evaluation.load("pairs.json") if "dpo" in found else []
    return RunMeasurements(
        recipe=recipe,
        evaluation=evaluation.load("evaluation.json"),
        pairs=PairMeasures.of(rows, _cues(data, rows)) if rows else None,
        log=found["dpo"].load("training.json") if "dpo" in found else (),
        metrics={**metrics, **tracked},
        sft_log=found["sft"].load("training.json") if "sft" in found else (),
        data=data.load(REPORT).get("preferences") or {},
        choice=found["tune"].load("choice.json") if "tune" in found else {},
        judge=judged.load("judge.json") if judged is not None else {},
    )


def _cues(data: Artifact, rows: Sequence[Mapping[str, Any]]) -> dict[str, Vector]:
    """By cue of form, in which answer of each held-out pair alone it is: 1 for chosen, -1 for rejected, 0 for none."""
    pairs = {str(pair.source): pair for pair in each_pair(data, "eval")}
    used = [pairs[row["source"]] for row in rows]
    chosen, rejected = (form_marks([_text(getattr(pair, side)) for pair in used]) for side in ("chosen", "rejected"))
    return {
        name: ((chosen >> bit) & 1).astype(np.float64) - ((rejected >> bit) & 1).astype(np.float64)
        for bit, name in enumerate(CUES)
    }


def _text(answer: Sequence[Message]) -> str:
    return "\n".join(message.content for message in answer if message.role == "assistant")
