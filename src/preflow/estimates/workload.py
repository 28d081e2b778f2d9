"""The micro-batches of a training and their token counts, from the lengths of its rows alone."""

import random
from collections.abc import Iterable, Sequence

from preflow.config import Recipe
from preflow.config.training import TrainingSettings
from preflow.estimates.flops import TokenWork, packed_pair, sequence
from preflow.models.packed.layout import shared_prefix_length
from preflow.training.sampler import LengthSampler
from preflow.training.token_budget import within_budget

#: Tokens of a row: a pair's (prompt, chosen, rejected), an SFT example's (all, response).
Lengths = tuple[int, ...]


def longest_sequence(row: Lengths) -> int:
    """Tokens of a row's longest sequence: prompt and longer response, or the whole SFT example."""
    return row[0] + max(row[1:]) if len(row) == 3 else row[0]


def packed_works(rows: Sequence[Lengths]) -> list[TokenWork]:
    """Token counts of each row by itself, packed: a pair's prompt runs once."""
    return [packed_pair(*each) if len(each) == 3 else sequence(*each) for each in rows]


def batch_work(rows: Sequence[Lengths], *, packed: bool, common: int = 0) -> TokenWork:
    """Token counts of one forward over some rows.

    Args:
        rows: Their tokens.
        packed: Whether they run packed; else all are padded to the longest, and a pair is two sequences.
        common: Length of the prefix that all of them share, which runs once where rows are packed.
    """
    if packed:
        return sum(packed_works(rows), TokenWork(0, 0, 0)).with_common_prefix(len(rows), common)
    width, responses = max(longest_sequence(each) for each in rows), 2 if len(rows[0]) == 3 else 1
    count = responses * len(rows)
    return TokenWork(count * width, count * width * width, sum(sum(each[1:]) for each in rows))


def batch_works(
    batches: Iterable[Sequence[Lengths]], settings: TrainingSettings, *, packed: bool, common: int
) -> list[TokenWork]:
    """Token counts of each of some batches; rows that may have been cut share no prefix with others."""
    limit = settings.max_seq_length
    return [
        batch_work(each, packed=packed, common=common if all(longest_sequence(row) < limit for row in each) else 0)
        for each in batches
    ]


def common_prefix_length(prompts: Iterable[Sequence[int]], rows: Iterable[Lengths], limit: int) -> int:
    """Length of the prefix that all prompts share, except those that ``limit`` may have cut at their beginning.

    Args:
        prompts: Token ids of each row's prompt.
        rows: Tokens of each row.
        limit: Tokens that a row may have.
    """
    both = zip(prompts, rows, strict=True)
    return shared_prefix_length(prompt[:-1] for prompt, row in both if longest_sequence(row) < limit)


def micro_batches(
    rows: Sequence[Lengths], recipe: Recipe, settings: TrainingSettings, *, packed: bool
) -> list[list[Lengths]]:
    """The rows of each micro-batch of an epoch, in an order drawn as the training draws its own."""
    size = settings.per_device_train_batch_size
    step = size * settings.gradient_accumulation_steps
    order = list(rows)
    if settings.batching == "length":
        costs = [_budgeted_tokens(row, packed=packed) for row in rows]
        order = [rows[place] for place in LengthSampler(costs, step * recipe.launch.num_processes, recipe.seed)]
    else:
        random.Random(recipe.seed).shuffle(order)
    budget = settings.max_tokens_per_batch
    if budget is None:
        return [order[i : i + size] for i in range(0, len(order), size)]
    steps = [order[i : i + step] for i in range(0, len(order), step)]
    return [
        [some[place] for place in part]
        for some in steps
        for part in within_budget([_budgeted_tokens(row, packed=packed) for row in some], budget, padded=not packed)
    ]


def _budgeted_tokens(row: Lengths, *, packed: bool) -> int:
    """Tokens of a row as ``max_tokens_per_batch`` counts them."""
    if len(row) == 2:
        return row[0]
    return sum(row) if packed else 2 * longest_sequence(row)


def epoch_works(
    rows: Sequence[Lengths], recipe: Recipe, settings: TrainingSettings, *, packed: bool, common: int
) -> list[TokenWork]:
    """Token counts of each micro-batch of an epoch."""
    return batch_works(micro_batches(rows, recipe, settings, packed=packed), settings, packed=packed, common=common)
