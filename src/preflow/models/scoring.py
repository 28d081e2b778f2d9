"""Log-probs of responses under a model, one prompt a forward: a value never depends on the rows around it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from preflow.maths.logprobs import token_logprobs
from preflow.models.loading import LanguageModel
from preflow.models.packing import IGNORED, pack, why_not
from preflow.models.precision import Precision

#: Token ids of a prompt and of a response to it.
Row = tuple[Sequence[int], Sequence[int]]
#: Token ids of a prompt and of every response to it that is scored together.
Group = tuple[Sequence[int], Sequence[Sequence[int]]]
Scorer = Callable[[Group], list[Tensor]]


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
    """Log-probs of every response to one prompt, from one forward where the architecture allows it.

    Returns:
        Per response of R tokens a tensor of shape ``(R,)``: nats, float32, on the CPU.
    """
    prompt, responses = group
    if why_not(model) is not None:
        return [response_logprobs(model, (prompt, response), precision) for response in responses]
    packed = pack([group], pad=0, device=precision.device)
    scored = packed.targets[0] != IGNORED
    with precision.autocast():
        logits: Tensor = model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            attention_mask=packed.mask,
            logits_to_keep=scored.nonzero().squeeze(-1),
            use_cache=False,
        ).logits
    values = token_logprobs(logits[0], packed.targets[0][scored]).cpu()
    return list(torch.split(values, [len(response) for response in responses]))
