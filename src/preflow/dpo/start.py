"""What DPO starts from: the policy at step 0, and stored reference log-probs that are checked against it."""

import json
from collections.abc import Sequence

import torch

from preflow.artifacts import CARD
from preflow.config.training import DpoSettings
from preflow.dpo import start_checks
from preflow.dpo.weight_checks import check_identity, weight_digests
from preflow.errors import DpoCheckpointError
from preflow.logprobs.identity import identify
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.models.adapters import new_adapter
from preflow.models.loading import LanguageModel, load_policy
from preflow.models.precision import Precision
from preflow.models.resolve import refuse_dpo_checkpoint
from preflow.specs import DpoSpec


def load_start(spec: DpoSpec, settings: DpoSettings, precision: Precision) -> LanguageModel:
    """The policy at step 0: the SFT artifact going on, or the named model with a fresh adapter."""
    trained = spec.sft.file("model") if spec.sft is not None else None
    if trained is not None:
        refuse_dpo_checkpoint(trained)
        card = trained / CARD
        if card.is_file() and json.loads(card.read_text(encoding="utf-8"))["stage"] == "dpo":
            raise DpoCheckpointError(
                f"{trained} was made by a DPO stage, expected the SFT stage's model: DPO would measure itself against "
                "an aligned model. To align it further on purpose, name it as model_name of a recipe with strategy: dpo"
            )
    model = load_policy(spec.base, trained, spec.recipe, precision, trainable=True)
    if spec.recipe.tuning == "lora" and trained is None and spec.base.adapter is None:
        model = new_adapter(model, settings, spec.recipe.seed)
    return model


def prove_reference(
    spec: DpoSpec, settings: DpoSettings, pairs: Sequence[ScoredPair], precision: Precision
) -> tuple[dict[str, float], dict[str, str]]:
    """Check the stored values: their model by digest, a sample by an independent forward; and SFT against the base.

    Returns:
        What was measured, and ``weight_digests`` of the reference as it was loaded.
    """
    probe = start_checks.sample(pairs, settings.proof_sample)
    trained = spec.sft.file("model") if spec.sft is not None else None
    check_identity(spec.reference, identify(spec.base, trained, spec.recipe, precision), precision.label())

    def scores(model: LanguageModel) -> list[torch.Tensor]:
        return [
            start_checks.independent_logprobs(model, row, precision) for _, row, _ in start_checks.responses_of(probe)
        ]

    model = load_policy(spec.base, trained, spec.recipe, precision)
    digests, reference = weight_digests(model), scores(model)
    del model  # one is held at a time
    values = iter(reference)
    comparison = start_checks.measure(probe, lambda row: next(values), precision.compute)
    evidence = {"stored_gap": start_checks.check_stored(comparison, spec.reference)}
    if trained is not None:
        base = scores(load_policy(spec.base, None, spec.recipe, precision))
        evidence["sft_against_base"] = start_checks.check_not_forgotten(reference, base)
    return evidence, digests
