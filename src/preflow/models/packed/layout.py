"""Several pairs in one row without padding: where each stands, and what each of its tokens may see.

One row holds the pairs of a batch one after another. For a prompt of P tokens and responses of C and R tokens::

    tokens     p_1 .. p_{P-1} | p_P c_1 .. c_{C-1} | p_P r_1 .. r_{R-1} || next pair ...
    positions  0   ..  P-2    | P-1 P   ..  P+C-2  | P-1 P   ..  P+R-2  || 0 ...
    predicts   nothing        | c_1 c_2 ..  c_C    | r_1 r_2 ..  r_R    || nothing ...

Every response begins with its own copy of the last prompt token, so each place predicts at most one token. A pair sees
itself alone, and a response sees its prompt and itself. No token is padding, so nothing is computed in vain. (The idea
of sharing the prompt between both sides: Wang and Hegde 2024, arXiv:2410.20305.)

Where the prompts of a row share a prefix, as with a system message, it can be computed once, before the first pair;
then every pair sees it too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

#: Targets of tokens that predict nothing that counts.
IGNORED = -100

#: Prompt (at least one token) and its responses (at least one token each), as token ids.
PromptResponses = tuple[Sequence[int], Sequence[Sequence[int]]]


class Layout:
    """What attention must know about a row; opaque to wrappers that look for tensors in a call's arguments.

    Attributes:
        common: Tokens at the row's beginning that all groups see.
        lengths: Tokens of each group (a prompt with its responses), in order, without the common ones.
        parts: Tokens of each part: of a group its shared prompt (perhaps none), then each response.
        is_prompt: Whether each part is a shared prompt.
        group: Which group a token belongs to, -1 where it is common, shape ``(N,)``.
        branch: 0 for a shared prompt, 1, 2, .. for its responses, shape ``(N,)``.
        positions: Shape ``(N,)``.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], branch: Tensor, positions: Tensor, common: int = 0) -> None:
        """Describe a row.

        Args:
            sizes: Per group the tokens of its shared prompt (without the common ones), then of each response.
            branch: As below.
            positions: As below.
            common: Tokens at the row's beginning that all groups see.
        """
        self.common = common
        self._sizes = sizes
        self.lengths = [sum(parts) for parts in sizes]
        self.parts = [size for parts in sizes for size in parts]
        self.is_prompt = [number == 0 for parts in sizes for number in range(len(parts))]
        self.branch = branch
        self.positions = positions
        counts = torch.tensor(self.lengths, device=branch.device)
        groups = torch.repeat_interleave(torch.arange(len(self.lengths), device=branch.device), counts)
        self.group = torch.cat((groups.new_full((common,), -1), groups))
        self._masks: dict[int | None, list[Tensor]] = {}
        self._blocks: dict[int | None, Any] = {}
        self._tails: dict[tuple[int, int], Tensor] = {}
        self._bias: Tensor | None = None

    @cached_property
    def spread(self) -> Tensor:
        """Places of this row that make one in which every group has the common tokens for itself, shape ``(M,)``."""
        places = torch.arange(len(self.group), device=self.branch.device)
        first = places[: self.common]
        groups = torch.split(places[self.common :], self.lengths)
        return torch.cat([part for own in groups for part in (first, own)])

    @cached_property
    def kept(self) -> Tensor:
        """Where in the spread row each token of this row first stands, shape ``(N,)``."""
        places = torch.arange(len(self.group), device=self.branch.device)
        return places + self.common * self.group.clamp(min=0)

    @property
    def apart(self) -> "Layout":
        """Of the spread row; itself where no tokens are common."""
        return self._apart if self.common else self

    @cached_property
    def _apart(self) -> "Layout":
        sizes = [[self.common + first, *rest] for first, *rest in self._sizes]
        return Layout(sizes, self.branch[self.spread], self.positions[self.spread])

    def tail_mask(self, queries: int, keys: int) -> Tensor:
        """What the last ``queries`` of ``keys`` tokens may see of them, shape ``(queries, keys)``."""
        if (queries, keys) not in self._tails:
            everything = torch.ones(queries, keys, dtype=torch.bool, device=self.branch.device)
            self._tails[queries, keys] = everything.tril(keys - queries)
        return self._tails[queries, keys]

    def tail_bias(self, queries: int, others: int, dtype: torch.dtype) -> Tensor:
        """What is added to the scores of a response, over its prompt and itself: 0 where it may see, else -inf.

        Args:
            queries: Tokens of the response, n.
            others: Tokens before it that it sees, P.
            dtype: Of the scores.

        Returns:
            Shape ``(n, P + n)``: a slice of one tensor, in which row i sees the columns up to ``i + (longest prompt)``.
        """
        prompt = self.common + max(first for first, *_ in self._sizes)
        if self._bias is None or self._bias.dtype != dtype:
            response = max((size for _, *rest in self._sizes for size in rest), default=0)
            options: Any = {"dtype": dtype, "device": self.branch.device}
            self._bias = torch.full((response, prompt + response), -torch.inf, **options).triu_(prompt + 1)
        return self._bias[:queries, prompt - others : prompt + queries]

    def masks(self, window: int | None) -> list[Tensor]:
        """Per group of n tokens what its tokens may see: True where visible, shape ``(1, 1, n, n)``.

        Only of a row without common tokens.

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
                seen = ((group[query] == group[key]) | (group[key] < 0)) & (query >= key)
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
class PackedRow:
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


def in_one_row(groups: Sequence[PromptResponses], device: torch.device, *, share: bool = False) -> PackedRow:
    """Put prompts with their responses one after another.

    Args:
        groups: At least one.
        device: Where.
        share: Whether the tokens with which all prompts begin stand once. A value's last bits then depend on which
            prompts stand together.
    """
    common = shared_prefix_length([prompt[:-1] for prompt, _ in groups]) if share else 0
    parts = [lay_out(prompt, responses) for prompt, responses in groups]

    def joined(index: int) -> Tensor:
        rest = [value for part in parts for value in part[index][common:]]
        return torch.tensor([*parts[0][index][:common], *rest], device=device)

    targets, positions = joined(2), joined(1)
    scored = (targets != IGNORED).nonzero().squeeze(-1)
    sizes = [[len(prompt) - 1 - common, *(len(response) for response in responses)] for prompt, responses in groups]
    layout = Layout(sizes, joined(3), positions, common)
    return PackedRow(joined(0)[None], positions[None], scored, targets[scored], layout)


def shared_prefix_length(rows: Iterable[Sequence[int]]) -> int:
    """How many tokens all of several rows share as a prefix; none where there is one row only."""
    rest = iter(rows)
    first = next(rest, ())
    count, alone = len(first), True
    for row in rest:
        alone = False
        both = zip(first[:count], row, strict=False)
        count = next((place for place, (a, b) in enumerate(both) if a != b), min(count, len(row)))
        if not count:
            break
    return 0 if alone else count


def whole_sequences(ids: Tensor, labels: Tensor) -> PackedRow:
    """Put the rows of a batch one after another, each up to its last token that counts.

    What all of them begin with before any token counts stands once.

    Args:
        ids: Shape ``(B, T)``, padded on the right.
        labels: The tokens to be predicted at their own places, or -100, shape ``(B, T)``; at least one counts.
    """
    counts = labels[:, 1:] != IGNORED
    ends = (counts * torch.arange(1, counts.shape[1] + 1, device=ids.device)).amax(-1).tolist()
    kept = [(row, end) for row, end in enumerate(ends) if end]
    unscored = min(int(counts[row].int().argmax()) for row, _ in kept)
    common = shared_prefix_length([ids[row, :unscored].tolist() for row, _ in kept])
    first = kept[0][0]

    def joined(of_row: Callable[[int, int], Tensor]) -> Tensor:
        return torch.cat([of_row(first, common)[:common], *(of_row(row, end)[common:] for row, end in kept)])

    positions = joined(lambda _, end: torch.arange(end, device=ids.device))
    targets = joined(lambda row, end: labels[row, 1 : end + 1])
    scored = (targets != IGNORED).nonzero().squeeze(-1)
    layout = Layout([[end - common] for _, end in kept], torch.zeros_like(positions), positions, common)
    tokens = joined(lambda row, end: ids[row, :end])
    return PackedRow(tokens[None], positions[None], scored, targets[scored], layout)
