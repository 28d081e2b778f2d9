"""Before the first step of RLOO: policy and reference are one model, the one whose log-probs are stored."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from preflow.artifacts import Artifact
from preflow.dpo.start_checks import Comparison, check_trainable, independent_logprobs, measure, remedy
from preflow.errors import PolicyMismatchError, WrongReferenceError
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.models.loading import LanguageModel
from preflow.models.precision import Precision
from preflow.rlhf.rloo_trainer import TokenRlooTrainer

#: TRL's copy of the adapter that training starts from.
_COPY = "ref"


def prove_start(
    trainer: TokenRlooTrainer, sample: Sequence[ScoredPair], precision: Precision, reference: Artifact
) -> dict[str, float]:
    """Compare policy and reference, as the trainer holds them, with the stored log-probs of some pairs.

    Args:
        trainer: Ready, before its first step.
        sample: Pairs with stored values.
        precision: Where and in which dtype.
        reference: Where the stored values come from; named in a remedy.

    Returns:
        The largest distance of each from the stored values in units of its limit, and how many numbers train.

    Raises:
        NothingTrainableError: Nothing would be trained.
        PolicyMismatchError: The policy at step 0 is not the model whose log-probs are stored.
        WrongReferenceError: The reference that TRL made is not.
    """
    policy: LanguageModel = trainer.model
    trainable = check_trainable(policy)
    found = _compared(policy, sample, precision)
    if not found.limits_used <= 1:
        raise PolicyMismatchError(
            f"the policy's log-prob of {found.worst.source} at step 0 is {found.worst.got:.6f} nats, the stored "
            f"reference says {found.worst.expected:.6f}: {found.explained()}. Start RLOO from the SFT artifact itself; "
            f"if it does, {remedy(reference)}"
        )
    with _as_reference(trainer) as model:
        held = _compared(model, sample, precision)
    if not held.limits_used <= 1:
        raise WrongReferenceError(
            f"the reference of RLOO gives {held.worst.source} {held.worst.got:.6f} nats, the model that training "
            f"starts from {held.worst.expected:.6f}: {held.explained()}, as where TRL loads full weights that were "
            "changed in memory again from their old place. Save the model first, and start from what was saved"
        )
    return {"policy_gap": found.limits_used, "reference_gap": held.limits_used, "trainable": float(trainable)}


def _compared(model: LanguageModel, sample: Sequence[ScoredPair], precision: Precision) -> Comparison:
    training = model.training
    model.eval()
    found = measure(sample, lambda row: independent_logprobs(model, row, precision), precision.compute)
    model.train(training)
    return found


@contextmanager
def _as_reference(trainer: TokenRlooTrainer) -> Iterator[Any]:
    """The reference as TRL uses it in a step: a second model, or the policy with the copy of its adapter."""
    from trl.trainer.utils import use_adapter

    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    policy: LanguageModel = trainer.model
    with use_adapter(policy, adapter_name=_COPY if _COPY in policy.peft_config else None):
        yield policy


def drop_copy(policy: LanguageModel) -> None:
    """Remove TRL's copy of the adapter from a trained policy, so that it is not saved."""
    if _COPY in getattr(policy, "peft_config", {}):
        policy.delete_adapter(_COPY)
