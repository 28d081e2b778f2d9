"""Log-probs of responses under a model.

On the CPU one prompt is run at a time, and each response alone over it: a value's bits never depend on other rows. On
a GPU rows of similar length are packed together, and values agree within the tolerance of ``preflow.maths.logprobs``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from transformers import DynamicCache

from preflow.maths.logprobs import token_logprobs
from preflow.models.adapters import inner_model
from preflow.models.loading import LanguageModel
from preflow.models.packing import IGNORED, pack, why_not
from preflow.models.precision import Precision

#: Token ids of a prompt and of a response to it.
Row = tuple[Sequence[int], Sequence[int]]
#: Token ids of a prompt and of every response to it that is scored together.
Group = tuple[Sequence[int], Sequence[Sequence[int]]]
#: Gives the log-probs of some groups, group by group, as they are ready.
Scorer = Callable[[Sequence[Group]], Iterable[list[Tensor]]]
#: Places of a batch on a GPU, padding included: the mask is of this many times the longest row.
BATCH_TOKENS = 16_384
#: Positions projected to the vocabulary at once.
_HEAD_ROWS = 4096


@torch.no_grad()
def response_logits(model: LanguageModel, row: Row, precision: Precision) -> Tensor:
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
    with precision.autocast():
        # Only the last R + 1 positions are projected to the vocabulary; the last of them predicts nothing here.
        logits: Tensor = model(input_ids=ids, logits_to_keep=len(response) + 1, use_cache=False).logits
    return logits[0, :-1]


def response_logprobs(model: LanguageModel, row: Row, precision: Precision) -> Tensor:
    """Log-prob of each response token, shape ``(R,)``, nats, float32, on the CPU."""
    logits = response_logits(model, row, precision)
    targets = torch.tensor(list(row[1]), device=logits.device)
    return token_logprobs(logits, targets).cpu()


@torch.no_grad()
def group_logprobs(model: LanguageModel, group: Group, precision: Precision) -> list[Tensor]:
    """Log-probs of every response to one prompt; the prompt runs once where the architecture allows it.

    Each response runs alone over the prompt's kept keys and values, so its bits depend on the prompt and on itself,
    not on how many others stand beside it. No forward is of a single token: those take kernels of their own, which
    for 4-bit weights on the CPU compute in bfloat16.

    Returns:
        Per response of R tokens a tensor of shape ``(R,)``: nats, float32, on the CPU.
    """
    prompt, responses = group
    if why_not(model) is not None:
        return [response_logprobs(model, (prompt, response), precision) for response in responses]
    cache = DynamicCache(config=model.config)
    shared, last = list(prompt[:-1]), prompt[-1]

    def run(tokens: list[int], keep: int) -> Tensor:
        ids = torch.tensor([tokens], device=precision.device)
        with precision.autocast():
            output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep)
        logits: Tensor = output.logits[0]
        return logits

    if len(shared) < 2:
        return [response_logprobs(model, (prompt, response), precision) for response in responses]
    run(shared, keep=1)
    values = []
    for response in responses:
        if len(response) < 2:
            values.append(response_logprobs(model, (prompt, response), precision))
            continue
        logits = run([last, *response[:-1]], keep=len(response))
        values.append(token_logprobs(logits, torch.tensor(list(response), device=logits.device)).cpu())
        cache.crop(-len(response))
    return values


@torch.no_grad()
def batch_logprobs(model: LanguageModel, groups: Sequence[Group], precision: Precision) -> list[list[Tensor]]:
    """Log-probs of the responses to several prompts from one packed forward, for devices that want large batches.

    A value's last bits depend on what stands in the batch. Only for architectures of ``packing.KNOWN``.

    Returns:
        Per group what ``group_logprobs`` gives.
    """
    inner = inner_model(model)
    packed = pack(groups, pad=0, device=precision.device)
    with precision.autocast():
        states: Tensor = inner.base_model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            attention_mask=packed.mask,
            use_cache=False,
        ).last_hidden_state
        scored = packed.targets != IGNORED
        wanted, targets = states[scored], packed.targets[scored]
        parts = [slice(start, start + _HEAD_ROWS) for start in range(0, len(targets), _HEAD_ROWS)]
        values = torch.cat([token_logprobs(inner.lm_head(wanted[part]), targets[part]) for part in parts]).cpu()
    rows = iter(values.split([len(response) for _, responses in groups for response in responses]))  # type: ignore[no-untyped-call]
    return [[next(rows) for _ in responses] for _, responses in groups]


def scores(model: LanguageModel, groups: Sequence[Group], precision: Precision) -> Iterator[list[Tensor]]:
    """Log-probs of many groups, in order: on the CPU one prompt at a time per core, on a GPU in packed batches."""
    if precision.device.type == "cpu":
        yield from _one_per_core(model, groups, precision)
        return
    if why_not(inner_model(model)) is not None:
        yield from (group_logprobs(model, group, precision) for group in groups)
        return
    for batch in batches(groups, BATCH_TOKENS):
        yield from batch_logprobs(model, batch, precision)


def _one_per_core(model: LanguageModel, groups: Sequence[Group], precision: Precision) -> Iterator[list[Tensor]]:
    """Log-probs of groups on the CPU, each on a core of its own.

    The matrices of a single response are too narrow to share out among cores. Within a core nothing is shared out, so
    a value's bits do not depend on how many cores there are either.
    """
    cores = torch.get_num_threads()
    # bitsandbytes repacks a layer's weights when it first runs, which two threads must not do at once.
    workers = 1 if getattr(inner_model(model), "is_loaded_in_4bit", False) else cores
    torch.set_num_threads(1)  # of this thread and of every thread that starts from now on
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(lambda group: group_logprobs(model, group, precision), groups)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)


def batches(groups: Sequence[Group], tokens: int) -> Iterator[list[Group]]:
    """Neighbours in batches of at most ``tokens`` places once they are padded to the longest (or one group alone)."""
    batch: list[Group] = []
    longest = 0
    for group in groups:
        longest = max(longest, packed_length(group))
        if batch and longest * (len(batch) + 1) > tokens:
            yield batch
            batch, longest = [], packed_length(group)
        batch.append(group)
    if batch:
        yield batch


def packed_length(group: Group) -> int:
    """Places that a prompt with all its responses takes in a packed row."""
    prompt, responses = group
    return len(prompt) - 1 + sum(len(response) for response in responses)
