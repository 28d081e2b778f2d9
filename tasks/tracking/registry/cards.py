"""The model card of a run, renewed when people have reviewed its answers and when a decision on its model is taken."""

import json
from collections.abc import Sequence
from typing import Any

from preflow.card_sections import later_sections, version_description, with_sections
from preflow.review.record import HUMAN_REVIEW, HumanReview, reviews_of
from preflow.verification.recorded import parsed
from tasks.tracking.client import client
from tasks.tracking.registry.decisions import Decision, Place, chain, followed
from tasks.tracking.registry.versions import Version, describe, read_model
from tasks.tracking.run_files import read_text, write_text

#: The file of the model card among those of a pipeline run.
CARD = "model_card.md"


def renew_cards(decision: Decision) -> None:
    """Renew the model cards of the models that a decision is about, itself included, and what their versions show."""
    taken = [each for _, each in followed(decision.model).links if each.number != decision.number]
    found = read_model(decision.model)
    for place in (decision.chosen, decision.champion):
        version = None if place is None else found.version(place.version)
        if place is not None and place.run_id:
            card = _renew(place.run_id, [*taken, decision])
            if card is not None and version is not None:
                describe(decision.model, version.number, version_description(card))


def renew_card(run_id: str) -> None:
    """Renew the model card of a run, and what the versions that it registered show.

    Args:
        run_id: MLflow's id of the pipeline run.

    Raises:
        PromotionError: The decisions on its model are no chain.
    """
    model = registered_name(client().get_run(run_id))
    card = None if model is None else _renew(run_id, decisions_on(model))
    if model is None or card is None:
        return
    for version in _versions(model):
        if version.run_id == run_id:
            describe(model, version.number, version_description(card))


def registered_name(run: Any) -> str | None:
    """The name under which a pipeline run registers its model; None where its recipe cannot be read."""
    recipe = parsed(read_text(run, "recipe.yaml"))
    return None if recipe is None else recipe.registered_model


def _versions(model: str) -> Sequence[Version]:
    found = client().search_registered_models(filter_string=f"name = '{model}'")
    return read_model(model).versions if any(each.name == model for each in found) else ()


def decisions_on(model: str) -> list[Decision]:
    """All decisions that count on a registered model, oldest first; none where it has none.

    Raises:
        PromotionError: They are no chain.
    """
    return [decision for _, decision in chain(model)]


def of_run(decisions: Sequence[Decision], run_id: str) -> list[Decision]:
    """Those of decisions that are about the model of a run."""
    return [each for each in decisions if any(_is_of(place, run_id) for place in (each.chosen, each.champion))]


def _is_of(place: Place | None, run_id: str) -> bool:
    return place is not None and place.run_id == run_id


def sections_of(run: Any, decisions: Sequence[Decision]) -> str:
    """What a run's card says of the time after it.

    Args:
        run: MLflow's.
        decisions: All decisions on its model.
    """
    mine = [each.model_dump(mode="json") for each in of_run(decisions, run.info.run_id)]
    return later_sections(reviews(run), mine)


def reviews(run: Any) -> list[HumanReview]:
    """The human reviews of a run, oldest first."""
    text = read_text(run, HUMAN_REVIEW)
    return [] if text is None else reviews_of(json.loads(text))


def _renew(run_id: str, decisions: Sequence[Decision]) -> str | None:
    """The renewed card; None where the run is deleted or has none."""
    run = client().get_run(run_id)
    text = read_text(run, CARD) if run.info.lifecycle_stage == "active" else None
    if text is None:
        return None
    card = with_sections(text, sections_of(run, decisions))
    write_text(run, CARD, card)
    return card
