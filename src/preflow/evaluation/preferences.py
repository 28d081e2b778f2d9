"""Measures of a model on held-out pairs: accuracy, implicit rewards, changes against the reference."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from preflow.config import EvaluationSettings
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.maths.clusters import Rows, cluster_numbers
from preflow.maths.intervals import bootstrap_mean, share_interval
from preflow.maths.preference import implicit_reward
from preflow.maths.significance import paired_significance

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairScores:
    """Log-probs of N pairs under one model.

    Attributes:
        chosen: Summed log-prob of the better response, nats, shape ``(N,)``.
        rejected: The same for the other one, shape ``(N,)``.
        chosen_tokens: Tokens of the better response, shape ``(N,)``.
        rejected_tokens: Tokens of the other one, shape ``(N,)``.
    """

    chosen: Vector
    rejected: Vector
    chosen_tokens: Vector
    rejected_tokens: Vector

    @classmethod
    def of(cls, pairs: Sequence[ScoredPair], values: Sequence[Sequence[Sequence[float]]]) -> Self:
        """Sum per-token values of chosen and rejected in float64."""
        return cls(
            chosen=np.array([sum(chosen) for chosen, _ in values], dtype=np.float64),
            rejected=np.array([sum(rejected) for _, rejected in values], dtype=np.float64),
            chosen_tokens=np.array([len(pair.chosen_ids) for pair in pairs], dtype=np.float64),
            rejected_tokens=np.array([len(pair.rejected_ids) for pair in pairs], dtype=np.float64),
        )

    def prefers_chosen(self) -> NDArray[np.bool_]:
        """Whether chosen has the higher mean log-prob per token, shape ``(N,)``; a tie is no preference."""
        return self.chosen / self.chosen_tokens > self.rejected / self.rejected_tokens

    def rewards(self, reference: "PairScores", beta: float) -> tuple[Vector, Vector]:
        """Implicit rewards of chosen and of rejected against a reference, shape ``(N,)`` each."""
        both = ((self.chosen, reference.chosen), (self.rejected, reference.rejected))
        chosen, rejected = (
            implicit_reward(torch.from_numpy(policy), torch.from_numpy(ref), beta).numpy() for policy, ref in both
        )
        return chosen, rejected

    def length_matched(self, share: float) -> NDArray[np.bool_]:
        """Pairs whose lengths differ by at most ``share`` of the longer one, shape ``(N,)``."""
        longer = np.maximum(self.chosen_tokens, self.rejected_tokens)
        return np.abs(self.chosen_tokens - self.rejected_tokens) <= share * longer


def preference_report(
    scores: PairScores,
    reference: PairScores | None,
    beta: float,
    settings: EvaluationSettings,
    seed: int,
    clusters: Rows | None = None,
) -> dict[str, Any]:
    """One model's measures on held-out pairs, each with its interval.

    Args:
        scores: The model's log-probs.
        reference: Those of the DPO reference; given for the DPO model alone, adds rewards and changes against it.
        beta: Of the implicit rewards.
        settings: Confidence, resamples, and what counts as matched in length.
        seed: Of the bootstrap.
        clusters: ``cluster_numbers`` of the pairs' prompts, shape ``(N,)``, which are resampled with all their pairs;
            None where every pair has a prompt of its own.
    """
    right = scores.prefers_chosen()
    clusters = np.arange(right.size) if clusters is None else clusters
    matched = scores.length_matched(settings.length_match)
    report: dict[str, Any] = {"preference_accuracy": _share(right, settings, seed, clusters)}
    if matched.any():
        share = _share(right[matched], settings, seed, cluster_numbers(clusters[matched].tolist()))
        report["preference_accuracy_length_matched"] = share | {"n": int(matched.sum())}
    if reference is None:
        return report
    chosen, rejected = scores.rewards(reference, beta)
    changes = {
        "reward_margin": chosen - rejected,
        "chosen_logp_change": (scores.chosen - reference.chosen) / scores.chosen_tokens,
        "rejected_logp_change": (scores.rejected - reference.rejected) / scores.rejected_tokens,
    }
    report["reward_accuracy"] = _share(chosen > rejected, settings, seed, clusters)
    for name, values in changes.items():
        interval = bootstrap_mean(values, settings.confidence, settings.bootstrap_samples, seed, clusters)
        report[name] = interval.to_json()
    return report


def compare(
    new: PairScores, old: PairScores, settings: EvaluationSettings, seed: int, clusters: Rows | None = None
) -> dict[str, Any]:
    """Gain in preference accuracy by a paired bootstrap, both models on the same resampled prompts, and its test."""
    difference = new.prefers_chosen().astype(np.float64) - old.prefers_chosen().astype(np.float64)
    clusters = np.arange(difference.size) if clusters is None else clusters
    gain = bootstrap_mean(difference, settings.confidence, settings.bootstrap_samples, seed, clusters)
    tested = paired_significance(difference, clusters)
    return {"preference_accuracy_gain": {**gain.to_json(), **asdict(tested)}}


def _share(right: NDArray[np.bool_], settings: EvaluationSettings, seed: int, clusters: Rows) -> dict[str, float]:
    return share_interval(right, clusters, settings.confidence, settings.bootstrap_samples, seed).to_json()
