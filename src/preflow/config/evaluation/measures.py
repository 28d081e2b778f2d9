"""Settings of the evaluation: the section ``evaluation:`` of a recipe."""

from pydantic import Field

from preflow.config.base import COSMETIC, Frozen
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.config.evaluation.judge import JudgeSettings
from preflow.config.evaluation.review import ReviewSettings


class EvaluationSettings(Frozen):
    """The evaluation of the finished models on held-out rows."""

    kl_prompts: int = Field(default=64, ge=0)
    """Held-out prompts on which responses are sampled for the KL; 0 leaves KL out."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Most tokens of a sampled response; the share of responses that reach this length is reported."""
    generation_batch_size: int = Field(default=16, ge=1)
    """Prompts generated together."""
    kl_limit: float = Field(default=10.0, gt=0)
    """KL of the finished model from the reference, on responses that it samples itself, in nats per response, above
    which the summary warns. It stops nothing but the rounds of ``preflow iterate``; ``dpo.kl_limit`` is the
    limit of KL early stopping."""
    bootstrap_samples: int = Field(default=2000, ge=100)
    """Resamples of the bootstrap intervals (Efron 1979)."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Coverage of every interval."""
    length_match: float = Field(default=0.15, ge=0.0)
    """Pairs whose response lengths differ by at most this share of the longer one count as length-matched."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts answered by every model in the summary; held-out prompts fill up to three."""
    judge: JudgeSettings | None = Field(default=None, json_schema_extra=COSMETIC)
    """Who compares the models' answers; none: no win rate. A stage of its own: a change evaluates nothing again."""
    review: ReviewSettings = Field(default=ReviewSettings(), json_schema_extra=COSMETIC)
    """How people compare the models' answers; used by ``preflow review`` alone."""
    benchmarks: BenchmarkSettings | None = Field(default=None, json_schema_extra=COSMETIC)
    """Tasks that every model does, in a stage of its own; none: no benchmarks."""
