"""What the stages that make new preference pairs are asked to do: sample answers, judge them, pair them."""

from typing import Any, get_args

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen, numbers
from preflow.config.evaluation.judge import JudgeSettings
from preflow.data.files.raw_rows import DataSource
from preflow.data.validated import Split, rows_file
from preflow.models.resolve import ModelRef

#: Settings of the section ``augment:`` that decide an answer, and those that decide which prompts are answered.
_DECODING = ("num_generations", "temperature", "top_p", "max_new_tokens")


def judge_of_answers(recipe: Recipe) -> JudgeSettings | None:
    """Who ranks sampled answers: the judge of ``augment:``, or that of the evaluation."""
    return recipe.augment.judge or recipe.evaluation.judge


def section_of_judge(recipe: Recipe) -> str:
    """Where the recipe describes who ranks sampled answers."""
    return "evaluation.judge" if recipe.augment.judge is None else "augment.judge"


class SampleSpec(Frozen):
    """Sample answers of a model to training prompts."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    policy: Artifact | None = None
    """The model that answers; none where the named model does."""
    prompts: tuple[DataSource, ...] = ()
    """Files with prompts; none where those of the training pairs are answered."""

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: all rows of the data, since no held-out prompt may be answered."""
        rows = (rows_file(kind, split) for kind in ("demonstrations", "preferences") for split in get_args(Split))
        return {
            "base": self.base.digest,
            "data": self.data.digests_of(*rows),
            "policy": self.policy and self.policy.digest,
            "prompts": [[source.digest, source.reading_settings()] for source in self.prompts],
        }

    def options(self) -> dict[str, Any]:
        """The settings that can change an answer, and those that choose the prompts."""
        recipe, augment = self.recipe, self.recipe.augment
        names = ("tuning", "use_4bit", "seed", "provider", "trust_remote_code")
        dpo = {} if recipe.dpo is None else {"dpo": [recipe.dpo.max_seq_length, *_held_out_shares(recipe)]}
        return {
            **{name: getattr(augment, name) for name in (*_DECODING, "max_prompts")},
            **{name: getattr(recipe, name) for name in names},
            "rendering": numbers(recipe.rendering),
            "reading": numbers(recipe.reading),
            **dpo,
        }


def _held_out_shares(recipe: Recipe) -> list[Any]:
    dpo = recipe.dpo
    assert dpo is not None, "a recipe with a DPO section"
    return [dpo.eval_split, dpo.validation_split, bool(dpo.eval_dataset)]


class JudgeAnswersSpec(Frozen):
    """Let a judge, which is tested on held-out human pairs first, rank the answers to each prompt."""

    recipe: Recipe
    base: ModelRef
    data: Artifact
    answers: Artifact

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in: the held-out pairs that people judged, the sampled answers, and the tokenizer."""
        held_out = self.data.digests_of(rows_file("preferences", "eval"))
        return {"base": self.base.digest, "data": held_out, "answers": self.answers.digest}

    def options(self) -> dict[str, Any]:
        """The judge, and how its test is measured."""
        judge = judge_of_answers(self.recipe)
        dpo = self.recipe.dpo
        return {
            "judge": None if judge is None else numbers(judge),
            "confidence": self.recipe.evaluation.confidence,
            "max_seq_length": dpo and dpo.max_seq_length,
            "rendering": numbers(self.recipe.rendering),
            "trust_remote_code": self.recipe.trust_remote_code,
        }


class PairSpec(Frozen):
    """Make preference pairs of judged answers, or name the reason why a prompt has none."""

    recipe: Recipe
    answers: Artifact
    judged: Artifact
    round: int = 1
    """Of ``preflow iterate``; 1 where there is one alone."""

    def inputs(self) -> dict[str, Any]:
        """Digests of what goes in."""
        return {"answers": self.answers.digest, "judged": self.judged.digest}

    def options(self) -> dict[str, Any]:
        """The settings that can change a pair."""
        return {"min_margin": self.recipe.augment.min_margin, "round": self.round}
