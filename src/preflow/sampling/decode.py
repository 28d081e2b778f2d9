"""Several answers to each of many prompts at once.

Prompts are sorted by length, so that a batch has little padding; a prompt runs through the model once for all its
answers, which share its cache; an answer that has ended leaves the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from preflow.models.adapters import keeping
from preflow.models.loading import LanguageModel
from preflow.models.out_of_memory import run_in_halving_batches
from preflow.models.precision import Precision
from preflow.sampling.draw import answer_generator, choose, gumbel


@dataclass(frozen=True, slots=True)
class Wanted:
    """Answers that are asked for.

    Attributes:
        prompt: P token ids, the generation prompt included.
        numbers: Which answers, counted from 0: each has random numbers of its own.
    """

    prompt: Sequence[int]
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are sampled.

    Attributes:
        temperature: What logits are divided by.
        top_p: Probability of the most probable tokens that are drawn from; 1 for all.
        max_new_tokens: Longest answer.
        ends: Token ids that end an answer.
        seed: Of all random numbers.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    ends: tuple[int, ...]
    seed: int


@dataclass(slots=True)
class _Answer:
    """An answer on its way: where it belongs, its random numbers, its tokens so far."""

    place: tuple[int, int]
    prompt: Sequence[int]
    generator: torch.Generator
    ids: list[int]


def sample_answers(
    model: LanguageModel,
    wanted: Sequence[Wanted],
    decoding: Decoding,
    precision: Precision,
    batch_size: int,
    note: Callable[[str], None],
) -> Iterator[list[tuple[int, list[list[int]]]]]:
    """Sample answers, batch by batch, the longest prompts first.

    In float32 on the CPU an answer depends on the model, its prompt, its number and the decoding alone, bit for bit:
    neither on the other prompts nor on the size of a batch. Elsewhere the last digits of a batch may decide a token.

    Args:
        model: A causal language model in evaluation mode.
        wanted: Prompts with the numbers of their answers, at least one each.
        decoding: How.
        precision: Where and in which dtype the forward runs.
        batch_size: Answers that are decoded together, as far as one prompt has not more.
        note: Told where a batch did not fit into memory.

    Yields:
        Of each batch the places in ``wanted``, with their answers of 1 to ``max_new_tokens`` token ids, the token that
        ended one included.
    """
    order = sorted(range(len(wanted)), key=lambda place: (-len(wanted[place].prompt), place))
    most = max((len(one.numbers) for one in wanted), default=1)
    batches = run_in_halving_batches(
        order,
        max(1, batch_size // most),
        lambda places: _batch(model, [wanted[place] for place in places], decoding, precision),
        lambda tried, size: note(f"out of memory with {tried} prompts at once; trying {size}"),
    )
    for places, answers in batches:
        yield list(zip(places, answers, strict=True))


@torch.inference_mode()
def _batch(
    model: LanguageModel, batch: Sequence[Wanted], decoding: Decoding, precision: Precision
) -> list[list[list[int]]]:
    """The answers to the prompts of one batch, in order."""
    found: list[list[list[int]]] = [[[] for _ in one.numbers] for one in batch]
    device = precision.device
    alive = [
        _Answer((row, place), one.prompt, answer_generator(decoding.seed, one.prompt, number, device), [])
        for row, one in enumerate(batch)
        for place, number in enumerate(one.numbers)
    ]
    state = _Prefilled.of(model, [one.prompt for one in batch], [answer.place[0] for answer in alive], precision)
    while True:
        tokens = _draw(model, alive, state.logits, decoding, precision)
        for answer, token in zip(alive, tokens, strict=True):
            answer.ids.append(token)
        kept = [
            row for row, answer in enumerate(alive)
            if answer.ids[-1] not in decoding.ends and len(answer.ids) < decoding.max_new_tokens
        ]  # fmt: skip
        for answer in alive:
            found[answer.place[0]][answer.place[1]] = answer.ids
        if not kept:
            return found
        if len(kept) < len(alive):
            alive = [alive[row] for row in kept]
            state.keep(kept)
        state.advance(model, [answer.ids[-1] for answer in alive], precision)


@dataclass(slots=True)
class _Prefilled:
    """What the model knows of a batch.

    Attributes:
        cache: Keys and values of every row so far.
        mask: Which places of the cache count, shape ``(N, T)``.
        lengths: Tokens of each row, shape ``(N,)``.
        logits: Scores of each row's next token, shape ``(N, V)``.
    """

    cache: Any
    mask: Tensor
    lengths: Tensor
    logits: Tensor

    @classmethod
    def of(
        cls, model: LanguageModel, prompts: Sequence[Sequence[int]], rows: Sequence[int], precision: Precision
    ) -> "_Prefilled":
        """Run each prompt once, padded on the left, and give each of ``rows`` the cache of its prompt."""
        width, device = max(map(len, prompts)), precision.device
        ids = torch.tensor([[prompt[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        places = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        with precision.autocast():
            out = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, **keeping(model, 1))
        picked = torch.tensor(rows, device=device)
        out.past_key_values.batch_select_indices(picked)
        return cls(out.past_key_values, mask[picked], mask.sum(dim=-1)[picked], out.logits[:, -1][picked])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some rows alone."""
        picked = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(picked)
        self.mask, self.lengths = self.mask[picked], self.lengths[picked]

    def advance(self, model: LanguageModel, tokens: Sequence[int], precision: Precision) -> None:
        """Run one more token of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=-1)
        ids = torch.tensor(tokens, device=self.mask.device)[:, None]
        with precision.autocast():
            out = model(
                input_ids=ids,
                attention_mask=self.mask,
                position_ids=self.lengths[:, None],
                past_key_values=self.cache,
                use_cache=True,
            )
        self.lengths = self.lengths + 1
        self.logits = out.logits[:, -1]


def _draw(
    model: LanguageModel, alive: Sequence[_Answer], logits: Tensor, decoding: Decoding, precision: Precision
) -> list[int]:
    """The next token of every answer."""
    noise = torch.stack([gumbel(logits.shape[-1], answer.generator) for answer in alive])
    tokens, doubts = choose(logits, noise, decoding.temperature, decoding.top_p)
    chosen: list[int] = tokens.tolist()
    if precision.device.type == "cpu" and precision.compute is torch.float32:
        for row in doubts.nonzero()[:, 0].tolist():
            alone = _alone(model, [*alive[row].prompt, *alive[row].ids], precision)
            again, _ = choose(alone[None], noise[row][None], decoding.temperature, decoding.top_p)
            chosen[row] = int(again)
    return chosen


def _alone(model: LanguageModel, ids: Sequence[int], precision: Precision) -> Tensor:
    """Scores of the token after some, from a forward of these alone on one core, shape ``(V,)``."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)  # with another number of threads the last digits are others
    try:
        with precision.autocast():
            logits: Tensor = model(
                input_ids=torch.tensor([list(ids)], device=precision.device), use_cache=False, **keeping(model, 1)
            ).logits
    finally:
        torch.set_num_threads(cores)
    return logits[0, -1]
