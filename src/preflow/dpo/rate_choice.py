"""Which learning rate a range test chooses: the largest within a KL budget that still improves held-out margins."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from preflow.config.training import DpoSettings

#: Rates that are tried where a recipe names none.
LORA_RATES = (5e-6, 2e-5, 5e-5, 1e-4, 2e-4)
FULL_RATES = (1e-7, 5e-7, 1e-6, 2e-6, 5e-6)
#: KL grows with the summed learning rate to this power: 1 for a random walk, 2 for steps in one direction. From the
#: first 40 steps to the last of three trainings of SmolLM2-135M (13 to 33 to 69 steps' worth of the full rate), 1.5
#: predicts 1.25, 0.64 and 0.55 nats where 1.09, 0.65 and 0.77 were measured.
GROWTH = 1.5
#: Share of the full rate that a schedule spends on average after warm-up.
_MEAN_RATE = {"linear": 0.5, "cosine": 0.5, "constant_with_warmup": 1.0}
#: Warm-up of the range test itself.
WARMUP = 0.1


@dataclass(frozen=True, slots=True)
class TriedRate:
    """What training at one rate came to.

    Attributes:
        rate: The learning rate.
        kl: KL from the reference along the chosen responses that were kept aside, nats per response; none where
            training broke down.
        margin: Mean reward margin of the pairs that were kept aside.
        margin_se: Its standard error.
        accuracy: Reward accuracy on them.
        whole_kl: The KL that the whole training is expected to reach at this rate; none as ``kl``.
    """

    rate: float
    kl: float | None = None
    margin: float = 0.0
    margin_se: float = 0.0
    accuracy: float = 0.0
    whole_kl: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def tried_rates(settings: DpoSettings, tuning: str) -> list[float]:
    """The rates to try, the lowest first."""
    return sorted(settings.range_test_rates or (FULL_RATES if tuning == "full" else LORA_RATES))


def whole_steps(settings: DpoSettings, pairs: int) -> float:
    """Optimizer steps of the whole training."""
    if settings.max_steps > 0:
        return float(settings.max_steps)
    per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    return max(1.0, settings.num_train_epochs * pairs / per_step)


def whole_kl(kl: float, settings: DpoSettings, pairs: int) -> float:
    """The KL that the whole training is expected to reach, from that of the range test at the same peak rate.

    Args:
        kl: After ``range_test_steps`` at a constant rate behind a warm-up.
        settings: Schedule and length of the training.
        pairs: Its training pairs.
    """
    if settings.lr_scheduler_type == "constant":
        share = 1.0
    else:
        warmup = settings.warmup_ratio
        share = warmup / 2 + (1 - warmup) * _MEAN_RATE[settings.lr_scheduler_type]
    spent = settings.range_test_steps * (1 - WARMUP / 2)
    return float(kl * (whole_steps(settings, pairs) * share / spent) ** GROWTH)


def choose_rate(tried: Sequence[TriedRate], budget: float) -> tuple[float, str]:
    """The chosen rate, and why.

    Of the rates within the budget, the largest whose margin is above its standard error and above that of every
    smaller one. Where no margin is: the largest at which the margin did not fall either, or the one at which it fell
    least. Where every rate exceeds the budget, a smaller one than all that were tried, by the law of growth.

    Args:
        tried: At least one, the lowest rate first.
        budget: Most KL that the whole training may reach, nats per response.
    """
    within = [each for each in tried if each.whole_kl is not None and each.whole_kl <= budget]
    if not within:
        return _below(tried[0], budget)
    best, chosen = 0.0, None
    for each in within:
        if each.margin > best and each.margin > each.margin_se:
            best, chosen = each.margin, each
    if chosen is not None:
        return chosen.rate, f"the largest within a KL of {budget:g} at which the margin still rose"
    unmoved = [each for each in within if each.margin >= -each.margin_se]
    if unmoved:
        why = "no rate moved the margins by more than their standard error"
        return unmoved[-1].rate, f"{why}; it is the largest within a KL of {budget:g}"
    least = max(within, key=lambda each: each.margin)
    why = "every rate lowered the margins of pairs that were kept aside: what was learnt does not carry over to them"
    return least.rate, f"{why}; it is the one that lowered them least"


def _below(lowest: TriedRate, budget: float) -> tuple[float, str]:
    """A rate below all that were tried."""
    if lowest.whole_kl is None:
        return float(f"{lowest.rate / 10:.2g}"), f"training broke down at {lowest.rate:g}, the lowest that was tried"
    rate = float(f"{lowest.rate * (budget / lowest.whole_kl) ** 0.5:.2g}")
    return rate, f"every rate that was tried would exceed the KL budget of {budget:g}; KL grows with its square"
