"""What people change between two runs, and the rows of which TRL and Preflow compute reference log-probs after each."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflow.artifacts import build
from preflow.config import Recipe
from preflow.data.rows import Pair
from preflow.data.validated import rows_file, write_rows
from preflow.models.resolve import ModelRef
from preflow.observer import Silent
from preflow.specs import ReferenceSpec
from preflow.stages.reference import run_reference

#: TRL's default batch.
BATCH = 8
LIMIT = 1024
#: Rows added by the change "rows appended".
MORE = 2


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
