"""TRL's metrics of a step that went in several forwards, or in processes with unequal shares of its rows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from preflow import distributed
from preflow.models.packed.layout import IGNORED
from preflow.training.trl_trainer import TrlTrainer

#: Over what TRL 1.16 averages a metric within one forward; whatever is not named here, over rows.
_OVER = {"entropy": "tokens", "mean_token_accuracy": "chosen", "logits/chosen": "chosen", "logits/rejected": "rejected"}
_COUNT = "num_tokens"


def weights_of(batch: Mapping[str, Any], rows: int) -> dict[str, int]:
    """Over how many things TRL averages the metrics of a forward.

    Args:
        batch: As the collator gives it: pairs, chosen ones first, or demonstrations.
        rows: That count in it; none where it only keeps this process in step with the others.

    Returns:
        How many ``rows``, ``chosen`` and ``rejected`` response tokens (of demonstrations: ``chosen``), and ``tokens``.
    """
    if not rows:
        return dict.fromkeys(("rows", "chosen", "rejected", "tokens"), 0)
    if "completion_mask" in batch:
        chosen, rejected = (int(side.sum()) for side in batch["completion_mask"][:, 1:].chunk(2))
    else:
        chosen, rejected = int((batch["labels"][:, 1:] != IGNORED).sum()), 0
    return {"rows": rows, "chosen": chosen, "rejected": rejected, "tokens": chosen + rejected}


@contextmanager
def weighted_step_metrics(trainer: TrlTrainer, weights: list[dict[str, int]]) -> Iterator[None]:
    """Log what one forward over all rows would have: TRL averages forwards as if all were equally large.

    Within, TRL's metrics are those of this rank alone: it calls ``accelerator.gather`` and ``gather_for_metrics`` in
    every forward (TRL 1.16: ``dpo_trainer.py`` lines 1533 to 1601, ``sft_trainer.py`` lines 1640 to 1663), which needs
    as many rows on each rank, so both methods are covered by ``_alone`` on this accelerator and uncovered at the end.
    Then the values that TRL appended to ``_metrics["train"]`` are averaged over forwards and ranks, each weighted by
    what it is a mean of.

    Args:
        trainer: TRL's.
        weights: Of every forward within, added by the caller in their order.
    """
    seen, accelerator = trainer._metrics["train"], trainer.accelerator
    before, tokens = {name: len(values) for name, values in seen.items()}, trainer._total_train_tokens
    covered: Any = accelerator  # a method is covered by an attribute of the object, which a type checker refuses
    covered.gather = covered.gather_for_metrics = _alone
    try:
        yield
    finally:
        del covered.gather, covered.gather_for_metrics
    sums: dict[str, tuple[float, float]] = {}
    for name, values in seen.items():
        if name == _COUNT:  # a running count
            continue
        start, over = before.get(name, 0), _OVER.get(name, "rows")
        counted = [(each[over], value) for each, value in zip(weights, values[start:], strict=True) if each[over]]
        sums[name] = sum(weight * value for weight, value in counted), sum(weight for weight, _ in counted)
        del values[start:]
    everywhere = distributed.all_gather_objects((sums, trainer._total_train_tokens - tokens))
    for name in sums:
        total, weight = (sum(each[name][place] for each, _ in everywhere) for place in (0, 1))
        seen[name].append(total / weight if weight else 0.0)  # as TRL where there is nothing to average
    trainer._total_train_tokens = tokens + sum(added for _, added in everywhere)
    seen[_COUNT] = [trainer._total_train_tokens]


def _alone(tensor: Any) -> Any:
    return tensor
