"""One forward for a prompt and all its responses: the prompt is run once and every response sees it alone.

Layout of one row, for a prompt of P tokens and responses of C and R tokens::

    tokens     p_1 .. p_{P-1} | p_P c_1 .. c_{C-1} | p_P r_1 .. r_{R-1}
    positions  0   ..  P-2    | P-1 P   ..  P+C-2  | P-1 P   ..  P+R-2
    predicts   nothing        | c_1 c_2 ..  c_C    | r_1 r_2 ..  r_R

Every response begins with its own copy of the last prompt token, so each position predicts at most one token and the
models' ordinary shifted labels say which. A 4-D mask lets a response see the prompt and itself, not the other one.
(The idea of sharing the prompt between both sides: Wang and Hegde 2024, arXiv:2410.20305.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from preflow.models.loading import LanguageModel

#: Architectures whose attention the mask expresses, as they stand in transformers; each has a test.
KNOWN = ("llama", "mistral", "qwen2", "qwen3")
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Packed:
    """B rows, each a prompt with its responses.

    Attributes:
        input_ids: Shape ``(B, L)``, padded on the right.
        position_ids: Shape ``(B, L)``.
        mask: True where a query may see a key, shape ``(B, 1, L, L)``.
        targets: The token that a position predicts, or -100, shape ``(B, L)``.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    targets: Tensor


def why_not(model: LanguageModel) -> str | None:
    """Why a model cannot take packed rows, or None if it can."""
    config = model.config
    if config.model_type not in KNOWN:
        return f"architecture {config.model_type!r} is not among those proven ({', '.join(KNOWN)})"
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"attention {config._attn_implementation!r} takes no 4-D mask"
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    slides = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if slides or set(layers) != {"full_attention"}:
        return "its attention slides over a window, which the mask does not express"
    return None


def pack(rows: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], pad: int, device: torch.device) -> Packed:
    """Lay prompts and their responses out.

    Args:
        rows: B prompts (at least one token each) with any number of responses (at least one token each).
        pad: Fills short rows; never seen and never scored.
        device: Where the tensors go.
    """
    parts = [lay_out(prompt, responses) for prompt, responses in rows]
    length = max(len(ids) for ids, *_ in parts)

    def padded(index: int, fill: int) -> Tensor:
        return torch.tensor([part[index] + [fill] * (length - len(part[index])) for part in parts], device=device)

    branch = padded(3, -1)
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    keys, queries = branch[:, None, :], branch[:, :, None]
    # Branch 0 is the shared prompt. Padding sees what stands before it, so that no softmax is empty.
    visible = causal & ((keys == 0) | (keys == queries) | (queries == -1))
    return Packed(padded(0, pad), padded(1, 0), visible[:, None], padded(2, IGNORED))


def lay_out(
    prompt: Sequence[int], responses: Sequence[Sequence[int]]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Token ids, positions, targets and branch of one row, without padding."""
    shared, last = list(prompt[:-1]), prompt[-1]
    ids, positions = shared, list(range(len(shared)))
    targets, branch = [IGNORED] * len(shared), [0] * len(shared)
    for number, response in enumerate(responses, start=1):
        ids = [*ids, last, *response[:-1]]
        positions = [*positions, *range(len(shared), len(shared) + len(response))]
        targets = [*targets, *response]
        branch = [*branch, *[number] * len(response)]
    return ids, positions, targets, branch
