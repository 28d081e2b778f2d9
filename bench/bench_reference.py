"""Reference log-probs: TRL's ``precompute_ref_log_probs`` and Preflow's store, side by side in one run.

``python -m bench.bench_reference [--data FILE] [--rows N] [--quick]`` prints, first, rows (pairs) per second of both on
the same token ids and weights, batch by batch in turn; then, for a sequence of changes, the rows that each computes
and its seconds: TRL's shipped trainer on a JSON file, Preflow's reference stage on the same rows. TRL's seconds are
those of its precompute alone, Preflow's those of the whole stage. Before that a store of ``--readback`` responses is
read back into a training set (``bench/readback.py`` says what is measured). The last line is one JSON object.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from datasets import disable_progress_bars

from bench.readback import measure
from preflow.artifacts import build
from preflow.config import Recipe
from preflow.data.conversion import to_pair
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.rows import Pair
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_pairs
from preflow.data.validated import rows_file, write_rows
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
from preflow.specs import ReferenceSpec
from preflow.stages.reference import run_reference

#: TRL's default batch.
BATCH = 8
LIMIT = 1024
#: Rows added by the change "rows appended".
MORE = 2
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
    renderer = Renderer(load_tokenizer(base, recipe), recipe.template)
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
    renderer = Renderer(load_tokenizer(base, recipe), recipe.template)
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


def trl_arguments(folder: Path) -> dict[str, Any]:
    """What every TRL trainer here is given."""
    import torch

    return {
        "output_dir": str(folder / "trl"),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "max_length": LIMIT,
        "report_to": "none",
        "precompute_ref_log_probs": True,
        "per_device_train_batch_size": BATCH,
    }


@dataclass(frozen=True)
class Change:
    """One step of the sequence.

    Attributes:
        name: For people.
        recipe: Changed settings of the dpo section, by Preflow's names.
        trl: The same by TRL's.
        rows: Makes the rows from all of them; the first ``few`` are those that the sequence begins with.
    """

    name: str
    recipe: dict[str, Any]
    trl: dict[str, Any]
    rows: Callable[[list[Pair]], list[Pair]]


def sequence() -> Iterator[Change]:
    """What people change between two runs."""

    def start(pairs: list[Pair]) -> list[Pair]:
        return pairs[:-MORE]

    yield Change("first run", {}, {}, start)
    yield Change("same again", {}, {}, start)
    settings: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("learning rate", {"learning_rate": 3e-6}, {"learning_rate": 3e-6}),
        ("beta", {"beta": 0.3}, {"beta": 0.3}),
        ("loss type", {"loss_type": "ipo"}, {"loss_type": ["ipo"]}),
        ("batch size", {"per_device_train_batch_size": 2}, {"per_device_train_batch_size": 2}),
        ("seed", {}, {"seed": 7}),
        ("epochs", {"num_train_epochs": 2.0}, {"num_train_epochs": 2.0}),
        ("output folder", {}, {"output_dir": "elsewhere"}),
        ("run's name", {}, {"run_name": "another"}),
    ]
    for name, ours, theirs in settings:
        yield Change(name, ours, theirs, start)
    yield Change(f"{MORE} rows appended", {}, {}, lambda pairs: pairs)
    yield Change("rows reordered", {}, {}, lambda pairs: pairs[::-1])
    yield Change("rows taken out", {}, {}, lambda pairs: pairs[1:])


def changes(recipe: Recipe, base: ModelRef, pairs: list[Pair], folder: Path) -> dict[str, dict[str, int]]:
    """Rows computed by each after each change."""
    counts: dict[str, dict[str, int]] = {}
    print(f"{'change':18s} {'rows':>5s} {'TRL computed':>13s} {'s':>7s} {'Preflow computed':>17s} {'s':>7s}")
    for number, change in enumerate(sequence()):
        rows = change.rows(pairs)
        theirs, their_seconds = by_trl(base, rows, change, folder / f"{number}")
        ours, our_seconds = by_preflow(recipe, base, rows, change, folder / f"{number}")
        print(
            f"{change.name:18s} {len(rows):5d} {theirs:13d} {their_seconds:7.1f} {ours:17d} {our_seconds:7.1f}",
            flush=True,
        )
        counts[change.name] = {"trl": theirs, "preflow": ours}
    return counts


def by_trl(base: ModelRef, rows: list[Pair], change: Change, folder: Path) -> tuple[int, float]:
    """Rows computed and seconds of TRL's shipped trainer, from a JSON file of messages."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    file = folder.parent / f"rows-{hash(tuple(str(pair.source) for pair in rows))}.jsonl"
    if not file.exists():  # an unchanged file stays the same file
        lines = [
            {
                side: [{"role": m.role, "content": m.content} for m in getattr(pair, side)]
                for side in ("prompt", "chosen", "rejected")
            }
            for pair in rows
        ]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = trl_arguments(folder.parent) | change.trl
    if "output_dir" in change.trl:
        arguments["output_dir"] = str(folder / "elsewhere")
    cache = str(folder.parent / "hf")
    with counted(DPOTrainer) as tally:
        DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(base.path),
            args=DPOConfig(**arguments),
            train_dataset=load_dataset("json", data_files=str(file), split="train", cache_dir=cache),
            processing_class=AutoTokenizer.from_pretrained(base.path),
        )
    return int(tally["rows"]), tally["seconds"]


@contextmanager
def counted(trainer: Any) -> Iterator[dict[str, float]]:
    """Count the rows of which a trainer class computes reference log-probs, and the seconds of its precompute."""
    tally = {"rows": 0.0, "seconds": 0.0}
    compute, precompute = trainer.compute_ref_log_probs, trainer._precompute_ref_logps

    def counting(self: Any, model: Any, inputs: Any) -> Any:
        tally["rows"] += len(inputs["input_ids"]) // 2
        return compute(self, model, inputs)

    def timing(self: Any, *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = precompute(self, *arguments)
        tally["seconds"] += time.perf_counter() - begin
        return result

    trainer.compute_ref_log_probs, trainer._precompute_ref_logps = counting, timing
    try:
        yield tally
    finally:
        trainer.compute_ref_log_probs, trainer._precompute_ref_logps = compute, precompute


class Recorder(Silent):
    """Keeps the metrics of the stage."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def metrics(self, values: Any, step: int) -> None:
        """Keep them."""
        self.values.update(values)


def by_preflow(recipe: Recipe, base: ModelRef, rows: list[Pair], change: Change, folder: Path) -> tuple[int, float]:
    """Rows computed and seconds of the whole reference stage."""

    def write(out: Path) -> None:
        write_rows(out / rows_file("preferences", "train"), rows[1:])
        write_rows(out / rows_file("preferences", "eval"), rows[:1])

    data = build(folder / "data", write)
    assert recipe.dpo is not None, "the benchmark's recipe has a DPO section"
    section = recipe.dpo.model_dump() | change.recipe
    changed = Recipe.model_validate({**recipe.model_dump(), "dpo": section, "seed": change.trl.get("seed", 42)})
    recorder, begin = Recorder(), time.perf_counter()
    spec = ReferenceSpec(recipe=changed, base=base, data=data)
    build(folder / "reference", lambda out: run_reference(spec, out, recorder))
    return int(recorder.values["scoring/rows_computed"]), time.perf_counter() - begin


if __name__ == "__main__":
    typer.run(main)
