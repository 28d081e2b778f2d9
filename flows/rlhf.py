"""RLHF: validate, fine-tune, train a reward model on the pairs, then RLOO on its rewards.

``preflow rlhf RECIPE`` runs it. What it shares with ``preflow run`` and ``preflow reward-model`` is computed once.
"""

from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.opening import OpenedRun, opened_run
from flows.reward_model import reward_model_spec
from flows.running.publish import run_name
from flows.strategies.rewarded import Rewarded, as_markdown
from preflow.artifacts import Artifact
from preflow.config.checks.rlhf import require_rloo
from preflow.specs import ReferenceSpec, RlooSpec
from tasks.reference import reference
from tasks.rlhf.reward_model import reward_model
from tasks.rlhf.rloo import rloo
from tasks.runtime.reporting import artifact_key
from tasks.tracking.pipeline_run import log_summary


@flow(name="rlhf", flow_run_name=run_name)
def rlhf(recipe: str, overrides: dict[str, Any] | None = None) -> Rewarded:
    """Train a recipe's model by RLOO on the rewards of a reward model of its pairs.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.
    """
    with opened_run(recipe, overrides, "rlhf", require_rloo) as opened:
        made = rewarded(opened)
        text = as_markdown(made)
        key = f"{artifact_key(opened.run.recipe)}-rlhf"
        create_markdown_artifact(text, key=key, description="Rewards of answers to held-out prompts, before and after")
        log_summary(opened.run, text)
        return made


def rewarded(opened: OpenedRun) -> Rewarded:
    """The reward model, and the model that RLOO makes with it."""
    given = opened.to_score(opened.fine_tuned())
    judge, trained = reinforced(opened, given, reference(given, opened.run))
    return Rewarded(recipe=opened.recipe.name, reward_model=judge, rloo=trained)


def reinforced(opened: OpenedRun, given: ReferenceSpec, stored: Artifact) -> tuple[Artifact, Artifact]:
    """The reward model, and the model that RLOO makes with it of the start of ``given``, whose log-probs are stored."""
    judge = reward_model(reward_model_spec(opened), opened.run)
    return judge, rloo(RlooSpec(**dict(given), reference=stored, reward_model=judge), opened.run)
