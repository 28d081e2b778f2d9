"""Settings of a judge: the section ``evaluation.judge`` of a recipe."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from preflow.config.base import COSMETIC, Frozen

_CRITERIA = "Which answer is more helpful, correct and harmless, and better suited to what was asked?"


class JudgeSettings(Frozen):
    """A judge of answers, which is tested on the run's own held-out pairs before its win rate counts."""

    kind: Literal["endpoint", "classifier", "function"]
    """``endpoint``: a chat model behind an OpenAI-compatible address. ``classifier``: a local reward model with one
    logit. ``function``: a Python function of the environment."""
    model: str
    """The model's name at the address, the classifier's folder, or ``module:name`` of the function."""
    base_url: str | None = None
    """The endpoint's address up to ``/v1``."""
    api_key_env: str | None = Field(default=None, json_schema_extra=COSMETIC)
    """The environment variable that holds the endpoint's key; the key itself is never in a recipe."""
    criteria: str = _CRITERIA
    """What an endpoint is asked."""
    revision: str = ""
    """Any word. Another one is another judge, which is asked everything anew: for an endpoint whose model has changed
    under its name."""
    canaries: int = Field(default=10, ge=0, json_schema_extra=COSMETIC)
    """Stored verdicts that an endpoint is asked for again before it is asked anything new. Where more of
    them differ than noise explains (5 of 10), the model has changed and nothing is mixed. 0 asks for none."""
    calibrate: int = Field(default=100, ge=10)
    """Held-out human pairs, most, on which the judge is tested in both orders."""
    orders: int = Field(default=10, ge=0)
    """Of these pairs, those that an endpoint is asked about once more, with an order to it in the rejected answer: it
    is unfit where it obeys. 0 plants none."""
    min_accuracy: float = Field(default=0.5, ge=0.5, lt=1.0)
    """The judge is unfit unless the lower bound of its accuracy on those pairs lies above this."""
    min_consistency: float = Field(default=0.6, ge=0.0, le=1.0)
    """The judge is unfit where it gives the same verdict in both orders on a smaller share of pairs."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest reply of an endpoint."""
    batch_size: int = Field(default=16, ge=1, json_schema_extra=COSMETIC)
    """Answers that a classifier scores together."""
    concurrency: int = Field(default=8, ge=1, json_schema_extra=COSMETIC)
    """Requests to an endpoint at once."""
    timeout: float = Field(default=60.0, gt=0, json_schema_extra=COSMETIC)
    """Seconds to wait for an endpoint's reply."""
    retries: int = Field(default=5, ge=0, json_schema_extra=COSMETIC)
    """How often a request is sent again where the endpoint is busy; its ``Retry-After`` is kept to."""

    @model_validator(mode="after")
    def _address(self) -> "JudgeSettings":
        if self.kind == "endpoint" and not (self.base_url or "").startswith(("http://", "https://")):
            raise ValueError("an endpoint needs base_url, for example http://127.0.0.1:8000/v1")
        if "@" in urlsplit(self.base_url or "").netloc:
            raise ValueError("base_url has a login, which would be stored with verdicts: give the key by api_key_env")
        if self.kind != "endpoint" and self.base_url is not None:
            raise ValueError(f"base_url is for kind: endpoint, got kind: {self.kind}")
        if self.kind == "function" and self.model.count(":") != 1:
            raise ValueError(f"a function is named module:name, got {self.model!r}")
        return self
