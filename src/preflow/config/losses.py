"""The losses of the DPO stage: TRL's names, and what each of them goes with.

A new loss of TRL's is a new row here; the schema and the checks of ``DpoSettings`` follow from the table.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True, slots=True)
class Loss:
    """What one of TRL's losses goes with.

    Attributes:
        divergences: Whether TRL 1.16 defines it for every f-divergence, or for ``reverse_kl`` alone.
        per_pair: Whether a pair's value is independent of the other pairs in its forward.
        smoothing: Whether it uses ``label_smoothing``.
        token_mean: Whether it is a mean over the tokens of a forward, which depends on how a step is divided.
        unweighted: Why TRL 1.16 cannot weight it pair by pair (WPO); none where it can.
    """

    divergences: bool = False
    per_pair: bool = True
    smoothing: bool = False
    token_mean: bool = False
    unweighted: str | None = None


_SORTED = "which compares sorted batches and has no weight per pair"
_IN_PLACE = "whose values TRL 1.16 changes in place before their gradient is taken"
_TOKENS = "a mean over the tokens of a batch, which has no weight per pair"

LOSSES = {
    "sigmoid": Loss(divergences=True),
    "hinge": Loss(divergences=True, unweighted=_IN_PLACE),
    "ipo": Loss(divergences=True),
    "exo_pair": Loss(divergences=True, smoothing=True),
    "nca_pair": Loss(),
    "robust": Loss(divergences=True, smoothing=True),
    "bco_pair": Loss(),
    "sppo_hard": Loss(),
    "aot": Loss(per_pair=False, smoothing=True, unweighted=_SORTED),
    "aot_unpaired": Loss(per_pair=False, smoothing=True, unweighted=_SORTED),
    "apo_zero": Loss(),
    "apo_down": Loss(),
    "discopop": Loss(divergences=True),
    "sft": Loss(divergences=True, per_pair=False, token_mean=True, unweighted=_TOKENS),
    "sigmoid_norm": Loss(divergences=True),
}

if TYPE_CHECKING:
    LossType = str
else:
    LossType = Literal[tuple(LOSSES)]
