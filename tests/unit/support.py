"""What several tests of stages build alike: recipes, rows, an observer that keeps numbers, a scorer that counts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from preflow.config import Recipe
from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.validated import rows_file, write_rows
from preflow.distributed import Ranks
from preflow.logprobs.fill import FillStats, fill
from preflow.logprobs.identity import ReferenceIdentity
from preflow.logprobs.scored_pairs import BLOCK, PairTable, ScoredPair, write_blocks
from preflow.logprobs.store import LogprobStore
from preflow.models.packed.layout import PromptResponses
from preflow.models.resolve import ModelRef
from preflow.models.scoring import Scorer
from preflow.observer import Silent

TRAIN_PAIRS, EVAL_PAIRS = 24, 8
COMMON = {"dataset": "-", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "save_steps": 2}


def shared_data(name: str) -> Path:
    """A file of real rows, which are no part of the repository; a test is skipped where it is absent."""
    folder = Path(os.environ.get("PREFLOW_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (folder / name).is_file():
        pytest.skip(f"{folder / name} is not there")
    return folder / name


def recipe_for(model: ModelRef, **changes: object) -> Recipe:
    """A two-stage recipe for the tiny model."""
    settings: dict[str, object] = {
        "model_name": model.path,
        "max_seq_length": 256,
        "lora_r": 4,
        "sft": {**COMMON, "learning_rate": 1e-2},
        "dpo": {**COMMON, "learning_rate": 1e-3},
        "evaluation": {"kl_prompts": 2, "max_new_tokens": 6, "bootstrap_samples": 100},
    }
    return Recipe.model_validate({**settings, **changes})


def turns(prompt: str, *responses: str) -> list[tuple[Message, ...]]:
    """A prompt and responses as single turns."""
    return [(Message("user", prompt),), *((Message("assistant", text),) for text in responses)]


def write_data(out: Path) -> None:
    """A validate stage's folder, written directly."""
    rows = [turns(f"Where is order {i}?", f"Order {i} is on its way{'!' * (i % 5)}") for i in range(24)]
    demonstrations = [Demonstration(p + c, Source("d.jsonl", i)) for i, (p, c) in enumerate(rows)]
    texts = [
        turns(f"Can I return item {i}{' please' * (i % 4)}?", f"Of course, bring item {i} back.", f"No idea about {i}.")
        for i in range(TRAIN_PAIRS + EVAL_PAIRS)
    ]
    pairs = [Pair(p, c, r, Source("p.jsonl", i)) for i, (p, c, r) in enumerate(texts)]
    write_rows(out / rows_file("demonstrations", "train"), demonstrations[:-6])
    write_rows(out / rows_file("demonstrations", "eval"), demonstrations[-6:])
    write_rows(out / rows_file("preferences", "train"), pairs[:TRAIN_PAIRS])
    write_rows(out / rows_file("preferences", "eval"), pairs[TRAIN_PAIRS:])


def write_pairs(path: Path, pairs: Sequence[ScoredPair]) -> None:
    """Scored pairs as a reference artifact holds them."""
    table = PairTable.of(pairs).table
    write_blocks(path, (table.slice(start, BLOCK).combine_chunks() for start in range(0, len(table), BLOCK)))


class Recorder(Silent):
    """Keeps the last value of every metric."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep them."""
        self.values.update(values)


class Notes(Silent):
    """Keeps every note."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def note(self, message: str) -> None:
        """Keep it."""
        self.messages.append(message)


def rows(numbers: range | list[int], long: bool = False) -> list[Pair]:
    """Pairs, each of its number alone; every third one has a long prompt where asked."""
    texts = [
        turns(
            f"Can I return item {i}{' please' * (30 if long and i % 3 == 0 else 1)}?",
            f"Of course, bring {i}.",
            f"No {i}.",
        )
        for i in numbers
    ]
    return [Pair(p, c, r, Source("p.jsonl", i)) for i, (p, c, r) in zip(numbers, texts, strict=True)]


MODEL = ReferenceIdentity({"weights": "abc"}, "a model", {})
OTHER = ReferenceIdentity({"weights": "abd"}, "another model", {})


def group(i: int) -> PromptResponses:
    return [1, 2, i], ([3, i], [4])


def values_of(i: int) -> list[list[float]]:
    return [[-float(i)] * 2, [-float(i)]]


class CountingScorer:
    """A scorer that counts what it is asked; the values tell which group they belong to."""

    def __init__(self) -> None:
        self.asked: list[PromptResponses] = []
        self.loads = 0

    def load(self) -> Scorer:
        self.loads += 1
        return self.score

    def score(self, groups: Sequence[PromptResponses]) -> Iterator[list[torch.Tensor]]:
        for asked in groups:
            self.asked.append(asked)
            yield [torch.full((len(response),), -float(asked[0][-1])) for response in asked[1]]


def filled(
    url: str | Path, groups: list[PromptResponses], reference: ReferenceIdentity = MODEL, ranks: Ranks | None = None
) -> tuple[LogprobStore, CountingScorer, FillStats]:
    counting = CountingScorer()
    store = LogprobStore(url, reference)
    stats = fill(store, groups, counting.load, Silent(), "test", ranks=ranks)
    return store, counting, stats
