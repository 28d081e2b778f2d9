"""What DPO starts from: the policy at step 0, and stored reference log-probs that are checked against it."""

import json
from collections.abc import Sequence
from pathlib import Path

from preflow.artifacts import CARD
from preflow.config.training import DpoSettings
from preflow.dpo import start_checks
from preflow.errors import DpoCheckpointError
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
) -> dict[str, float]:
    """Check a sample of the stored values against an independent forward, and the SFT model against the base."""
    probe = start_checks.sample(pairs, settings.proof_sample)
    trained = spec.sft.file("model") if spec.sft is not None else None

    def gaps(folder: Path | None) -> list[start_checks.Gap]:
        model = load_policy(spec.base, folder, spec.recipe, precision)
        return start_checks.measure(
            probe, lambda row: start_checks.independent_logprob(model, row, precision), precision.compute
        )

    reference = gaps(trained)
    evidence = {"stored_gap": start_checks.check_stored(reference, spec.reference)}
    if trained is not None:
        evidence["sft_against_base"] = start_checks.check_not_forgotten(start_checks.apart(reference, gaps(None)))
    return evidence
