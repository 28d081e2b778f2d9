"""Scored pairs: token ids and reference log-probs in one table, so that what is scored is what is trained on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from preflow.maths.logprobs import length_desensitised
from preflow.models.scoring import Group, Row


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """One pair as the model sees it, with the reference's per-token log-probs.

    Attributes:
        prompt_ids: P token ids.
        chosen_ids: C token ids of the better response, its end-of-turn token included.
        rejected_ids: R token ids of the other one.
        ref_chosen: C log-probs in nats under the reference.
        ref_rejected: R log-probs in nats under the reference.
        source: File and row that the pair came from.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    ref_chosen: list[float]
    ref_rejected: list[float]
    source: str

    @property
    def chosen(self) -> Row:
        """Prompt and better response."""
        return self.prompt_ids, self.chosen_ids

    @property
    def rejected(self) -> Row:
        """Prompt and other response."""
        return self.prompt_ids, self.rejected_ids

    @property
    def group(self) -> Group:
        """Prompt with both responses, as they are scored together."""
        return self.prompt_ids, (self.chosen_ids, self.rejected_ids)

    def reference_scores(self, ld_alpha: float | None = None) -> tuple[float, float]:
        """The reference's log-prob of chosen and of rejected, summed in float64, or LD-DPO's weighted sums."""
        shared = min(len(self.chosen_ids), len(self.rejected_ids))
        alpha = 1.0 if ld_alpha is None else ld_alpha
        chosen, rejected = (
            float(length_desensitised(torch.tensor(values), shared, alpha))
            for values in (self.ref_chosen, self.ref_rejected)
        )
        return chosen, rejected


_SCHEMA = pa.schema(
    [(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    + [(name, pa.list_(pa.float32())) for name in ("ref_chosen", "ref_rejected")]
    + [("source", pa.string())]
)


def write_pairs(path: Path, pairs: Iterable[ScoredPair]) -> None:
    """Write scored pairs as Parquet, the same bytes for the same pairs."""
    rows = [{name: getattr(pair, name) for name in _SCHEMA.names} for pair in pairs]
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), path)


def read_pairs(path: Path) -> list[ScoredPair]:
    """Read what ``write_pairs`` wrote."""
    return [ScoredPair(**row) for row in pq.read_table(path, schema=_SCHEMA).to_pylist()]
