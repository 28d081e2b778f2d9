"""What a decision rests on: challengers compared with the champion by the recipe's primary measure, and guards."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from preflow.artifacts import Artifact
from preflow.benchmarks.scores import compare_results, largest_loss
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.errors import PromotionError
from preflow.fingerprints.files import json_digest
from preflow.maths.paired import PairedComparison, compare_paired
from preflow.maths.significance import spent_alpha
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from preflow.promotion.held_out import NewRows
from preflow.promotion.verdict import Guard, Verdict, best, guards_of, judge
from preflow.promotion.win_rates import PromptScores, win_rate, win_rate_at_equal_length
from preflow.review.record import HumanReview
from preflow.specs import EvaluateSpec
from preflow.stages.promotion import JudgedAnswers, Measured, judge_answers
from tasks.tracking.past_runs import PastRun, runs_that_made
from tasks.tracking.registry.decisions import Draft, Outcome, Place, taken
from tasks.tracking.registry.state import State
from tasks.tracking.registry.versions import CHAMPION, Version
from tasks.tracking.review.collected import human_review

_ANSWERS: dict[str, Outcome] = {"promote": "promoted", "refuse": "refused", "inconclusive": "inconclusive"}


class Challenger(Frozen):
    """A registered version with the run that made it."""

    version: Version
    run: PastRun
    base: ModelRef | None = None
    """What it was trained over, where that was found by its digest; else what the run's recipe names."""

    @property
    def spec(self) -> EvaluateSpec:
        """Its models and its data."""
        return evaluation_of(self.run, self.base)

    @property
    def data(self) -> Artifact:
        """The rows of its run."""
        return self.run.artifacts["validate"]

    def on(self, data: Artifact) -> Self:
        """The challenger with other held-out rows."""
        artifacts = {**self.run.artifacts, "validate": data}
        return self.model_copy(update={"run": self.run.model_copy(update={"artifacts": artifacts})})


def evaluation_of(run: PastRun, base: ModelRef | None = None) -> EvaluateSpec:
    """A finished run's models and data, as its evaluation was given them; the base by its recipe, if not given."""
    over = resolve_model(run.recipe, Silent()) if base is None else base
    made = {name: run.artifacts[name] for name in ("sft", "dpo", "reference") if name in run.artifacts}
    return EvaluateSpec(recipe=run.recipe, base=over, data=run.artifacts["validate"], **made)


def reference_of(spec: EvaluateSpec) -> str:
    """The model that a run's result was trained from."""
    return "sft" if spec.dpo is not None and spec.sft is not None else "base"


def made_by(run: PastRun) -> tuple[str, Artifact]:
    """The stage that made a run's model, and its artifact."""
    stage = "dpo" if "dpo" in run.artifacts else "sft"
    return stage, run.artifacts[stage]


@dataclass(frozen=True, slots=True)
class Compared:
    """One challenger against the champion.

    Attributes:
        primary: By the recipe's primary measure.
        guards: The measures with limits, beside it.
        judged: What the judge said; None where no judge was asked.
        benchmarks: By each task of the recipe's benchmarks.
    """

    primary: PairedComparison
    guards: list[Guard]
    judged: JudgedAnswers | None
    benchmarks: dict[str, PairedComparison]


@dataclass(frozen=True, slots=True)
class SpentLevel:
    """What one decision on a held-out set may spend.

    Attributes:
        digest: The set's name.
        comparison: The comparison's name; asked again, it spends nothing more.
        nth: Which decision on the set it is, from 1.
        level: What it may spend of ``promotion.alpha``.
    """

    digest: str
    comparison: str
    nth: int
    level: float


def draft_of(
    recipe: Recipe, state: State, challengers: list[Challenger], measured: list[tuple[Measured, Measured]],
    new_rows: list[NewRows], digest: str,
) -> Draft:  # fmt: skip
    """What follows from what was measured, for the best of the challengers.

    Args:
        recipe: The recipe, whose ``promotion:`` decides.
        state: The registered model.
        challengers: The challengers.
        measured: What was measured of each, and of the champion on its rows, or of its own reference without one.
        new_rows: The held-out rows that each challenger was compared on.
        digest: Of the held-out set.

    Raises:
        PromotionError: A win rate is asked for, and there is no fit judge, or none can be estimated.
    """
    champion = state.model.aliased(CHAMPION)
    versions = [each.version for each in challengers]
    reviews = [_review_of(each, champion) for each in challengers] if recipe.promotion.asks_people else []
    by_challenger: list[HumanReview | None] = [*reviews] or [None] * len(challengers)
    spent = _spent(recipe, state, versions, champion, digest, reviews)
    found = [
        _compared(recipe, challenger, measures, rows, spent, review)
        for challenger, measures, rows, review in zip(challengers, measured, new_rows, by_challenger, strict=True)
    ]
    compared = [each.primary for each in found]
    verdicts = judge(compared, [each.guards for each in found], recipe.promotion, spent.nth, spent.level)
    chosen = best(verdicts, compared, one_reference=champion is not None)
    left_out, against = new_rows[chosen], "champion" if champion else f"{reference_of(challengers[chosen].spec)} model"
    return Draft(
        model=state.model.name,
        outcome=_ANSWERS[verdicts[chosen].answer],
        champion=None if champion is None else place_of(champion),
        chosen=place_of(versions[chosen]),
        reasons=(*verdicts[chosen].reasons, *filter(None, [_without_champion(champion, against), str(left_out)])),
        evidence={
            "held_out_digest": digest,
            "comparison": spent.comparison,
            "decision_on_these_rows": spent.nth,
            "level": spent.level,
            "primary": recipe.promotion.primary,
            "against": against,
            "training_rows_left_out": left_out.pairs[1] if left_out.seen.known else "unknown",
            "training_demonstrations_left_out": left_out.demonstrations[1] if left_out.seen.known else "unknown",
            "challengers": [_recorded(*each) for each in zip(challengers, found, verdicts, strict=True)],
        },
    )


def _without_champion(champion: Version | None, against: str) -> str:
    return "" if champion else f"there is no champion yet: compared with its own reference, the {against}"


def place_of(version: Version) -> Place:
    """A version as decisions name it."""
    return Place(version=version.number, artifact_digest=version.artifact_digest, run_id=version.run_id)


def _spent(
    recipe: Recipe, state: State, versions: list[Version], champion: Version | None, digest: str,
    reviews: list[HumanReview],
) -> SpentLevel:  # fmt: skip
    comparison = comparison_key(recipe, versions, champion, reviews)
    nth = decision_on(state.model.name, digest, comparison)
    return SpentLevel(digest, comparison, nth, spent_alpha(recipe.promotion.alpha, nth))


def comparison_key(
    recipe: Recipe, challengers: list[Version], champion: Version | None, reviews: Sequence[HumanReview] = ()
) -> str:
    """The name of a comparison: which models were compared with which, and by what. Asked again, it spends nothing.

    Other answers of people are another comparison: else reviews could be repeated until one is won by chance.

    Args:
        recipe: The recipe, whose ``promotion:`` decides.
        challengers: The versions that are compared.
        champion: The version that they are compared with.
        reviews: The human review of each challenger, where the decision rests on them.
    """
    names: list[Any] = [sorted(each.artifact_digest for each in challengers), champion and champion.artifact_digest]
    if recipe.promotion.asks_judge or recipe.promotion.asks_people:
        judged = recipe.evaluation.judge
        names += [recipe.promotion.primary, judged and judged.model_dump(mode="json")]
    if recipe.promotion.asks_judge:  # other answers could be drawn until the judge prefers them by chance
        sampling = {"kl_prompts", "max_new_tokens", "generation_batch_size"}
        names += [recipe.evaluation.model_dump(mode="json", include=sampling), recipe.seed]
    if reviews:
        given = [[each.review, json_digest([*zip(each.prompt_ids, each.scores, strict=True)])] for each in reviews]
        names.append(sorted(given))
    return json_digest(names)[:32]


def decision_on(model: str, digest: str, comparison: str) -> int:
    """Which decision on a held-out set a comparison is, from 1; one that was decided on before keeps its number."""
    seen = [each.tags.get("comparison") for each in taken(model) if each.tags.get("held_out_digest") == digest]
    distinct = list(dict.fromkeys(seen))
    return (distinct.index(comparison) if comparison in distinct else len(distinct)) + 1


def _compared(
    recipe: Recipe, challenger: Challenger, measures: tuple[Measured, Measured], new_rows: NewRows,
    spent: SpentLevel, review: HumanReview | None,
) -> Compared:  # fmt: skip
    settings, (new, old) = recipe.promotion, measures
    samples = max(recipe.evaluation.bootstrap_samples, math.ceil(20 / spent.level))
    options: dict[str, Any] = {"alpha": spent.level, "samples": samples, "seed": recipe.seed}
    measured = {
        "kl": new.kl,
        "length_ratio": _ratio(new.response_tokens, old.response_tokens),
        "perplexity_ratio": _ratio(new.perplexity, old.perplexity),
    }
    tasks = compare_results(new.benchmarks, old.benchmarks, **options)
    if tasks:
        measured["benchmark_margin"] = largest_loss(tasks)
    judged = None
    if settings.asks_judge:
        judged = judge_answers(challenger.spec, recipe, new, old, Silent())
        measured["win_rate"] = 0.5 + win_rate(judged.scores, **options).difference.low
    people = None if review is None else _by_prompt(review, new_rows)
    if people is not None:
        measured["human_win_rate"] = 0.5 + win_rate(people, **options).difference.low
    if people is not None and settings.primary == "human_win_rate":
        primary = win_rate(people, **options)
    elif judged is not None and settings.primary == "win_rate":
        primary = win_rate(judged.scores, **options)
    elif judged is not None and settings.primary == "win_rate_lc":
        primary = win_rate_at_equal_length(judged.scores, **options)
    else:
        primary = compare_paired(new.rows, old.rows, **options)
    return Compared(primary, guards_of(settings.guards, measured), judged, tasks)


def _review_of(challenger: Challenger, champion: Version | None) -> HumanReview:
    """The newest review of the challenger's answers against the champion's, or the reference's where there is none.

    Of all runs that made the challenger: a rerun that finds it computed makes no review void.

    Raises:
        PromotionError: There is no such review, or the newest one does not count.
    """
    other = champion.artifact_digest if champion is not None else _reference_digest(challenger.spec)
    number, runs = challenger.version.number, runs_that_made(challenger.version.artifact_digest, challenger.run.run_id)
    reviews = [each for run in runs if (each := human_review(run, other)) is not None]
    found = max(reviews, key=lambda each: each.review, default=None)
    if found is None:
        against = "champion" if champion is not None else reference_of(challenger.spec)
        raise PromotionError(
            f"no human review compares version {number} with the {against}: preflow review open "
            f"{challenger.run.run_id} --reviewers NAME,NAME --against {against}, then preflow review collect "
            f"{challenger.run.run_id}"
        )
    if not found.counts:
        raise PromotionError(f"the human review {found.review} of version {number} does not count: {found.reason}")
    return found


def _by_prompt(found: HumanReview, new_rows: NewRows) -> PromptScores:
    """What people said of the answers to prompts that the champion was not trained on."""
    kept = [place for place, cluster in enumerate(found.clusters) if cluster not in new_rows.seen.prompts]
    return PromptScores(
        ids=[found.prompt_ids[place] for place in kept],
        clusters=[found.clusters[place] for place in kept],
        values=np.array([found.scores[place] for place in kept], dtype=np.float64),
        lengths=np.zeros(len(kept)),
    )


def _reference_digest(spec: EvaluateSpec) -> str:
    return spec.sft.digest if spec.dpo is not None and spec.sft is not None else spec.base.digest


def _ratio(new: float | None, old: float | None) -> float | None:
    return None if new is None or not old else new / old


def _recorded(challenger: Challenger, found: Compared, verdict: Verdict) -> dict[str, Any]:
    judged = found.judged
    by = {} if judged is None else {"judge": judged.judge, "test": judged.test, "unreadable": judged.unreadable}
    return {
        "version": challenger.version.number,
        "run": challenger.run.run_id,
        "comparison": asdict(found.primary),
        "guards": [asdict(each) for each in found.guards],
        "answer": verdict.answer,
        "reasons": list(verdict.reasons),
        "p_adjusted": verdict.p,
        **({"judged": by} if by else {}),
        **({"benchmarks": {name: asdict(each) for name, each in found.benchmarks.items()}} if found.benchmarks else {}),
    }
