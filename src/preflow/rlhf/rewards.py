"""Rewards of token ids under a reward model, and what they say of held-out pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from preflow.data.tokens.tokenize import TokenizedPair
from preflow.maths.clusters import Rows
from preflow.maths.intervals import Interval, share_interval
from preflow.models.precision import Precision

Rewards = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOutRewards:
    """The rewards of held-out pairs.

    Attributes:
        chosen: Of the preferred responses, shape ``(N,)``.
        rejected: Of the others, shape ``(N,)``.
    """

    chosen: Rewards
    rejected: Rewards

    def accuracy(self, clusters: Rows, confidence: float, samples: int, seed: int) -> Interval:
        """Share of pairs whose preferred response has the higher reward, pairs of one prompt resampled together.

        Equal rewards are no preference, and count as wrong.
        """
        return share_interval(self.chosen > self.rejected, clusters, confidence, samples, seed)

    def margin(self) -> float:
        """Mean difference of the rewards."""
        return float((self.chosen - self.rejected).mean())


@torch.no_grad()
def rewards(model: Any, rows: Sequence[Sequence[int]], pad_id: int, batch: int, precision: Precision) -> Rewards:
    """The reward of each row of token ids, in logits, shape ``(N,)``. The model is left in evaluation mode.

    Args:
        model: A classifier with one output whose configuration names ``pad_id`` as its pad token.
        rows: Prompt and response together, N of them, each with at least one token.
        pad_id: A token at which no response ends.
        batch: Rows per forward.
        precision: Where and in which dtype.
    """
    model.eval()
    found = np.empty(len(rows), dtype=np.float64)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))  # little padding
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        width = max(len(rows[row]) for row in part)
        ids = torch.full((len(part), width), pad_id)
        mask = torch.zeros((len(part), width), dtype=torch.long)
        for place, row in enumerate(part):
            ids[place, : len(rows[row])] = torch.tensor(rows[row])
            mask[place, : len(rows[row])] = 1
        with precision.autocast():
            logits = model(
                input_ids=ids.to(precision.device), attention_mask=mask.to(precision.device), use_cache=False
            ).logits
        found[part] = logits[:, 0].double().cpu().numpy()
    return found


def held_out_rewards(
    model: Any, pairs: Sequence[TokenizedPair], pad_id: int, batch: int, precision: Precision
) -> HeldOutRewards:
    """The rewards of both responses of each pair, end token included."""
    rows = [[*pair.prompt_ids, *response] for pair in pairs for response in (pair.chosen_ids, pair.rejected_ids)]
    found = rewards(model, rows, pad_id, batch, precision)
    return HeldOutRewards(found[::2], found[1::2])
