"""Start-up checks before the first DPO step: the reference is the SFT model, and the policy starts exactly there.

A loss of ln 2 at step 0 is necessary, not sufficient: a policy that silently lost its SFT weights against a reference
that lost them too starts at ln 2 as well. So five things are shown, each with an error of its own:

1. the stored values equal an independent forward of the SFT artifact, on a sample (``StoredValueError``);
2. the SFT model differs from the base on that sample, in a two-stage run (``ForgottenSftError``);
3. something is trainable (``NothingTrainableError``);
4. it trains in the dtype in which the reference was computed (``AdapterDtypeError``);
5. in evaluation mode every row's policy log-prob equals the stored one (``PolicyMismatchError``).

Log-probs are compared token by token, and judged by the rule of ``preflow.maths.agreement``. It holds for every loss
type, since all of TRL's losses are functions of sums of these values (with ``ld_alpha``, of sums over parts of them).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from preflow import distributed
from preflow.artifacts import Artifact
from preflow.errors import (
    AdapterDtypeError,
    ForgottenSftError,
    NothingTrainableError,
    PolicyMismatchError,
    StoredValueError,
)
from preflow.logprobs.scored_pairs import PairTable, ScoredPair
from preflow.logprobs.store import STORE_FILE
from preflow.maths.agreement import LIMITS, Agreement
from preflow.models.adapters import keeping, trainable_parameters
from preflow.models.loading import LanguageModel
from preflow.models.out_of_memory import run_in_halving_batches
from preflow.models.precision import Precision
from preflow.models.scoring import PromptResponse
from preflow.observer import Observer

_Pair = TypeVar("_Pair")
#: Pairs whose policy log-probs are computed together.
BATCH = 8
#: How far the SFT model must lie from the base at least, root mean square in nats per token.
FORGOTTEN = 1e-4
#: Positions whose whole vocabulary is held in float64 at once by the independent forward.
TILE = 16


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two computations of one response's log-prob lie apart.

    Attributes:
        source: File and row of the pair, and the side.
        got: Log-prob in nats, summed over the response's tokens.
        expected: The stored one.
        distance: Root mean square of the tokens' differences, nats.
    """

    source: str
    got: float
    expected: float
    distance: float


@dataclass(slots=True)
class Comparison:
    """Stored values of many responses against another computation.

    Attributes:
        agreement: How far they lie apart.
        worst: The response with the largest distance; one with a NaN counts as the worst.
    """

    agreement: Agreement
    worst: Gap = field(default=Gap("", 0.0, 0.0, -1.0))

    def add(self, source: str, got: torch.Tensor, expected: Sequence[float]) -> None:
        """Compare the log-probs of one response's tokens."""
        distance = self.agreement.add(got, expected)
        if not distance <= self.worst.distance and self.worst.distance == self.worst.distance:
            self.worst = Gap(source, float(got.double().sum()), sum(expected), distance)

    @property
    def limits_used(self) -> float:
        """The largest distance in units of its limit: at most 1 where both agree."""
        return self.agreement.limits_used

    def explained(self) -> str:
        """Both distances beside their limits, for a message."""
        limits = LIMITS[self.agreement.dtype]
        return (
            f"tokens of this response are {self.worst.distance:.2g} nats apart (limit {limits.response:g}), those of "
            f"all {self.agreement.responses} responses {self.agreement.overall:.2g} (limit {limits.all_rows:g})"
        )


def sample(pairs: Sequence[_Pair], size: int) -> list[_Pair]:
    """``size`` pairs spread evenly over the data."""
    return [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(size, len(pairs))).astype(int)]


def responses_of(pairs: Sequence[ScoredPair]) -> Iterator[tuple[str, PromptResponse, list[float]]]:
    """Every response of every pair: where it stands, its tokens, its stored per-token log-probs."""
    for pair in pairs:
        yield f"{pair.source} chosen", pair.chosen, pair.ref_chosen
        yield f"{pair.source} rejected", pair.rejected, pair.ref_rejected


@torch.no_grad()
def independent_logprobs(model: LanguageModel, row: PromptResponse, precision: Precision) -> torch.Tensor:
    """Log-probs of a response's tokens by the plainest way there is: its logits, and a log-softmax in float64.

    No code of the scoring that it judges is used. Logits are those of the response's positions alone, which the model
    itself cuts out, and few of them are widened at a time: for a long response and a large vocabulary, all of them in
    float64 would take many times what training does.

    Returns:
        Shape ``(R,)``, nats, float64, on the CPU.
    """
    prompt, response = row
    ids = torch.tensor([[*prompt, *response]], device=precision.device)
    mask, kept = torch.ones_like(ids), len(response) + 1
    with precision.autocast():
        given = keeping(model, kept)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **given).logits[0, -kept:-1]
    values: list[float] = []  # row t of the logits predicts token t of the response; the last one predicts nothing
    for start in range(0, len(response), TILE):
        logprobs = torch.log_softmax(logits[start : start + TILE].double(), dim=-1)
        values += [float(logprobs[t, token]) for t, token in enumerate(response[start : start + TILE])]
    return torch.tensor(values, dtype=torch.float64)


def measure(
    pairs: Sequence[ScoredPair], score: Callable[[PromptResponse], torch.Tensor], dtype: torch.dtype
) -> Comparison:
    """How far a model's log-probs of both responses of some pairs lie from the stored values."""
    comparison = Comparison(Agreement(dtype))
    for source, row, stored in responses_of(pairs):
        comparison.add(source, score(row), stored)
    return comparison


def remedy(reference: Artifact) -> str:
    """How to remove wrong values of a reference artifact: they came from the shared store, which holds them too."""
    delete = f"delete the reference artifact ({reference.path}) and run again"
    if not reference.file(STORE_FILE).is_file():  # not made from the store
        return delete
    name = reference.load(STORE_FILE)["reference"]
    return f"remove this reference's values from the store (`preflow store prune --reference {name}`), {delete}"


def check_stored(comparison: Comparison, reference: Artifact) -> float:
    """Stored values equal an independent forward of the reference.

    Args:
        comparison: Of the stored values with that forward.
        reference: Where the stored values come from; named in the remedy.

    Returns:
        The largest distance in units of its limit.

    Raises:
        StoredValueError: They do not.
    """
    used, worst = comparison.limits_used, comparison.worst
    if not used <= 1:
        raise StoredValueError(
            f"stored reference log-prob of {worst.source} is {worst.expected:.6f} nats, an independent forward of the "
            f"reference model gives {worst.got:.6f}: {comparison.explained()}, so the stored values are not this "
            f"model's. To compute them again, {remedy(reference)}"
        )
    return used


def check_not_forgotten(sft: Sequence[torch.Tensor], base: Sequence[torch.Tensor]) -> float:
    """The SFT model is not the base model.

    Both are scored here, by the same forward, one response at a time: equal weights give equal bits in any dtype, so
    that this limit is far below those of ``preflow.maths.agreement``.

    Args:
        sft: The SFT model's log-probs of the tokens of some responses, by the independent forward.
        base: The base model's.

    Returns:
        Root mean square of their differences, nats per token.

    Raises:
        ForgottenSftError: Nothing tells them apart.
    """
    agreement = Agreement(torch.float32)
    for one, other in zip(sft, base, strict=True):
        agreement.add(one, other)
    if not agreement.overall > FORGOTTEN:
        raise ForgottenSftError(
            f"the reference equals the base model on all {len(base)} responses probed (their tokens are "
            f"{agreement.overall:.1g} nats apart, expected more than {FORGOTTEN:g}): the SFT weights were lost on "
            "loading, or SFT did not train. Check the SFT loss, and that PeftModel.from_pretrained loads its adapter"
        )
    return agreement.overall


def check_trainable(model: torch.nn.Module) -> int:
    """Something would be trained.

    Returns:
        How many numbers train.

    Raises:
        NothingTrainableError: Nothing.
    """
    count = sum(parameter.numel() for parameter in trainable_parameters(model).values())
    if count == 0:
        raise NothingTrainableError(
            "no parameter of the policy takes gradients: the adapter was loaded for inference. Load it with "
            "PeftModel.from_pretrained(..., is_trainable=True)"
        )
    return count


def adapter_dtypes(model: torch.nn.Module) -> dict[str, torch.dtype]:
    """The dtype of every trainable parameter, by name."""
    return {name: parameter.dtype for name, parameter in trainable_parameters(model).items()}


def check_dtypes(policy: torch.nn.Module, reference: Mapping[str, torch.dtype]) -> None:
    """The policy trains in the dtypes in which the reference was computed: no gap opens at step 0.

    Args:
        policy: The model that the trainer holds.
        reference: ``adapter_dtypes`` of the model as it was loaded, which is how the reference was loaded.

    Raises:
        AdapterDtypeError: A parameter's dtype differs.
    """
    for name, dtype in adapter_dtypes(policy).items():
        expected = reference.get(name, dtype)
        if dtype != expected:
            raise AdapterDtypeError(
                f"trainable parameter {name} is {dtype}, the reference was computed with {expected}: policy and "
                "reference would differ before the first step. Make the trainer within preserve_trainable_weights"
            )


PolicyForward = Callable[[Sequence[ScoredPair]], Sequence[tuple[torch.Tensor, torch.Tensor]]]


def check_policy(
    pairs: Sequence[ScoredPair],
    forward: PolicyForward,
    dtype: torch.dtype,
    batch: int,
    observer: Observer,
    reference: Artifact,
) -> float:
    """In evaluation mode the policy gives every row its stored log-probs, so every loss starts where it should.

    Args:
        pairs: All training pairs.
        forward: The trainer's own forward, in evaluation mode: pairs to log-probs of the tokens of chosen and rejected.
        dtype: Of the forward; decides the limits.
        batch: Pairs per forward; half as many once out of memory, unless several ranks run them together.
        observer: Receives progress.
        reference: Where the stored values come from; named in the remedy.

    Returns:
        The largest distance in units of its limit.

    Raises:
        PolicyMismatchError: A response differs, or all of them together do; names the one that differs most.
    """
    table, comparison = PairTable.of(pairs), Comparison(Agreement(dtype))
    responses = np.maximum(table.lengths("chosen_ids"), table.lengths("rejected_ids"))
    ordered = np.argsort(table.lengths("prompt_ids") + responses, kind="stable").tolist()

    def scored(rows: Sequence[int]) -> list[tuple[str, torch.Tensor, list[float]]]:
        chunk = [table[row] for row in rows]
        values = (value for both in forward(chunk) for value in both)
        return [(source, value, stored) for (source, _, stored), value in zip(responses_of(chunk), values, strict=True)]

    done = 0
    batches = run_in_halving_batches(
        ordered, batch, scored,
        lambda tried, size: observer.note(f"dpo: out of memory proving {tried} pairs at once; trying {size}"),
        may=not distributed.is_distributed(),
    )  # fmt: skip
    for rows, found in batches:
        for one in found:
            comparison.add(*one)
        if not comparison.agreement.response_limits_used <= 1:
            break  # no later row can make up for that
        done += len(rows)
        observer.progress(done, len(ordered), "dpo: pairs proven to start at the reference")
    if not comparison.limits_used <= 1:
        worst = comparison.worst
        raise PolicyMismatchError(
            f"the policy's log-prob of {worst.source} at step 0 is {worst.got:.6f} nats, the stored reference says "
            f"{worst.expected:.6f}: {comparison.explained()}, so the policy does not start from the reference, mostly "
            f"because the SFT adapter was overwritten by a new one. Start DPO from the SFT artifact itself; if it "
            f"does, {remedy(reference)}"
        )
    return comparison.limits_used
