"""One folder of plain weights from a base and its adapter, checked against the model that was trained.

Merging is an export: the result of a run stays base and adapter. A merge into 16-bit or 4-bit weights rounds, and an
adapter trained over 4-bit weights is merged into those same weights made wide again, so the merged model is never quite
the trained one. How far it is is measured on real rows before it may be used. One model is held at a time.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from accelerate.utils.memory import should_reduce_batch_size

from preflow.config import Recipe
from preflow.errors import ModelError
from preflow.models.adapters import save_generation_config
from preflow.models.loading import LanguageModel, attach_adapter, load_policy, load_tokenizer, load_weights
from preflow.models.out_of_memory import free_unused
from preflow.models.precision import Precision
from preflow.models.resolve import ModelRef
from preflow.models.scoring import PromptResponse, response_logprobs

Result = TypeVar("Result")


def merge(
    base: ModelRef,
    adapter: Path,
    recipe: Recipe,
    precision: Precision,
    rows: Sequence[PromptResponse],
    end_ids: Sequence[int],
    out: Path,
    limit: float,
) -> float:
    """Write merged weights with the tokenizer, if they say what the trained model says.

    Args:
        base: What the adapter was trained over.
        adapter: Its folder.
        recipe: How the base is loaded.
        precision: Device and dtypes.
        rows: Prompts with responses to compare on, at least one.
        end_ids: Token ids at which a response ends.
        out: A folder that does not exist yet.
        limit: Mean nats per token by which it may differ before it is refused.

    Returns:
        The merge error: mean absolute difference of a response token's log-prob, nats.

    Raises:
        ModelError: The merge error is larger; nothing is left in ``out``.
    """
    expected = _scores(load_policy(base, adapter, recipe, precision), rows, precision)
    plain = recipe.model_copy(update={"use_4bit": False})
    partial = out.with_name(f"{out.name}.partial")
    if partial.exists():
        raise ModelError(
            f"{partial} exists, where merged weights are written first: an export that was killed left it, or it is "
            "yours; remove it, or export to another folder"
        )
    try:
        where_it_fits(precision, lambda held: _write(base, adapter, recipe, held, end_ids, partial))
        got = where_it_fits(precision, lambda held: _scores(_read_back(partial, plain, held), rows, held))
        error = float((got - expected).abs().mean())
        if not error <= limit:
            raise ModelError(
                f"the merged model's log-probs differ from the trained model's by {error:.4f} nats per token on "
                f"{len(rows)} responses, expected at most {limit:g}: keep base and adapter apart, or merge in wider "
                "numbers"
            )
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return error


def where_it_fits(precision: Precision, work: Callable[[Precision], Result]) -> Result:
    """What ``work`` gives on the device, or on the CPU where the device lacks memory for full, wide weights.

    A GPU that trains 4-bit weights need not hold them widened; the machine around it can.
    """
    try:
        return work(precision)
    except RuntimeError as error:
        if precision.device.type == "cpu" or not should_reduce_batch_size(error):
            raise
    free_unused()  # here, where no traceback holds what did not fit any more
    return work(replace(precision, device=torch.device("cpu")))


def _scores(model: LanguageModel, rows: Sequence[PromptResponse], precision: Precision) -> torch.Tensor:
    return torch.cat([response_logprobs(model, row, precision) for row in rows]).double()


def _read_back(folder: Path, recipe: Recipe, precision: Precision) -> LanguageModel:
    free_unused()
    return load_weights(folder, recipe, precision)


def _write(
    base: ModelRef, adapter: Path, recipe: Recipe, precision: Precision, end_ids: Sequence[int], partial: Path
) -> None:
    """Write the merged weights, where generation ends, and the tokenizer."""
    merged = _widened(base, adapter, recipe, precision).merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(partial), safe_serialization=True)
    save_generation_config(merged, end_ids, partial)
    load_tokenizer(base, recipe).save_pretrained(str(partial))


def _widened(base: ModelRef, adapter: Path, recipe: Recipe, precision: Precision) -> LanguageModel:
    """The trained model, its 4-bit weights made wide, the values staying what they were.

    PEFT merges into 4-bit weights by rounding the sum to 4 bits again, which can undo the adapter (0.7 nats per token
    on a small model).
    """
    free_unused()
    if not recipe.use_4bit:
        return load_policy(base, adapter, recipe, precision)
    wide = load_weights(base.path, recipe, precision).dequantize(precision.compute)
    return attach_adapter(wide, adapter, trainable=False)
