"""Several pairs in one row without padding: where each stands, and what each of its tokens may see.

One row holds the pairs of a batch one after another. For a prompt of P tokens and responses of C and R tokens::

    tokens     p_1 .. p_{P-1} | p_P c_1 .. c_{C-1} | p_P r_1 .. r_{R-1} || next pair ...
    positions  0   ..  P-2    | P-1 P   ..  P+C-2  | P-1 P   ..  P+R-2  || 0 ...
    predicts   nothing        | c_1 c_2 ..  c_C    | r_1 r_2 ..  r_R    || nothing ...

Every response begins with its own copy of the last prompt token, so each place predicts at most one token. A pair sees
itself alone, and a response sees its prompt and itself. No token is padding, so nothing is computed in vain. (The idea
of sharing the prompt between both sides: Wang and Hegde 2024, arXiv:2410.20305.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Targets of tokens that predict nothing that counts.
IGNORED = -100

#: Prompt (at least one token) and its responses (at least one token each), as token ids.
Tokens = tuple[Sequence[int], Sequence[Sequence[int]]]


class Layout:
    """What attention must know about a row; opaque to wrappers that look for tensors in a call's arguments.

    Attributes:
        lengths: Tokens of each group (a prompt with its responses), in order.
        parts: Tokens of each part: of a group its shared prompt (perhaps none), then each response.
        is_prompt: Whether each part is a shared prompt.
        group: Which group a token belongs to, shape ``(N,)``.
        branch: 0 for a shared prompt, 1, 2, .. for its responses, shape ``(N,)``.
        positions: Shape ``(N,)``.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], branch: Tensor, positions: Tensor) -> None:
        """Describe a row.

        Args:
            sizes: Per group the tokens of its shared prompt, then of each response.
            branch: As below.
            positions: As below.
        """
        self.lengths = [sum(parts) for parts in sizes]
        self.parts = [size for parts in sizes for size in parts]
        self.is_prompt = [number == 0 for parts in sizes for number in range(len(parts))]
        self.branch = branch
        self.positions = positions
        counts = torch.tensor(self.lengths, device=branch.device)
        self.group = torch.repeat_interleave(torch.arange(len(self.lengths), device=branch.device), counts)
        self._masks: dict[int | None, list[Tensor]] = {}
        self._blocks: dict[int | None, Any] = {}
        self._tails: dict[tuple[int, int], Tensor] = {}

    def tail_mask(self, queries: int, keys: int) -> Tensor:
        """What the last ``queries`` of ``keys`` tokens may see of them, shape ``(queries, keys)``."""
        if (queries, keys) not in self._tails:
            everything = torch.ones(queries, keys, dtype=torch.bool, device=self.branch.device)
            self._tails[queries, keys] = everything.tril(keys - queries)
        return self._tails[queries, keys]

    def masks(self, window: int | None) -> list[Tensor]:
        """Per group of n tokens what its tokens may see: True where visible, shape ``(1, 1, n, n)``.

        Args:
            window: How many positions back a token sees, itself included; None for all.
        """
        if window not in self._masks:
            parts = zip(*(torch.split(t, self.lengths) for t in (self.branch, self.positions)), strict=True)
            self._masks[window] = [_visible(branch, positions, window)[None, None] for branch, positions in parts]
        return self._masks[window]

    def blocks(self, window: int | None) -> Any:
        """The same as a block mask of FlexAttention over the whole row."""
        if window not in self._blocks:
            from torch.nn.attention.flex_attention import create_block_mask

            group, branch, positions = self.group, self.branch, self.positions

            def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                seen = (group[query] == group[key]) & (query >= key)
                seen = seen & ((branch[key] == 0) | (branch[key] == branch[query]))
                return seen if window is None else seen & (positions[query] - positions[key] < window)

            count = int(self.positions.numel())
            self._blocks[window] = create_block_mask(visible, None, None, count, count, device=str(branch.device))
        return self._blocks[window]


def _visible(branch: Tensor, positions: Tensor, window: int | None) -> Tensor:
    count = branch.numel()
    causal = torch.ones(count, count, dtype=torch.bool, device=branch.device).tril()
    seen = causal & ((branch[None, :] == 0) | (branch[None, :] == branch[:, None]))
    return seen if window is None else seen & (positions[:, None] - positions[None, :] < window)


@dataclass(frozen=True, slots=True)
class Row:
    """A batch in one row.

    Attributes:
        input_ids: Shape ``(1, N)``.
        position_ids: Shape ``(1, N)``.
        scored: Places of the tokens that predict a response token, shape ``(S,)``, in the order of groups, responses
            and tokens.
        targets: The token that each of them predicts, shape ``(S,)``.
        layout: For the attention.
    """

    input_ids: Tensor
    position_ids: Tensor
    scored: Tensor
    targets: Tensor
    layout: Layout


def lay_out(
    prompt: Sequence[int], responses: Sequence[Sequence[int]]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Token ids, positions, targets and branch of one prompt with its responses."""
    shared, last = list(prompt[:-1]), prompt[-1]
    ids, positions = shared, list(range(len(shared)))
    targets, branch = [IGNORED] * len(shared), [0] * len(shared)
    for number, response in enumerate(responses, start=1):
        ids = [*ids, last, *response[:-1]]
        positions = [*positions, *range(len(shared), len(shared) + len(response))]
        targets = [*targets, *response]
        branch = [*branch, *[number] * len(response)]
    return ids, positions, targets, branch


def in_one_row(groups: Sequence[Tokens], device: torch.device) -> Row:
    """Put prompts with their responses one after another."""
    parts = [lay_out(prompt, responses) for prompt, responses in groups]

    def joined(index: int) -> Tensor:
        return torch.tensor([value for part in parts for value in part[index]], device=device)

    targets, positions = joined(2), joined(1)
    scored = (targets != IGNORED).nonzero().squeeze(-1)
    sizes = [[len(prompt) - 1, *(len(response) for response in responses)] for prompt, responses in groups]
    layout = Layout(sizes, joined(3), positions)
    return Row(joined(0)[None], positions[None], scored, targets[scored], layout)


def whole_sequences(ids: Tensor, labels: Tensor) -> Row:
    """Put the rows of a batch one after another, each up to its last token that counts.

    Args:
        ids: Shape ``(B, T)``, padded on the right.
        labels: The tokens to be predicted at their own places, or -100, shape ``(B, T)``; at least one counts.
    """
    counts = labels[:, 1:] != IGNORED
    ends = (counts * torch.arange(1, counts.shape[1] + 1, device=ids.device)).amax(-1).tolist()
    kept = [(row, end) for row, end in enumerate(ends) if end]
    positions = torch.cat([torch.arange(end, device=ids.device) for _, end in kept])
    targets = torch.cat([labels[row, 1 : end + 1] for row, end in kept])
    scored = (targets != IGNORED).nonzero().squeeze(-1)
    layout = Layout([[end] for _, end in kept], torch.zeros_like(positions), positions)
    tokens = torch.cat([ids[row, :end] for row, end in kept])
    return Row(tokens[None], positions[None], scored, targets[scored], layout)
