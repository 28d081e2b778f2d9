"""The flow that decides on a challenger: compare, ask where the recipe wants approval, move the champion.

``preflow promote RECIPE`` runs it without a server; a deployment of it suspends until ``preflow decide`` has answered.
"""

from collections.abc import Callable
from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import deployment
from pydantic import Field

from flows.operation.decisions import ask_for_decision
from flows.running.preparation import find_recipe
from flows.two_stage import two_stage
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.config.loading import load_recipe
from preflow.errors import PromotionError
from tasks.promotion import champion_by, compare
from tasks.runtime.reporting import artifact_key, log_user
from tasks.tracking.past_runs import experiment_of
from tasks.tracking.registry.decisions import Decision, Draft, described
from tasks.tracking.registry.moves import take
from tasks.tracking.registry.signature import signed

#: Asks a person: the question and its key to the answer, name and reason.
Ask = Callable[[str, str], "tuple[bool, str, str]"]


class Asked(Frozen):
    """What is to be decided."""

    recipe: str
    """The recipe's file, or the name of a packaged one."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Settings that win over the file's, by dotted name."""
    runs: tuple[str, ...] = ()
    """MLflow ids of the runs whose models are challengers; that of the alias where empty."""
    dry_run: bool = False
    """Whether to say what would be decided, and to move nothing."""
    by: str = ""
    """Who asks, where a name was given; it is kept with a promotion that needs no approval."""
    reason: str = ""
    """Why."""

    def resolved(self) -> Recipe:
        """The recipe."""
        return load_recipe(find_recipe(self.recipe), self.overrides)


@flow(name="promotion")
def promotion(
    recipe: str, overrides: dict[str, Any] | None = None, runs: list[str] | None = None, dry_run: bool = False
) -> Decision:
    """Decide whether the challenger becomes the champion; suspends where the recipe wants a person's approval.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.
        runs: MLflow ids of pipeline runs; the model with the alias ``challenger`` where none is given.
        dry_run: Say what would be decided, and move nothing.
    """
    asked = Asked(recipe=recipe, overrides=overrides or {}, runs=tuple(runs or ()), dry_run=dry_run)
    settings = asked.resolved()
    decision = settle(asked, compare(settings, list(asked.runs)), _suspend if deployment.id else None)
    text = described(decision)
    create_markdown_artifact(text, key=f"{artifact_key(settings.name)}-decision", description="The last decision")
    log_user(text)
    return decision


@flow(name="proposal")
def proposal(recipe: str, overrides: dict[str, Any] | None = None) -> Decision | None:
    """Train and evaluate, then compare the new model with the champion; nothing is moved.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.

    Returns:
        The decision; none where the model is the champion already, as of a recipe and data that did not change.
    """
    made = two_stage(recipe, overrides)
    asked = Asked(recipe=recipe, overrides=overrides or {})
    number = champion_by(asked.resolved(), made.mlflow_run_id)
    if number is not None:
        log_user(f"run {made.mlflow_run_id} made version {number}, the champion: there is nothing to decide")
        return None
    return promotion(recipe, overrides, [made.mlflow_run_id], dry_run=True)


def settle(asked: Asked, draft: Draft, ask: Ask | None) -> Decision:
    """Take the decision that follows from a comparison, approved where the recipe wants it.

    Args:
        asked: What is to be decided.
        draft: What the comparison came to.
        ask: Asks a person; None where no one can be asked.

    Raises:
        PromotionError: Approval is required, and no one can be asked; the comparison is recorded.
        ChampionChangedError: Another decision came first.
    """
    recipe = asked.resolved()
    experiment = experiment_of(recipe.name)
    if draft.outcome != "promoted" or asked.dry_run:
        return take(_renamed(draft), experiment)
    if recipe.promotion.approval == "none":
        return take(signed(draft, asked.by, asked.reason) if asked.by else draft, experiment)
    if ask is None:
        take(_renamed(draft), experiment)
        raise PromotionError(
            f"version {draft.chosen.version if draft.chosen else ''} of {draft.model} may be promoted, and the recipe "
            "requires a person's approval: give it by --by NAME --reason TEXT, or promote by a deployment"
        )
    approved, by, reason = ask(question(draft), _key(draft))
    answered = signed(draft, by, reason)
    return take(answered if approved else answered.model_copy(update={"outcome": "rejected"}), experiment)


def _renamed(draft: Draft) -> Draft:
    """What may be promoted and is not is eligible."""
    return draft.model_copy(update={"outcome": "eligible"}) if draft.outcome == "promoted" else draft


def question(draft: Draft) -> str:
    """What a person is asked."""
    new, old = draft.chosen, draft.champion
    lines = [
        f"Promote version {new.version if new else ''} of {draft.model} to champion"
        f"{f' in place of version {old.version}' if old else ''}?",
        *draft.reasons,
    ]
    return "\n".join(lines)


def _key(draft: Draft) -> str:
    return f"promote-{draft.chosen.version if draft.chosen else 0}"


def _suspend(text: str, key: str) -> tuple[bool, str, str]:
    answer = ask_for_decision(text, key)
    return answer.approved, answer.by, answer.reason
