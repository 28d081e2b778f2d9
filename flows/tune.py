"""The chain up to the learning rate: validate, fine-tune, store the reference, try a few rates.

``preflow tune RECIPE`` runs it; what it computes is what ``preflow run`` finds computed.
"""

from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow

from flows.opening import opened_run
from flows.running.publish import run_name
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.errors import ConfigError
from preflow.specs import TuneSpec
from tasks.reference import reference
from tasks.tune import tune


@flow(name="tune", flow_run_name=run_name)
def tune_rate(recipe: str, overrides: dict[str, Any] | None = None) -> Artifact:
    """Choose the learning rate of a recipe's DPO stage by a range test.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.

    Returns:
        The artifact with the choice, what was measured at each rate, and the picture.
    """
    with opened_run(recipe, overrides, require=_require_dpo) as opened:
        given = opened.to_score(opened.fine_tuned())
        return tune(TuneSpec(**dict(given), reference=reference(given, opened.run)), opened.run)


def _require_dpo(recipe: Recipe) -> None:
    if "dpo" not in Recipe.stages[recipe.strategy]:
        raise ConfigError(
            f"strategy is '{recipe.strategy}', which runs no DPO stage: its learning rate is what tune chooses"
        )
