"""When two computations of the same log-probs agree: what rounding explains, and what only other weights do.

Let ``d_t`` be the difference between two computations of the log-prob of response token t, in nats. They add the same
numbers up in other orders (rows are packed or padded, kernels differ), so hidden states, logits and the logarithm of
their sum are each off by some units in the last place. How far does not depend on how likely the token is: the log-prob
of a token that the model is sure of is a small difference of large numbers, and keeps their error. No share of the
log-prob, nor of a response's sum, can be a yardstick, therefore. Nor is a sum of many tokens: PyTorch's softmax on a
CPU adds the exponentials of the vocabulary up in one running float32 sum per vector lane, which loses a little of each
small one, and so is off in the same direction at every token (1.7e-5 nats for 49,152 tokens in eight lanes): errors add
up instead of cancelling. What has a size of its own in each dtype is the difference of one token; and what tells models
apart is nats of a token too.

The rule looks at root mean squares of ``d_t``, in which signs do not cancel:

- over the tokens of *all* responses that are compared, at most ``LIMITS[dtype].all_rows``: other weights move most
  tokens, rounding moves none far, and a mean over thousands of tokens has no tail that grows with the number of rows;
- over the tokens of *each* response, at most ``LIMITS[dtype].response``: one response with wrong values would drown
  among all others. This limit is wider, since the worst of many thousand responses is no typical one.

The limits follow from measurements (``python -m bench.bench_start_checks``; figures in ``docs/start_checks.md``). In
float32, tokens of the store's forward and of the trainer's lie 2e-5 nats apart (root mean square), the worst response
3e-5; a forward in bfloat16 lies 0.06 apart, another adapter 0.3, the base 0.8. A change that moves tokens by less than
``all_rows`` is not seen here, as one changed weight or an adapter rounded to bfloat16: digests of the weights
(``preflow.dpo.weight_checks``) see it. In bfloat16 two forwards lie 0.05 apart and the base 1, so that no limit lies
ten times above the one and ten times below the other: those here lie about in the middle, and digests prove the
weights. No model here computes in float16.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Limits(NamedTuple):
    """Largest root mean square of tokens' differences, in nats, that rounding is believed to explain.

    Attributes:
        all_rows: Over the tokens of all rows together. Also the smallest change of a model that is seen for sure.
        response: Over the tokens of one response. Also the smallest change of one response that is seen for sure.
    """

    all_rows: float
    response: float


#: By dtype of the forward.
LIMITS = {
    torch.float32: Limits(5e-4, 2e-3),
    torch.bfloat16: Limits(3e-1, 1.5),
}


def token_distance(got: Tensor | Sequence[float], expected: Tensor | Sequence[float]) -> float:
    """Root mean square of the differences of one response's log-probs.

    Args:
        got: Log-probs of R tokens, at least one, in nats.
        expected: The same by another computation, shape ``(R,)``.

    Returns:
        Nats per token; NaN where a value is.
    """
    a, b = (torch.as_tensor(values, dtype=torch.float64, device="cpu") for values in (got, expected))
    if a.shape != b.shape:
        raise ValueError(f"{tuple(a.shape)} log-probs compared with {tuple(b.shape)}: expected as many of both")
    return float((a - b).square().mean().sqrt())


@dataclass(slots=True)
class Agreement:
    """How far two computations of many responses lie apart, against the limits of a dtype.

    Attributes:
        dtype: Of the forward.
        responses: Compared so far.
        tokens: Their tokens.
        squares: Sum of the tokens' squared differences.
        largest: Largest root mean square of one response; NaN counts as the largest.
    """

    dtype: torch.dtype
    responses: int = 0
    tokens: int = 0
    squares: float = 0.0
    largest: float = 0.0

    def add(self, got: Tensor | Sequence[float], expected: Tensor | Sequence[float]) -> float:
        """Compare one response more.

        Returns:
            Its ``token_distance``.
        """
        distance = token_distance(got, expected)
        self.responses += 1
        self.tokens += len(got)
        self.squares += len(got) * distance * distance
        self.largest = math.nan if math.isnan(distance) or math.isnan(self.largest) else max(self.largest, distance)
        return distance

    @property
    def overall(self) -> float:
        """Root mean square over the tokens of all responses, nats."""
        return math.sqrt(self.squares / max(1, self.tokens))

    @property
    def response_limits_used(self) -> float:
        """The largest root mean square of one response in units of its limit; NaN where a value is."""
        return self.largest / LIMITS[self.dtype].response

    @property
    def limits_used(self) -> float:
        """The larger of both root mean squares in units of its limit: at most 1 is agreement; NaN is none."""
        overall = self.overall / LIMITS[self.dtype].all_rows
        return math.nan if math.isnan(overall) else max(overall, self.response_limits_used)


def agree(
    got: Tensor | Sequence[float], expected: Tensor | Sequence[float], dtype: torch.dtype = torch.float32
) -> bool:
    """Whether two computations of one response agree, held to the stricter limit, that of all rows."""
    return token_distance(got, expected) <= LIMITS[dtype].all_rows


def sums_agree(got: float, expected: float, tokens: int, dtype: torch.dtype = torch.float32) -> bool:
    """Whether two sums of ``tokens`` log-probs agree, where those of the tokens are not at hand.

    Differences of root mean square r sum to at most ``tokens * r`` (Cauchy-Schwarz).
    """
    return abs(got - expected) <= LIMITS[dtype].all_rows * tokens
