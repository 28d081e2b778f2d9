"""One folder of plain weights from a base and its adapter, checked against the model that was trained.

Merging is an export: the result of a run stays base and adapter. A merge into 16-bit or 4-bit weights rounds, and an
adapter trained over 4-bit weights is merged into those same weights made wide again, so the merged model is never quite
the trained one. How far it is is measured on real rows before it may be used.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from preflow.config import Recipe
from preflow.errors import ModelError
from preflow.models.base import ModelRef
from preflow.models.loading import LanguageModel, attach_adapter, load_policy, load_tokenizer, load_weights
from preflow.models.precision import Precision
from preflow.models.scoring import Row, response_logprobs

#: Mean nats per token by which a merged model may differ before it is refused.
LIMIT = 0.02


def merge(
    base: ModelRef,
    adapter: Path,
    recipe: Recipe,
    precision: Precision,
    rows: Sequence[Row],
    out: Path,
    limit: float = LIMIT,
) -> float:
    """Write merged weights with the tokenizer, if they say what the trained model says.

    Args:
        base: What the adapter was trained over.
        adapter: Its folder.
        recipe: How the base is loaded.
        precision: Where and in which numbers.
        rows: Prompts with responses to compare on, at least one.
        out: A folder that does not exist yet.
        limit: Largest drift.

    Returns:
        The drift: mean absolute difference of a response token's log-prob, nats.

    Raises:
        ModelError: The merged model drifts further; nothing is left in ``out``.
    """
    trained = load_policy(base, adapter, recipe, precision)
    expected = _scores(trained, rows, precision)
    merged = _widened(base, adapter, recipe, precision, trained).merge_and_unload(safe_merge=True)
    partial = out.with_name(f"{out.name}.partial")
    merged.save_pretrained(str(partial), safe_serialization=True)
    load_tokenizer(base, recipe).save_pretrained(str(partial))
    plain = recipe.model_copy(update={"use_4bit": False})
    got = _scores(load_weights(partial, plain, precision), rows, precision)
    drift = float((got - expected).abs().mean())
    if not drift <= limit:
        for file in partial.iterdir():
            file.unlink()
        partial.rmdir()
        raise ModelError(
            f"the merged model's log-probs differ from the trained model's by {drift:.4f} nats per token on "
            f"{len(rows)} responses, expected at most {limit:g}: keep base and adapter apart, or merge in wider numbers"
        )
    partial.rename(out)
    return drift


def _scores(model: LanguageModel, rows: Sequence[Row], precision: Precision) -> torch.Tensor:
    return torch.cat([response_logprobs(model, row, precision) for row in rows]).double()


def _widened(
    base: ModelRef, adapter: Path, recipe: Recipe, precision: Precision, trained: LanguageModel
) -> LanguageModel:
    """The trained model with its 4-bit weights made wide, the values staying what they were.

    PEFT merges into 4-bit weights by rounding the sum to 4 bits again, which can undo the adapter (0.7 nats per token
    on a small model).
    """
    if not recipe.use_4bit:
        return trained
    wide = load_weights(base.path, recipe, precision).dequantize(precision.compute)
    return attach_adapter(wide, adapter, trainable=False)
