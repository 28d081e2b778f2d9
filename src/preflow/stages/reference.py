"""The reference's log-probs of every pair, training and held out, computed once and read by DPO and evaluation."""

if __name__ == "__main__":  # before all imports, which the command does without
    from preflow.logprobs.cli import app

    app(prog_name="python -m preflow.stages.reference")

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from torch import Tensor

from preflow.artifacts import Artifact, write_json
from preflow.config import Recipe
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.row_counts import RowCounts
from preflow.data.tokens.tokenize import tokenize_pairs
from preflow.data.validated import Split, each_pair, has_rows
from preflow.distributed import current_ranks, shut_down
from preflow.environment import logprobs_url
from preflow.errors import DataUnfitError, ModelError
from preflow.logprobs.fill import FillStats, fill
from preflow.logprobs.identity import identify
from preflow.logprobs.key_index import Keys
from preflow.logprobs.pair_tokens import PairTokens
from preflow.logprobs.scored_pairs import write_blocks
from preflow.logprobs.store import FOLDER_DIGITS, STORE_FILE, LogprobStore
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.loading import load_policy, load_tokenizer
from preflow.models.packed.layout import PromptResponses
from preflow.models.precision import Precision, choose_precision
from preflow.models.resolve import ModelRef
from preflow.models.scoring import GPU_BATCHES, Scorer, scores
from preflow.observer import Observer, Silent
from preflow.specs import ReferenceSpec

#: Pairs that are tokenized at once; all others are held in columns.
_TOKENIZED_ROWS = 2048
#: Prefix of the metrics for reading what the ranks have stored.
ASSEMBLING = "assembling"


def run_reference(spec: ReferenceSpec, out: Path, observer: Observer, *, filled: bool = False) -> None:
    """Tokenize every pair, score it under the reference, and write ``train.parquet`` and ``eval.parquet``.

    Validation pairs, where there are any, are written to ``validation.parquet``.
    The reference is the SFT model, or, without one, the recipe's own model. Also writes ``report.json`` (rows in = rows
    used + rows dropped by reason), ``metrics.json`` and ``store.json`` (the reference's name in the shared store, the
    digests of its weights and its precision).
    Values are kept in that store, so a killed call loses at most one shard's work.

    Args:
        spec: Which pairs, under which model.
        out: The stage's partial folder.
        observer: Receives progress and counts.
        filled: Whether ranks have just run ``prepare`` and reported their hits and computed rows.

    Raises:
        DataUnfitError: No training pair or no held-out pair is left.
    """
    tokenized, counts = _tokenize_splits(spec, observer)
    store = _fill(spec, tokenized, observer, metrics=ASSEMBLING if filled else "scoring")
    for split, pairs in tokenized.items():
        write_blocks(out / f"{split}.parquet", pairs.scored(store))
    write_json(out / "report.json", {split: count.to_json() for split, count in counts.items()})
    metrics = {
        "reference/train_pairs": float(len(tokenized["train"])),
        **{f"reference/{split}_pairs": float(len(pairs)) for split, pairs in tokenized.items() if split != "train"},
        "reference/dropped_pairs": float(sum(count.rows_in - count.used for count in counts.values())),
    }
    write_json(out / "metrics.json", metrics)
    made = {"weights": store.reference.values["weights"], "precision": choose_precision(spec.recipe).label()}
    write_json(out / STORE_FILE, {"reference": store.reference.digest()[:FOLDER_DIGITS], **made})


def prepare(spec: ReferenceSpec, observer: Observer) -> None:
    """Fill the store with all that ``run_reference`` will request; every rank runs this.

    Raises:
        DataUnfitError: No training pair or no held-out pair is left.
    """
    tokenized, _ = _tokenize_splits(spec, Silent())  # run_reference reports the counts
    _fill(spec, tokenized, observer)
    shut_down()


def _fill(
    spec: ReferenceSpec, tokenized: dict[str, PairTokens], observer: Observer, metrics: str = "scoring"
) -> LogprobStore:
    groups = PairTokens.joined(tokenized.values())
    what = "reference: pairs scored"
    return score_groups(spec.recipe, spec.base, spec.sft, groups, observer, what, metrics, groups.keys)


def score_groups(
    recipe: Recipe,
    base: ModelRef,
    trained: Artifact | None,
    groups: Sequence[PromptResponses],
    observer: Observer,
    what: str,
    metrics: str = "scoring",
    keys: Keys | None = None,
) -> LogprobStore:
    """The store of one model's log-probs, filled with at least these prompts and responses.

    Args:
        recipe: Precision and quantization.
        base: The base model.
        trained: The artifact of an earlier training stage; none for the base model itself.
        groups: Prompts, each with its responses.
        observer: Receives progress, then the numbers of groups requested, hit and computed, and the speed.
        what: Description of the work, for the progress line.
        metrics: Prefix of its metrics.
        keys: ``response_keys`` of the groups, where they are known already.
    """
    ranks = current_ranks()
    precision = choose_precision(recipe)
    folder = trained.file("model") if trained is not None else None
    store, numbers = LogprobStore(logprobs_url(), identify(base, folder, recipe, precision)), precision.label()

    def load() -> Scorer:
        model = load_policy(base, folder, recipe, precision)
        fuse_lora(model)
        store.reference.require_unchanged()
        sizes = list(GPU_BATCHES)  # shared by all shards: a size that did not fit is not tried again

        def score(some: Sequence[PromptResponses]) -> Iterator[list[Tensor]]:
            yield from scores(model, some, precision, sizes)
            _require_same(numbers, precision)

        return score

    by_length = precision.device.type != "cpu"
    stats = fill(store, groups, load, observer, what, keys=keys, by_length=by_length, ranks=ranks)
    parts = ranks.gather(stats)
    values = FillStats.together(parts).metrics()
    if len(parts) > 1:
        values |= {f"rank_{number}_rows_computed": float(one.computed) for number, one in enumerate(parts)}
    if ranks.index == 0:
        if metrics != ASSEMBLING:  # the ranks that filled the store have counted these rows
            store.note_usage(values)
        observer.metrics({f"{metrics}/{name}": value for name, value in values.items()}, 0)
    return store


def _require_same(numbers: str, precision: Precision) -> None:
    """Raise if the precision was changed since the store was opened: values could belong to either one.

    Raises:
        ModelError: Names both precisions.
    """
    if precision.label() != numbers:
        raise ModelError(
            f"the precision changed from {numbers} to {precision.label()} while log-probs were computed: what was "
            "computed since the last shard is discarded. Set it before the run, or find the code that calls "
            "torch.set_float32_matmul_precision or changes torch.backends"
        )


def _tokenize_splits(spec: ReferenceSpec, observer: Observer) -> tuple[dict[str, PairTokens], dict[str, RowCounts]]:
    """Training, held-out and validation pairs, and the row counts of each split."""
    splits: tuple[tuple[Split, str], ...] = (("train", "training"), ("eval", "held-out"), ("validation", "validation"))
    tokenized: dict[str, PairTokens] = {}
    counts: dict[str, RowCounts] = {}
    for split, name in splits:
        if not has_rows(spec.data, "preferences", split):
            continue
        tokenized[split], counts[split] = _tokenize(spec, split)
        observer.note(f"reference, {split} pairs: {counts[split]}")
        if not tokenized[split]:
            raise DataUnfitError(f"reference: no {name} pair is left, raise dpo.max_seq_length: {counts[split]}")
    return tokenized, counts


def _tokenize(spec: ReferenceSpec, split: Split) -> tuple[PairTokens, RowCounts]:
    settings = spec.recipe.dpo
    assert settings is not None, "run_reference needs a recipe with a DPO section"
    renderer = Renderer(load_tokenizer(spec.base, spec.recipe), spec.recipe.rendering)
    rows, counts, parts = each_pair(spec.data, split), RowCounts(), []
    while some := list(islice(rows, _TOKENIZED_ROWS)):
        tokenized, of_some = tokenize_pairs(some, renderer, settings.max_seq_length, settings.overlong_response)
        parts.append(PairTokens.of(tokenized))
        counts.add(of_some)
    return PairTokens.joined(parts), counts
