"""What is run: models made from configurations, rows of random tokens, and their sizes on a GPU and in a dry run."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import LlamaConfig

from bench.bench_dpo import ONE_BILLION, Tokens, drawn_pairs
from preflow.data.rows import Source
from preflow.data.tokens.tokenize import TokenizedDemonstration
from preflow.models.precision import Precision

#: Llama 3.1's shape with 8B parameters.
EIGHT_BILLION = LlamaConfig(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, tie_word_embeddings=False, max_position_embeddings=4096, pad_token_id=0,
)  # fmt: skip
#: Of a dry run: the narrowest heads that a GPU's attention has.
TINY = LlamaConfig(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=4096, pad_token_id=0,
)  # fmt: skip


@dataclass(frozen=True)
class RowSet:
    """Rows of one kind.

    Attributes:
        name: ``hh`` or ``1024``.
        batch: Rows of a batch; every step has one.
        steps: Counted ones.
        draw: Gives so many pairs of tokens below so many.
    """

    name: str
    batch: int
    steps: int
    draw: Callable[[int, int], list[Tokens]]

    def pairs(self, vocabulary: int) -> list[Tokens]:
        """Those of all steps, and of one before them that does not count."""
        return self.draw((self.steps + 1) * self.batch, vocabulary)


@dataclass(frozen=True)
class Workload:
    """Sizes of a check.

    Attributes:
        precision: Device and dtypes.
        model: Configuration of the model that is trained, of about 1B parameters.
        large: Of a larger one, of 8B.
        row_sets: What is trained on and scored.
        matrix: Width of the square matrices whose product gives the GPU's rate.
        scored: Rows of each set that are scored.
        prompts: That are answered at once.
        answer: Tokens of an answer.
        start_method: How processes start.
        dry: Whether tiny sizes run on the CPU.
    """

    precision: Precision
    model: LlamaConfig
    large: LlamaConfig
    row_sets: tuple[RowSet, ...]
    matrix: int
    scored: int
    prompts: int
    answer: int
    start_method: str
    dry: bool


def workload(dry: bool, start_method: str = "fork") -> Workload:
    """The sizes on a GPU, or those of a dry run."""
    if dry:
        precision = Precision(torch.device("cpu"), torch.bfloat16, torch.bfloat16)
        row_sets = (RowSet("hh", 2, 1, _short_pairs), RowSet("1024", 2, 1, _full_pairs_of_32))
        return Workload(precision, TINY, TINY, row_sets, 128, 4, 2, 4, start_method, dry)
    precision = Precision(torch.device("cuda"), torch.bfloat16, torch.bfloat16)
    row_sets = (RowSet("hh", 32, 5, drawn_pairs), RowSet("1024", 16, 3, full_pairs))
    return Workload(precision, ONE_BILLION, EIGHT_BILLION, row_sets, 8192, 256, 32, 128, start_method, dry)


def full_pairs(count: int, vocabulary: int, length: int = 1024) -> list[Tokens]:
    """Pairs whose prompt with either response has so many tokens, half of them the prompt's: nothing is padded."""
    rng, half = random.Random(0), length // 2
    return [
        (_tokens(rng, half, vocabulary), _tokens(rng, half, vocabulary), _tokens(rng, half, vocabulary))
        for _ in range(count)
    ]


def _full_pairs_of_32(count: int, vocabulary: int) -> list[Tokens]:
    return full_pairs(count, vocabulary, 32)


def _short_pairs(count: int, vocabulary: int) -> list[Tokens]:
    """The beginnings of those that are drawn for a GPU."""
    return [(prompt[:44], chosen[:12], rejected[:12]) for prompt, chosen, rejected in drawn_pairs(count, vocabulary)]


def _tokens(rng: random.Random, count: int, vocabulary: int) -> list[int]:
    return [rng.randrange(100, vocabulary) for _ in range(count)]


def demonstrations(pairs: list[Tokens]) -> list[TokenizedDemonstration]:
    """SFT examples: prompt and chosen response of each pair."""
    return [
        TokenizedDemonstration(
            [*prompt, *chosen], [False] * len(prompt) + [True] * len(chosen), Source("random", number)
        )
        for number, (prompt, chosen, _) in enumerate(pairs)
    ]
