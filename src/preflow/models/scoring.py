"""Log-probs of responses under a model.

A prompt runs once for all its responses (``preflow.models.packed.layout``). On the CPU one prompt runs at a time, on
one core: a value's bits depend neither on other rows nor on the other response. On a GPU many rows run together, fewer
where it is out of memory, and values agree within the limits of ``preflow.maths.agreement``.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from preflow.maths.logprobs import token_logprobs
from preflow.models.adapters import inner_model, keeping
from preflow.models.loading import LanguageModel
from preflow.models.packed.attention import no_mask, register_packed_attention
from preflow.models.packed.layout import PromptResponses, in_one_row
from preflow.models.packed.support import unsupported_reason
from preflow.models.precision import Precision

T = TypeVar("T")
R = TypeVar("R")
#: Token ids of a prompt and of a response to it.
PromptResponse = tuple[Sequence[int], Sequence[int]]
#: Gives the log-probs of some groups, group by group, as they are ready.
Scorer = Callable[[Sequence[PromptResponses]], Iterable[list[Tensor]]]
#: Tokens of a batch on a GPU, as far as its memory goes.
BATCH_TOKENS = 16_384
#: lm_head positions computed at once.
HEAD_ROWS = 4096
#: What a GPU tries one after another when it is out of memory: tokens of a batch, lm_head positions at once.
GPU_BATCHES = tuple((BATCH_TOKENS >> n, HEAD_ROWS >> n) for n in range(7))
#: Matrices of fewer rows go through kernels of their own, whose last bits differ: shorter rows get company.
_NARROW = 16


@torch.no_grad()
def response_logits(model: LanguageModel, row: PromptResponse, precision: Precision) -> Tensor:
    """Scores before softmax at every position that predicts a response token.

    Args:
        model: A causal language model in evaluation mode.
        row: Prompt of P tokens (at least one) and response of R tokens.
        precision: Where and in which dtype the forward runs.

    Returns:
        Shape ``(R, V)``, on the model's device; row t predicts response token t.
    """
    prompt, response = row
    ids = torch.tensor([[*prompt, *response]], device=precision.device)
    # Only the last R + 1 positions are projected to the vocabulary; the last of them predicts nothing here.
    kept = len(response) + 1
    with precision.autocast():
        logits: Tensor = model(input_ids=ids, use_cache=False, **keeping(model, kept)).logits
    return logits[0, -kept:-1]


def response_logprobs(model: LanguageModel, row: PromptResponse, precision: Precision) -> Tensor:
    """Log-prob of each response token, shape ``(R,)``, nats, float32, on the CPU."""
    logits = response_logits(model, row, precision)
    targets = torch.tensor(list(row[1]), device=logits.device)
    return token_logprobs(logits, targets).cpu()


def _group_logprobs(
    model: LanguageModel, group: PromptResponses, precision: Precision, *, packed: bool
) -> list[Tensor]:
    """Log-probs of every response to one prompt, in one forward where the architecture allows it."""
    if packed:
        return batch_logprobs(model, [group], precision)[0]
    prompt, responses = group
    return [response_logprobs(model, (prompt, response), precision) for response in responses]


@torch.no_grad()
def batch_logprobs(
    model: LanguageModel, groups: Sequence[PromptResponses], precision: Precision, head_rows: int = HEAD_ROWS
) -> list[list[Tensor]]:
    """Log-probs of the responses to several prompts from one forward of one row without padding.

    Only for architectures that ``support.unsupported_reason`` lets through.

    Args:
        model: A causal language model in evaluation mode.
        groups: Prompts with their responses.
        precision: Where and in which dtype the forward runs.
        head_rows: lm_head positions computed at once.

    Returns:
        Per group and response of R tokens a tensor of shape ``(R,)``: nats, float32, on the CPU.
    """
    inner = inner_model(model)
    register_packed_attention(inner)
    count = sum(len(response) for _, responses in groups for response in responses)
    filler: list[PromptResponses] = [([0, 0], [[0] * _NARROW])] if count < _NARROW else []
    row = in_one_row([*groups, *filler], precision.device)
    with precision.autocast():
        states: Tensor = inner.base_model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            attention_mask=no_mask(precision.device),
            layout=row.layout,
            use_cache=False,
        ).last_hidden_state
        wanted = states[0, row.scored].split(head_rows)  # type: ignore[no-untyped-call]
        targets = row.targets.split(head_rows)  # type: ignore[no-untyped-call]
        values = [token_logprobs(_logits(inner, h), t) for h, t in zip(wanted, targets, strict=True)]
    rows = iter(torch.cat(values)[:count].cpu().split([len(r) for _, responses in groups for r in responses]))  # type: ignore[no-untyped-call]
    return [[next(rows) for _ in responses] for _, responses in groups]


def _logits(model: LanguageModel, hidden: Tensor) -> Tensor:
    """Scores before softmax of last hidden states ``(S, E)``: shape ``(S, V)``."""
    logits: Tensor = model.get_output_embeddings()(hidden)
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def scores(
    model: LanguageModel,
    groups: Sequence[PromptResponses],
    precision: Precision,
    sizes: list[tuple[int, int]] | None = None,
) -> Iterator[list[Tensor]]:
    """Log-probs of many groups, in order: on the CPU one prompt at a time per core, on a GPU in packed batches.

    Args:
        model: A causal language model in evaluation mode.
        groups: Prompts with their responses.
        precision: Device and dtypes.
        sizes: As ``GPU_BATCHES``; those that turn out too large are removed, so that later calls begin with what fits.
    """
    packed = unsupported_reason(inner_model(model)) is None  # once: it looks at every module
    score = partial(_group_logprobs, model, precision=precision, packed=packed)
    if precision.device.type == "cpu":
        yield from _one_per_core(model, groups, score)
    elif packed:
        yield from _in_batches(model, groups, precision, list(GPU_BATCHES) if sizes is None else sizes)
    else:
        yield from map(score, groups)


def _in_batches(
    model: LanguageModel,
    groups: Sequence[PromptResponses],
    precision: Precision,
    sizes: list[tuple[int, int]],
) -> Iterator[list[Tensor]]:
    """Log-probs of many groups, in order, in packed batches: after running out of memory in ones of half the size.

    A group that alone is larger than a batch runs response by response once batches are smaller than at the beginning.
    """
    left = deque(groups)
    while left:
        (tokens, head_rows), *smaller = sizes
        batch = next(batches(left, tokens))
        (prompt, responses), alone = batch[0], len(batch) == 1
        apart = alone and len(responses) > 1 and tokens < packed_length(batch[0]) and tokens < BATCH_TOKENS
        try:
            if apart:
                each = list(_in_batches(model, [(prompt, [response]) for response in responses], precision, sizes))
                values = [[value for one in each for value in one]]
            else:
                values = batch_logprobs(model, batch, precision, head_rows)
        except RuntimeError as error:
            if apart or not smaller or not should_reduce_batch_size(error):
                raise
        else:
            yield from values
            for _ in batch:
                left.popleft()
            continue
        del sizes[0]
        clear_device_cache(garbage_collection=True)  # here, where no traceback holds what did not fit any more


def all_response_logits(model: LanguageModel, rows: Sequence[PromptResponse], precision: Precision) -> Iterator[Tensor]:
    """What ``response_logits`` gives, of many rows, in order: on the CPU one row at a time per core."""
    if precision.device.type == "cpu":
        yield from _one_per_core(model, rows, lambda row: response_logits(model, row, precision))
    else:
        yield from (response_logits(model, row, precision) for row in rows)


def _one_per_core(model: LanguageModel, items: Sequence[T], score: Callable[[T], R]) -> Iterator[R]:
    """Score items on the CPU, each on a core of its own.

    A prompt with its responses is too little work to split among cores. Within a core nothing is split, so
    a value's bits do not depend on how many cores there are either.
    """
    cores = torch.get_num_threads()
    # bitsandbytes repacks a layer's weights when it first runs, which two threads must not do at once.
    workers = 1 if getattr(inner_model(model), "is_loaded_in_4bit", False) else cores
    torch.set_num_threads(1)  # of this thread and of every thread that starts from now on
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(score, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)


def batches(groups: Iterable[PromptResponses], tokens: int) -> Iterator[list[PromptResponses]]:
    """Neighbours in batches of at most ``tokens`` tokens (or one group alone)."""
    batch: list[PromptResponses] = []
    total = 0
    for group in groups:
        length = packed_length(group)
        if batch and total + length > tokens:
            yield batch
            batch, total = [], 0
        batch.append(group)
        total += length
    if batch:
        yield batch


def packed_length(group: PromptResponses) -> int:
    """Places that a prompt with all its responses takes in a packed row."""
    prompt, responses = group
    return len(prompt) - 1 + sum(len(response) for response in responses)
