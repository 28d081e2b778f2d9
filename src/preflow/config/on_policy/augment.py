"""Settings of new preference pairs from the model itself: the section ``augment:`` of a recipe."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from preflow.config.base import COSMETIC, Frozen
from preflow.config.evaluation.judge import JudgeSettings
from preflow.config.validation import Datasets

_TRAIN = "train"


def _prompts(value: object) -> object:
    """``train`` is a word, and no file."""
    return None if value == _TRAIN else value


class AugmentSettings(Frozen):
    """New pairs: answers that a model of the recipe samples to training prompts, as a judge ranks them."""

    num_generations: int = Field(default=4, ge=2)
    """Answers that are sampled to each prompt."""
    temperature: float = Field(default=1.0, gt=0)
    """What logits are divided by before a token is drawn."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the most probable tokens whose probabilities sum up to this are drawn from; 1 for all."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer in tokens. One that has not ended by then makes no pair: its end could not be learnt."""
    generation_batch_size: int = Field(default=32, ge=1, json_schema_extra=COSMETIC)
    """Answers that are sampled together. In float32 on the CPU it changes no answer."""
    policy: Literal["sft", "dpo", "base"] | None = None
    """The model that answers: the fine-tuned one, the aligned one, or the named one. Where not given, the model that
    DPO starts from. ``preflow iterate`` begins with it, and goes on with the model of the last round."""
    prompts: Annotated[Datasets | None, BeforeValidator(_prompts)] = None
    """What is answered: the prompts of the training pairs (``train``, or not given), or files with prompts. A held-out
    prompt is never answered: rows of a file that hold one are left out and named."""
    max_prompts: int | None = Field(default=None, ge=1)
    """Most prompts, taken evenly from all; all where not given."""
    judge: JudgeSettings | None = None
    """Who ranks the answers; ``evaluation.judge`` where not given. One that is not the judge of the evaluation shows
    whether the model learnt what a single judge likes."""
    min_margin: float = Field(default=0.0, ge=0)
    """Least difference of the scores of chosen and rejected: of a classifier in logits, else in shares of won
    comparisons."""
    iterations: int = Field(default=3, ge=1)
    """Rounds of ``preflow iterate``: sample, judge, align."""
    reference: Literal["fixed", "last"] = "fixed"
    """The model that each round starts from and is measured against: ``fixed`` aligns the first model anew, on the
    recipe's pairs and those of all rounds so far; ``last`` goes on from the last round's model, on the recipe's pairs
    and those of this round."""
    max_accuracy_drop: float = Field(default=0.02, ge=0, le=1)
    """``preflow iterate`` stops after a round whose preference accuracy on held-out pairs is lower than the best before
    it by more than this, and keeps the best."""
