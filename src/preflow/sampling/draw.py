"""The next token of an answer, from random numbers that belong to that answer alone.

A token is the largest of ``logit / temperature + g`` with a fresh Gumbel number ``g`` for every token of the vocabulary
(Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030), which is a sample from the softmax. In float32 the logits of a row
depend in their last digits on what else is in the batch, so where two tokens are too close to tell, ``choose`` reports
it and the caller computes the logits again from the answer alone: what else is asked for then moves no answer.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

#: A difference of scores that the rest of a batch can turn around: many times what was measured in float32.
CLOSE = 1e-3
#: The same for a probability, of which a share of the vocabulary is the sum.
_CLOSE_MASS = 1e-4


def answer_generator(seed: int, prompt: Sequence[int], number: int, device: torch.device) -> torch.Generator:
    """The random numbers of one answer, named by the seed, the prompt's token ids and the answer's number."""
    text = ",".join(map(str, (seed, number, *prompt)))
    digest = hashlib.sha256(text.encode("ascii")).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big"))


def gumbel(size: int, generator: torch.Generator) -> Tensor:
    """Standard Gumbel numbers, shape ``(size,)``, float32."""
    uniform = torch.empty(size, device=generator.device).uniform_(generator=generator)
    return uniform.log_().neg_().log_().neg_()


def choose(logits: Tensor, noise: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """The token of each row, and whether another logit in the last digits would give another token.

    Args:
        logits: Scores before softmax, shape ``(N, V)``.
        noise: Gumbel numbers, shape ``(N, V)``.
        temperature: What logits are divided by.
        top_p: Only the most probable tokens whose probabilities sum up to this are drawn from; 1 for all.

    Returns:
        Token ids, shape ``(N,)``, and whether each was close, shape ``(N,)``.
    """
    scaled = logits.float() / temperature
    perturbed = scaled + noise
    close = CLOSE / temperature
    if top_p >= 1.0:
        best = perturbed.topk(2, dim=-1)
        return best.indices[:, 0], best.values[:, 0] - best.values[:, 1] < close
    rows = [_nucleus(row, score, top_p, close) for row, score in zip(scaled, perturbed, strict=True)]
    tokens, doubts = zip(*rows, strict=True)
    return torch.tensor(tokens, device=logits.device), torch.tensor(doubts, device=logits.device)


def _nucleus(scaled: Tensor, perturbed: Tensor, top_p: float, close: float) -> tuple[int, bool]:
    """The best perturbed token among the most probable ones, and whether it was close.

    A token is among them where the tokens that are more probable sum up to less than ``top_p`` (Holtzman et al. 2020,
    arXiv:1904.09751).
    """
    probabilities = torch.softmax(scaled, dim=-1, dtype=torch.float64)

    def mass_above(token: int, margin: float) -> float:
        return float(probabilities[scaled > scaled[token] + margin].sum())

    winner, best, doubt = -1, 0.0, False
    order = perturbed.sort(descending=True)
    for score, token in zip(order.values.tolist(), order.indices.tolist(), strict=True):
        if winner >= 0 and best - score >= close:
            break
        at_least = mass_above(token, close) - _CLOSE_MASS
        if winner >= 0:
            doubt = doubt or at_least < top_p  # it may be drawn from, and is as good
            continue
        inside = mass_above(token, 0.0) < top_p
        at_most = mass_above(token, -close) - float(probabilities[token]) + _CLOSE_MASS
        doubt = doubt or (at_most >= top_p if inside else at_least < top_p)
        if inside:
            winner, best = token, score
    return winner, doubt
