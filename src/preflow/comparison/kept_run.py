"""What a finished run's evaluation kept, as far as a comparison reads it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from preflow.artifacts import Artifact
from preflow.fingerprints.files import json_digest
from preflow.maths.paired import RowScores

#: The models of a run in the order in which they are made; the last that there is is the run's result.
_MODELS = ("base", "sft", "dpo")


@dataclass(frozen=True, slots=True)
class KeptRun:
    """One finished run.

    Attributes:
        run_id: MLflow's id of the pipeline run.
        name: Its name, for people.
        settings: Every setting of its recipe by dotted name, as text.
        evaluation: The contents of ``evaluation.json``.
        pairs: Those of ``pairs.json``.
        answers: Those of its result's table of answers; empty where none were kept.
        judge: The contents of ``judge.json``; none where no judge was asked.
        benchmarks: Those of ``benchmarks.json``; none where the recipe names none.
        later: Human reviews and decisions on its model in sentences, oldest first.
    """

    run_id: str
    name: str
    settings: dict[str, str]
    evaluation: dict[str, Any]
    pairs: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    judge: dict[str, Any] | None = None
    benchmarks: dict[str, Any] | None = None
    later: tuple[str, ...] = ()

    @classmethod
    def of(cls, run_id: str, name: str, recipe: dict[str, Any], artifact: Artifact) -> Self:
        """Read what a comparison needs of the artifact of a run's evaluation."""
        evaluation = artifact.load("evaluation.json")
        answers = artifact.file("answers") / f"{result_of(evaluation)}.json"
        kept = artifact.load(f"answers/{answers.name}") if answers.is_file() else []
        return cls(run_id, name, flat(recipe), evaluation, artifact.load("pairs.json"), kept)

    @property
    def measures(self) -> dict[str, Any]:
        """The measures of the run's result, by name."""
        found: dict[str, Any] = self.evaluation["models"][result_of(self.evaluation)]
        return found

    @property
    def judged(self) -> dict[str, Any] | None:
        """Who judged, how it agrees with people, and the win rates or why there are none; none without a judge."""
        if self.judge is None:
            return None
        of, test = self.judge["judge"], self.judge["test"]
        new, old = self.judge["models"]
        return {
            "judge": f"{of['kind']} {of.get('model', '')}".strip(),
            "fit": test["fit"],
            "accuracy": test["accuracy"],
            "pairs": test["pairs"],
            "of": f"{new} over {old}",
            "win_rate": self.judge.get("win_rate"),
            "win_rate_lc": self.judge.get("win_rate_lc"),
            "reason": test["reason"] or self.judge.get("reason") or self.judge.get("win_rate_lc_reason", ""),
        }

    @property
    def held_out_digest(self) -> str:
        """Digest of the held-out rows' content ids, whatever their order."""
        return json_digest(sorted({row["id"] for row in self.pairs}))

    def preference_scores(self) -> RowScores:
        """Per held-out pair 1 where the run's result prefers chosen, else 0."""
        return preference_scores(self.pairs, result_of(self.evaluation))


def preference_scores(pairs: list[dict[str, Any]], model: str) -> RowScores:
    """Per row of ``pairs.json`` 1 where a model gives chosen the higher mean log-prob per token, else 0.

    Args:
        pairs: The rows.
        model: ``base``, ``sft`` or ``dpo``.
    """
    mean = {
        side: np.array([row[f"{side}_logprob_{model}"] / row[f"{side}_tokens"] for row in pairs], dtype=np.float64)
        for side in ("chosen", "rejected")
    }
    prefers = (mean["chosen"] > mean["rejected"]).astype(np.float64)
    return RowScores([row["id"] for row in pairs], [row["cluster"] for row in pairs], prefers)


def result_of(evaluation: dict[str, Any]) -> str:
    """The model that a run ends with."""
    return [name for name in _MODELS if name in evaluation["models"]][-1]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings by dotted name, as text."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = _text(value)
    return found


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def differing(runs: Iterable[KeptRun]) -> list[str]:
    """Names of the settings that are not the same in all runs."""
    every = [run.settings for run in runs]
    names = sorted(set().union(*every))
    return [name for name in names if len({settings.get(name, "none") for settings in every}) > 1]
