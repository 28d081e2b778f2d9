"""Start-up checks before the first DPO step: the reference is the SFT model, and the policy starts exactly there.

A loss of ln 2 at step 0 is necessary, not sufficient: a policy that silently lost its SFT weights against a reference
that lost them too starts at ln 2 as well. So five things are shown, each with an error of its own:

1. the stored values equal an independent forward of the SFT artifact, on a sample (``StoredValueError``);
2. the SFT model differs from the base on that sample, in a two-stage run (``ForgottenSftError``);
3. something is trainable (``NothingTrainableError``);
4. it trains in the dtype in which the reference was computed (``AdapterDtypeError``);
5. in evaluation mode every row's policy log-prob equals the stored one (``PolicyMismatchError``).

Tolerances, of a response's summed log-prob, are those of ``preflow.maths.logprobs.tolerance``: 1e-5 of
max(|sum|, tokens) in float32, 4e-3 in float16, 2e-2 in bfloat16. They hold for every loss type, since all of TRL's
losses are functions of these sums (with ``ld_alpha``, of sums over parts of the same per-token values).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from preflow.maths.logprobs import tolerance
from preflow.models.adapters import keeping, trainable_parameters
from preflow.models.loading import LanguageModel
from preflow.models.out_of_memory import run_in_halving_batches
from preflow.models.precision import Precision
from preflow.models.scoring import PromptResponse
from preflow.observer import Observer

_Pair = TypeVar("_Pair")
#: Pairs whose policy log-probs are computed together.
BATCH = 8
#: How many tolerances the SFT model must differ from the base at least.
FORGOTTEN = 10.0
#: Positions whose whole vocabulary is held in float64 at once by the independent forward.
TILE = 16


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two computations of one response's log-prob lie apart.

    Attributes:
        source: File and row of the pair, and the side.
        got: Log-prob in nats.
        expected: The stored one.
        tolerances: ``|got - expected|`` in units of the tolerance.
    """

    source: str
    got: float
    expected: float
    tolerances: float


def sample(pairs: Sequence[_Pair], size: int) -> list[_Pair]:
    """``size`` pairs spread evenly over the data."""
    return [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(size, len(pairs))).astype(int)]


def responses_of(pairs: Sequence[ScoredPair]) -> Iterator[tuple[str, PromptResponse, list[float]]]:
    """Every response of every pair: where it stands, its tokens, its stored per-token log-probs."""
    for pair in pairs:
        yield f"{pair.source} chosen", pair.chosen, pair.ref_chosen
        yield f"{pair.source} rejected", pair.rejected, pair.ref_rejected


@torch.no_grad()
def independent_logprob(model: LanguageModel, row: PromptResponse, precision: Precision) -> float:
    """Log-prob of a response by the plainest way there is: its logits, a log-softmax in float64, a sum over tokens.

    No code of the scoring that it judges is used. Logits are those of the response's positions alone, which the model
    itself cuts out, and few of them are widened at a time: for a long response and a large vocabulary, all of them in
    float64 would take many times what training does.
    """
    prompt, response = row
    ids = torch.tensor([[*prompt, *response]], device=precision.device)
    mask, kept = torch.ones_like(ids), len(response) + 1
    with precision.autocast():
        given = keeping(model, kept)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **given).logits[0, -kept:-1]
    total = 0.0  # row t of the logits predicts token t of the response; the last one, cut off, predicts nothing
    for start in range(0, len(response), TILE):
        logprobs = torch.log_softmax(logits[start : start + TILE].double(), dim=-1)
        total += sum(float(logprobs[t, token]) for t, token in enumerate(response[start : start + TILE]))
    return total


def measure(pairs: Sequence[ScoredPair], score: Callable[[PromptResponse], float], dtype: torch.dtype) -> list[Gap]:
    """The gap between a model and the stored values on both sides of some pairs."""
    gaps = []
    for source, row, stored in responses_of(pairs):
        expected, got = sum(stored), score(row)
        gaps.append(Gap(source, got, expected, abs(got - expected) / tolerance(expected, len(stored), dtype)))
    return gaps


def worst(gaps: Sequence[Gap]) -> Gap:
    """The largest gap; a NaN counts as the largest."""
    return max(gaps, key=lambda gap: float("inf") if gap.tolerances != gap.tolerances else gap.tolerances)


def remedy(reference: Artifact) -> str:
    """How to remove wrong values of a reference artifact: they came from the shared store, which holds them too."""
    delete = f"delete the reference artifact ({reference.path}) and run again"
    if not reference.file(STORE_FILE).is_file():  # not made from the store
        return delete
    name = reference.load(STORE_FILE)["reference"]
    return f"remove this reference's values from the store (`preflow store prune --reference {name}`), {delete}"


def check_stored(gaps: Sequence[Gap], reference: Artifact) -> float:
    """Stored values equal an independent forward of the reference.

    Args:
        gaps: Between the stored values and that forward.
        reference: Where the stored values come from; named in the remedy.

    Returns:
        The largest gap in tolerances.

    Raises:
        StoredValueError: They do not.
    """
    gap = worst(gaps)
    if not gap.tolerances <= 1:
        raise StoredValueError(
            f"stored reference log-prob of {gap.source} is {gap.expected:.6f} nats, an independent forward of the "
            f"reference model gives {gap.got:.6f} ({gap.tolerances:.1f} times the tolerance): the stored "
            f"values are not this model's. To compute them again, {remedy(reference)}"
        )
    return gap.tolerances


def apart(sft: Sequence[Gap], base: Sequence[Gap]) -> list[Gap]:
    """How far the base model lies from the SFT model, both by the independent forward.

    Equal weights give equal bits by equal kernels in any dtype, so the measure is float32's tolerance.

    Args:
        sft: The SFT model's gaps from the stored values.
        base: The base model's, on the same responses.
    """
    return [
        Gap(b.source, b.got, s.got, abs(b.got - s.got) / tolerance(s.got, 1)) for s, b in zip(sft, base, strict=True)
    ]


def check_not_forgotten(gaps: Sequence[Gap]) -> float:
    """The SFT model is not the base model.

    Args:
        gaps: Between the base model and the SFT model, from ``apart``.

    Returns:
        The largest gap in tolerances.

    Raises:
        ForgottenSftError: No response tells them apart.
    """
    gap = worst(gaps)
    if not gap.tolerances > FORGOTTEN:
        raise ForgottenSftError(
            f"the reference equals the base model on all {len(gaps)} responses probed (at most {gap.tolerances:.2f} "
            f"tolerances at {gap.source}, expected more than {FORGOTTEN:g}): the SFT weights were lost on loading, or "
            "SFT did not train. Check the SFT loss, and that PeftModel.from_pretrained loads its adapter"
        )
    return gap.tolerances


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


PolicyForward = Callable[[Sequence[ScoredPair]], tuple[Sequence[float], Sequence[float]]]


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
        forward: The trainer's own forward, in evaluation mode: pairs to their sums for chosen and for rejected, nats.
        dtype: Of the forward; decides the tolerance.
        batch: Pairs per forward; half as many once out of memory, unless several ranks run them together.
        observer: Receives progress.
        reference: Where the stored values come from; named in the remedy.

    Returns:
        The largest gap in tolerances.

    Raises:
        PolicyMismatchError: A row differs; names it.
    """
    table = PairTable.of(pairs)
    responses = np.maximum(table.lengths("chosen_ids"), table.lengths("rejected_ids"))
    ordered = np.argsort(table.lengths("prompt_ids") + responses, kind="stable").tolist()

    def gaps(rows: Sequence[int]) -> list[Gap]:
        chunk = [table[row] for row in rows]
        values = iter([value for both in zip(*forward(chunk), strict=True) for value in both])
        return measure(chunk, lambda row: next(values), dtype)

    largest, done = 0.0, 0
    batches = run_in_halving_batches(
        ordered, batch, gaps,
        lambda tried, size: observer.note(f"dpo: out of memory proving {tried} pairs at once; trying {size}"),
        may=not distributed.is_distributed(),
    )  # fmt: skip
    for rows, found in batches:
        gap = worst(found)
        if not gap.tolerances <= 1:
            raise PolicyMismatchError(
                f"the policy's log-prob of {gap.source} at step 0 is {gap.got:.6f} nats, the stored reference says "
                f"{gap.expected:.6f} ({gap.tolerances:.1f} times the tolerance): the policy does not start from the "
                f"reference, mostly because the SFT adapter was overwritten by a new one. Start DPO from the SFT "
                f"artifact itself; if it does, {remedy(reference)}"
            )
        largest = max(largest, gap.tolerances)
        done += len(rows)
        observer.progress(done, len(ordered), "dpo: pairs proven to start at the reference")
    return largest
