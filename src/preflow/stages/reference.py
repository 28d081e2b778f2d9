"""The reference's log-probs of every pair, training and held out, computed once and read by DPO and evaluation."""

import time
from pathlib import Path
from typing import Any, Literal

from preflow.artifacts import Artifact, write_json
from preflow.config import Recipe
from preflow.data.store import load_pairs
from preflow.data.templates import Renderer
from preflow.data.tokens import TokenizedPair, tokenize_pairs
from preflow.errors import DataUnfitError
from preflow.home import store_folder
from preflow.models.base import ModelRef
from preflow.models.loading import load_policy, load_tokenizer
from preflow.models.precision import choose_precision
from preflow.models.scoring import Group, Scorer, group_logprobs
from preflow.observer import Observer
from preflow.stages.logprob_store import LogprobStore, numerics
from preflow.stages.pairs import ScoredPair, write_pairs
from preflow.stages.specs import ReferenceSpec


def run_reference(spec: ReferenceSpec, out: Path, observer: Observer) -> None:
    """Tokenize every pair, score it under the reference, and write ``train.parquet`` and ``eval.parquet``.

    The reference is the SFT model, or, without one, the recipe's own model. Also writes ``report.json`` (rows in = rows
    used + rows dropped by reason) and ``metrics.json``. Values lie in the shared store, so a killed call loses at most
    one shard's work.

    Raises:
        DataUnfitError: No training pair or no held-out pair is left.
    """
    recipe = spec.recipe
    tokenized, counts = {}, {}
    for side in ("train", "eval"):
        tokenized[side], counts[side] = _tokenize(spec, side)
        observer.note(f"reference, {side} pairs: {counts[side]}")
    for side, name in (("train", "training"), ("eval", "held-out")):
        if not tokenized[side]:
            raise DataUnfitError(f"reference: no {name} pair is left, raise dpo.max_seq_length: {counts[side]}")
    groups = [_group(pair) for pairs in tokenized.values() for pair in pairs]
    store = score_groups(recipe, spec.base, spec.sft, groups, observer, "reference: pairs scored")
    for side, pairs in tokenized.items():
        write_pairs(out / f"{side}.parquet", (_scored(pair, store) for pair in pairs))
    write_json(out / "report.json", {side: count.to_json() for side, count in counts.items()})
    metrics = {
        "reference/train_pairs": float(len(tokenized["train"])),
        "reference/eval_pairs": float(len(tokenized["eval"])),
        "reference/dropped_pairs": float(sum(count.rows_in - count.used for count in counts.values())),
    }
    write_json(out / "metrics.json", metrics)


def score_groups(
    recipe: Recipe, base: ModelRef, trained: Artifact | None, groups: list[Group], observer: Observer, what: str
) -> LogprobStore:
    """The store of one model's log-probs, filled with at least these prompts and responses.

    Args:
        recipe: Precision and quantization.
        base: The base model.
        trained: What an earlier stage trained over it; none for the base itself.
        groups: Prompts, each with its responses.
        observer: Hears progress, and afterwards how many groups were asked, found and computed, and how fast.
        what: What is scored, for the progress line.
    """
    precision = choose_precision(recipe)
    identity: dict[str, Any] = {
        "base": base.digest,
        "trained": trained and trained.digest,
        "use_4bit": recipe.use_4bit,
        "provider": recipe.provider,
        **numerics(precision.label()),
    }

    def load() -> Scorer:
        folder = trained.file("model") if trained is not None else None
        model = load_policy(base, folder, recipe, precision)
        return lambda group: group_logprobs(model, group, precision)

    store = LogprobStore(store_folder() / "logprobs", identity)
    started = time.monotonic()
    computed = store.fill(groups, load, observer, what)
    seconds = time.monotonic() - started
    tokens = sum(len(prompt) + sum(len(response) for response in responses) for prompt, responses in groups)
    asked = len(groups)
    values = {"rows_asked": asked, "rows_computed": computed, "rows_hit": asked - computed, "seconds": seconds}
    if computed == asked and seconds > 0:
        values["tokens_per_second"] = tokens / seconds
    observer.metrics({f"scoring/{name}": float(value) for name, value in values.items()}, 0)
    return store


def _tokenize(spec: ReferenceSpec, side: Literal["train", "eval"]) -> tuple[list[TokenizedPair], Any]:
    settings = spec.recipe.dpo
    assert settings is not None, "run_reference needs a recipe with a DPO section"
    renderer = Renderer(load_tokenizer(spec.base, spec.recipe), spec.recipe.template)
    return tokenize_pairs(load_pairs(spec.data, side), renderer, settings.max_seq_length, settings.overlong_response)


def _group(pair: TokenizedPair) -> Group:
    return pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids)


def _scored(pair: TokenizedPair, store: LogprobStore) -> ScoredPair:
    chosen, rejected = store.get(_group(pair))
    return ScoredPair(
        prompt_ids=list(pair.prompt_ids),
        chosen_ids=list(pair.chosen_ids),
        rejected_ids=list(pair.rejected_ids),
        ref_chosen=chosen,
        ref_rejected=rejected,
        source=f"{pair.source.file}:{pair.source.row}",
    )
