"""How far a policy has gone from its reference on held-out pairs, measured while it trains.

The policy at step 0 is the reference (``start_checks`` has shown it). Its distribution along the held-out chosen
responses is kept then: at every position its top-k tokens with their log-probs. Later measurements need no second
model, so they work alike for adapters, full weights and distributed runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from preflow.logprobs.scored_pairs import ScoredPair
from preflow.maths.divergence import merged_kl
from preflow.maths.intervals import standard_error
from preflow.models.scoring import PromptResponse

#: Tokens kept per position. Beyond them a reference has little left: one outcome stands for all others.
_TOP_K = 512
#: Positions whose whole vocabulary is held in float32 at once.
_TILE = 128


@dataclass(frozen=True, slots=True)
class HeldOutMetrics:
    """How far the policy has gone from its reference, on held-out pairs.

    Attributes:
        kl: Nats per response: KL(policy || reference) at every position of the chosen response, over the reference's
            top-k tokens and one outcome for all others (``merged_kl``, a lower bound), summed over the response;
            mean over pairs. Chosen responses stand for what the policy says itself, which looks have no time to sample.
        chosen: Mean change of the chosen responses' log-prob, nats.
        rejected: The same of the rejected ones.
        reward_accuracy: Share of pairs whose implicit reward is higher for chosen.
        reward_margin: Mean difference of the implicit rewards.
        reward_margin_se: Its standard error over pairs; 0 for a single pair, which shows no spread.
    """

    kl: float
    chosen: float
    rejected: float
    reward_accuracy: float
    reward_margin: float
    reward_margin_se: float = 0.0

    def is_finite(self) -> bool:
        """Whether every measure is a number."""
        return all(math.isfinite(value) for value in astuple(self))


#: Per-token log-probs of pairs under the policy: shape ``(2B, T)`` with zeros where nothing counts, chosen first.
TokenScores = Callable[[Sequence[ScoredPair]], Tensor]
#: The policy's logits at the positions that predict a response of R tokens: shape ``(R, V)``.
Logits = Callable[[PromptResponse], Tensor]


class HeldOutMonitor:
    """Held-out pairs, the policy's two ways to score them, and what the reference expected of them."""

    def __init__(
        self, pairs: Sequence[ScoredPair], scores: TokenScores, logits: Logits, beta: float, batch: int
    ) -> None:
        """Look at pairs.

        Args:
            pairs: At least one.
            scores: The policy's forward. Each response's tokens stand together and in order.
            logits: The policy's forward over one response.
            beta: Of the implicit reward.
            batch: Pairs per forward.
        """
        self.pairs, self.scores, self.logits, self.beta, self.batch = pairs, scores, logits, beta, batch
        self.expected: list[tuple[Tensor, Tensor]] = []

    def snapshot_reference(self) -> None:
        """Keep what the policy expects now, while it is the reference."""
        self.expected = [_top_k(self.logits(pair.chosen)) for pair in self.pairs]

    def save(self, file: Path) -> None:
        """Write what is kept, for a training that goes on after a kill."""
        named = [(("tokens", i), ("log_probs", i)) for i in range(len(self.pairs))]
        tensors = {
            f"{name}.{i}": value
            for names, values in zip(named, self.expected, strict=True)
            for (name, i), value in zip(names, values, strict=True)
        }
        partial = file.with_suffix(".partial")
        save_file(tensors, partial)
        partial.rename(file)

    def load_snapshot(self, file: Path) -> None:
        """Read what ``save`` wrote."""
        kept = load_file(file)
        self.expected = [(kept[f"tokens.{i}"], kept[f"log_probs.{i}"]) for i in range(len(self.pairs))]

    def measure(self) -> HeldOutMetrics:
        """Compare the policy with the reference."""
        moved = [change for start in range(0, len(self.pairs), self.batch) for change in self._changes(start)]
        count = len(moved)
        margins = np.array([self.beta * (chosen - rejected) for chosen, rejected in moved])
        return HeldOutMetrics(
            kl=sum(self._divergence(i) for i in range(count)) / count,
            chosen=sum(chosen for chosen, _ in moved) / count,
            rejected=sum(rejected for _, rejected in moved) / count,
            reward_accuracy=sum(chosen > rejected for chosen, rejected in moved) / count,
            reward_margin=self.beta * sum(chosen - rejected for chosen, rejected in moved) / count,
            reward_margin_se=standard_error(margins) if count > 1 else 0.0,
        )

    def _changes(self, start: int) -> list[tuple[float, float]]:
        """By how many nats chosen and rejected of some pairs have changed."""
        chunk = self.pairs[start : start + self.batch]
        values = self.scores(chunk).cpu()
        both = []
        for row, stored in enumerate([p.ref_chosen for p in chunk] + [p.ref_rejected for p in chunk]):
            prompt = len(chunk[row % len(chunk)].prompt_ids)
            policy = values[row, prompt - 1 : prompt - 1 + len(stored)].double()
            both.append(float((policy - torch.tensor(stored).double()).sum()))
        return list(zip(both[: len(chunk)], both[len(chunk) :], strict=True))

    def _divergence(self, index: int) -> float:
        """KL along one chosen response, nats."""
        tokens, reference = self.expected[index]
        logits = self.logits(self.pairs[index].chosen)
        parts = [
            torch.log_softmax(tile.float(), -1).gather(-1, at.to(tile.device)).cpu()
            for tile, at in zip(torch.split(logits, _TILE), torch.split(tokens, _TILE), strict=True)
        ]
        return float(merged_kl(torch.cat(parts), reference).sum())


def _top_k(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The top-k tokens of every position and their log-probs, shape ``(R, k)`` each, on the CPU."""
    found = [
        torch.log_softmax(tile.float(), -1).topk(min(_TOP_K, tile.shape[-1] - 1)) for tile in torch.split(logits, _TILE)
    ]
    return torch.cat([each.indices.cpu() for each in found]), torch.cat([each.values.cpu() for each in found])
