"""Reference log-probs: TRL's ``precompute_ref_log_probs`` and Preflow's store, side by side in one run.

``python -m bench.bench_reference [--data FILE] [--rows N] [--quick]`` prints, first, rows (pairs) per second of both on
the same token ids and weights, batch by batch in turn; then, for a sequence of changes, the rows that each computes
and its seconds: TRL's shipped trainer on a JSON file, Preflow's reference stage on the same rows. TRL's seconds are
those of its precompute alone, Preflow's those of the whole stage. Before that a store of ``--readback`` responses is
read back into a training set (``bench/parts/readback.py`` says what is measured). The last line is one JSON object.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from datasets import disable_progress_bars

from bench.parts.readback import measure
from bench.parts.reference_changes import BATCH, LIMIT, MORE, changes, trl_arguments
from preflow.config import Recipe
from preflow.data.conversion import to_pair
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.rows import Pair
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_pairs
from preflow.dpo.trainer import StoredReferenceTrainer, as_dataset
from preflow.logprobs.fill import fill
from preflow.logprobs.identity import identify
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.logprobs.store import LogprobStore
from preflow.models.loading import load_tokenizer, load_weights
from preflow.models.packed.layout import PromptResponses
from preflow.models.precision import choose_precision
from preflow.models.resolve import ModelRef, resolve_model
from preflow.models.scoring import scores
from preflow.observer import Silent

#: Real pairs whose prompts are longer than their responses, in a folder beside the repository.
REAL = Path(__file__).parents[2] / "shared" / "data" / "hh_harmless_test.messages.jsonl"
DEMO = Path(__file__).parents[1] / "recipes" / "demo" / "preferences.jsonl"


def main(
    data: Annotated[Path | None, typer.Option(help="Preference pairs; the demo's where not given.")] = None,
    rows: Annotated[int, typer.Option(help="Rows of the measurement of speed.")] = 16,
    few: Annotated[int, typer.Option(help="Rows of the sequence of changes.")] = 3,
    model: Annotated[str, typer.Option(help="Base model, by the recipe's name.")] = "SmolLM2-135M-Instruct",
    readback: Annotated[int, typer.Option(help="Stored responses that are read back.")] = 1_000_000,
    quick: Annotated[bool, typer.Option("--quick", help="8 rows, and 2 in the sequence of changes.")] = False,
) -> None:
    """Measure both side by side."""
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    disable_progress_bars()
    rows, few = (8, 2) if quick else (rows, few)
    file = data or (REAL if REAL.is_file() else DEMO)
    with tempfile.TemporaryDirectory() as folder:
        back = measure(Path(folder), readback)
    print("{rows:,} stored rows read back: {seconds} s, memory {store_memory} times their size".format(**back))
    print(f"rows: {file}")
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": model, "max_seq_length": LIMIT, "dpo": {}})
    base = resolve_model(recipe, Silent())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFLOW_LOGPROBS"] = f"{folder}/store"
        pairs = read(file, recipe, base, max(rows, few + MORE))
        ratios = speed(recipe, base, tokens(pairs[:rows], recipe, base), Path(folder))
        shortest = sorted(pairs, key=lambda pair: sum(len(message.content) for message in pair.prompt))
        counts = changes(recipe, base, shortest[: few + MORE], Path(folder))
    print(json.dumps({**ratios, "readback": back, "rows_computed_after_change": counts}))


def read(file: Path, recipe: Recipe, base: ModelRef, count: int) -> list[Pair]:
    """Pairs spread evenly over a file, of those that fit the length limit: the first rows may be of one kind."""
    (source,) = resolve_sources([str(file)])
    renderer = Renderer(load_tokenizer(base, recipe), recipe.rendering)
    everything = list(read_rows(source))
    pairs: list[Pair] = []
    for row in everything[:: max(1, len(everything) // (2 * count))]:
        pair = to_pair(row)
        texts = [message.content for message in (*pair.chosen, *pair.rejected)]
        if all(text.strip() for text in texts) and tokenize_pairs([pair], renderer, LIMIT, "drop")[0]:
            pairs.append(pair)
    return pairs[:: max(1, len(pairs) // count)][:count]


def tokens(pairs: Sequence[Pair], recipe: Recipe, base: ModelRef) -> list[PromptResponses]:
    """Token ids of prompt, chosen and rejected."""
    renderer = Renderer(load_tokenizer(base, recipe), recipe.rendering)
    tokenized, _ = tokenize_pairs(pairs, renderer, LIMIT, "drop")
    return [(row.prompt_ids, (row.chosen_ids, row.rejected_ids)) for row in tokenized]


def speed(recipe: Recipe, base: ModelRef, groups: list[PromptResponses], folder: Path) -> dict[str, float]:
    """Rows per second of TRL in its default batches, of TRL row by row (no padding), and of Preflow."""
    precision = choose_precision(recipe)
    weights = load_weights(base.path, recipe, precision)
    store = LogprobStore(folder / "speed", identify(base, None, recipe, precision))
    trl = trl_forward(weights, groups, folder)

    def preflow(some: list[PromptResponses]) -> list[float]:
        fill(store, some, lambda: lambda asked: scores(weights, asked, precision), Silent(), "rows")
        return [sum(values) for group in some for values in store.get(group)]

    contenders: dict[str, Callable[[list[PromptResponses]], list[float]]] = {
        f"TRL, batches of {BATCH}": trl,
        "TRL, one by one": lambda some: [value for group in some for value in trl([group])],
        "Preflow": preflow,
    }
    trl(groups[:1])  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gap = 0.0
    for start in range(0, len(groups), BATCH):
        batch, values = groups[start : start + BATCH], {}
        for name, contender in contenders.items():
            begin = time.perf_counter()
            values[name] = contender(batch)
            seconds[name].append((time.perf_counter() - begin) / len(batch))
        first, _, last = values.values()
        gap = max([gap, *(abs(a - b) / max(abs(a), 1) for a, b in zip(first, last, strict=True))])
    lengths = [[len(group[0]), *map(len, group[1])] for group in groups]
    means = [round(sum(column) / len(groups)) for column in zip(*lengths, strict=True)]
    print(f"{len(groups)} rows; mean tokens of prompt, chosen, rejected: {means}")
    for name, values_of in seconds.items():
        print(f"{name:22s} {1 / median(values_of):6.2f} rows/s (median of {len(values_of)} batches)")
    batched, alone, ours = seconds.values()
    return {
        "rows_per_second_vs_trl": round(median(a / b for a, b in zip(batched, ours, strict=True)), 2),
        "rows_per_second_vs_trl_one_by_one": round(median(a / b for a, b in zip(alone, ours, strict=True)), 2),
        "largest_relative_difference": gap,
    }


def trl_forward(
    weights: Any, groups: list[PromptResponses], folder: Path
) -> Callable[[list[PromptResponses]], list[float]]:
    """TRL's own collator and ``compute_ref_log_probs`` on a batch."""
    from trl.trainer.dpo_config import DPOConfig

    def as_pairs(some: list[PromptResponses]) -> list[ScoredPair]:
        return [ScoredPair(list(p), list(c), list(r), [0.0] * len(c), [0.0] * len(r), "-") for p, (c, r) in some]

    config = DPOConfig(**trl_arguments(folder))
    trainer: Any = StoredReferenceTrainer(
        model=weights,
        args=config,
        train_dataset=as_dataset(as_pairs(groups), None),
        processing_class=load_tokenizer_of(weights),
    )

    def forward(some: list[PromptResponses]) -> list[float]:
        columns = ("prompt_ids", "chosen_ids", "rejected_ids")
        rows = [{name: getattr(pair, name) for name in columns} for pair in as_pairs(some)]
        batch = trainer._prepare_inputs(trainer.data_collator(rows))
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model.eval(), batch)
        return [value for both in zip(chosen.tolist(), rejected.tolist(), strict=True) for value in both]

    return forward


def load_tokenizer_of(weights: Any) -> Any:
    """The tokenizer saved with some loaded weights."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(weights.name_or_path)


if __name__ == "__main__":
    typer.run(main)
