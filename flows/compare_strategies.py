"""SFT, DPO and RLHF from one SFT model, measured on the same held-out pairs and prompts.

``preflow compare-strategies RECIPE`` runs it. It finds what ``preflow run`` and ``preflow rlhf`` have computed.
"""

from typing import Any

import tasks  # noqa: F401 - makes the home folder, which Prefect looks for when imported

# isort: split
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.augment import aligned
from flows.opening import OpenedRun, opened_run
from flows.rlhf import reinforced
from flows.running.publish import run_name
from flows.strategies.side_by_side import Strategies, as_markdown, measures_of, table_rows
from preflow.artifacts import Artifact
from preflow.config.checks.rlhf import require_rloo
from preflow.specs import EvaluateSpec, JudgeSpec
from tasks.evaluate import evaluate
from tasks.judge import judge
from tasks.reference import reference
from tasks.runtime.reporting import artifact_key
from tasks.tracking.pipeline_run import PipelineRun, log_round, log_summary


@flow(name="compare-strategies", flow_run_name=run_name)
def compare_strategies(recipe: str, overrides: dict[str, Any] | None = None) -> Strategies:
    """Align one model by DPO and by RLHF, and compare both and their start on the same held-out pairs.

    Args:
        recipe: The recipe's file; a relative path starts at the working folder.
        overrides: Settings that win over the file's, by dotted name.
    """
    with opened_run(recipe, overrides, "compare-strategies", require_rloo) as opened:
        made = _made(opened)
        text, key = as_markdown(made), artifact_key(opened.run.recipe)
        create_markdown_artifact(text, key=f"{key}-strategies", description="SFT, DPO and RLHF on the same pairs")
        create_table_artifact(table_rows(made), key=f"{key}-strategies-table", description="Strategies side by side")
        log_round(opened.run, measures_of(made), 0)
        log_summary(opened.run, text)
        return made


def _made(opened: OpenedRun) -> Strategies:
    run, settings = opened.run, opened.recipe
    given = opened.to_score(opened.fine_tuned())
    stored = reference(given, run)
    trained = aligned(given, run, stored)
    rewards, learnt = reinforced(opened, given, stored)

    def measured(model: Artifact, part: PipelineRun) -> tuple[Artifact, Artifact | None]:
        verdict = evaluate(EvaluateSpec(**dict(given), reference=stored, dpo=model), part)
        if settings.evaluation.judge is None:
            return verdict, None
        return verdict, judge(JudgeSpec(recipe=settings, data=opened.data, evaluation=verdict), part)

    dpo_measured, dpo_judged = measured(trained, run)
    rlhf_measured, rlhf_judged = measured(learnt, run.part_of("rlhf"))
    return Strategies(
        recipe=settings.name,
        seed=settings.seed,
        dpo=trained,
        reward_model=rewards,
        rlhf=learnt,
        dpo_evaluation=dpo_measured,
        rlhf_evaluation=rlhf_measured,
        dpo_judged=dpo_judged,
        rlhf_judged=rlhf_judged,
    )
