"""Answers with random numbers of their own: what else is asked for moves none of them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from preflow.config import Recipe
from preflow.models.loading import load_weights
from preflow.models.precision import Precision
from preflow.models.resolve import ModelRef
from preflow.sampling import decode, draw
from preflow.sampling.decode import Decoding, Wanted, sample_answers

FLOAT32 = Precision(torch.device("cpu"), torch.float32, torch.float32)
END = 1
PROMPTS = [[5, 6, 7], [9, 10, 11, 12, 13, 14, 15, 16], [20, 21], [30, 31, 32, 33, 34]]


@pytest.fixture(scope="module")
def model(tiny: ModelRef) -> Any:
    return load_weights(tiny.path, Recipe(strategy="sft", model_name=tiny.path), FLOAT32)


def decoding(**changes: Any) -> Decoding:
    return Decoding(**{"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12, "ends": (END,), "seed": 3, **changes})


def answers(
    model: Any, prompts: Sequence[list[int]], batch_size: int, how: Decoding, numbers: Sequence[int] = range(3)
) -> dict[tuple[int, ...], list[list[int]]]:
    """By prompt, whatever the order in which batches come."""
    wanted = [Wanted(prompt, numbers) for prompt in prompts]
    batches = sample_answers(model, wanted, how, FLOAT32, batch_size, print)
    return {tuple(wanted[place].prompt): found for batch in batches for place, found in batch}


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_neither_other_prompts_nor_the_size_of_a_batch_nor_the_number_of_answers_move_an_answer(
    model: Any, top_p: float
) -> None:
    how = decoding(top_p=top_p)
    one = answers(model, PROMPTS, 1, how)
    assert answers(model, PROMPTS, 64, how) == one
    assert answers(model, PROMPTS[1:3], 6, how) == {tuple(prompt): one[tuple(prompt)] for prompt in PROMPTS[1:3]}
    again = answers(model, PROMPTS, 64, how, numbers=[2])
    assert again == {prompt: found[2:] for prompt, found in one.items()}
    assert len({tuple(answer) for found in one.values() for answer in found}) == 12, "each has numbers of its own"
    assert answers(model, PROMPTS, 64, decoding(top_p=top_p, seed=4)) != one


def test_an_answer_ends_with_its_end_token_or_at_the_limit(model: Any) -> None:
    ends = tuple(range(0, 300, 5))  # every fifth token ends an answer, so that lengths differ in a batch
    found = [answer for each in answers(model, PROMPTS, 64, decoding(ends=ends)).values() for answer in each]
    for answer in found:
        assert not set(answer[:-1]) & set(ends)
        assert answer[-1] in ends or len(answer) == 12
    assert len({len(answer) for answer in found}) > 2


class Shaken(torch.nn.Module):
    """A model of four tokens whose logits differ in the last digits with the number of rows, as real ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {})()

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **_: Any) -> Any:
        rows, columns = input_ids.shape
        shake = 4e-4 if rows > 1 else 0.0
        row = torch.tensor([0.0, shake, -shake, shake / 2])
        logits = row.expand(rows, columns, 4)
        return type("Output", (), {"logits": logits, "past_key_values": past_key_values or Rows()})()


class Rows:
    """A cache that holds nothing."""

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        """Nothing to select."""


@pytest.mark.slow
def test_where_the_last_digits_would_decide_the_answer_alone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,600 answers of 16 tokens: without being computed alone some of them change with the batch."""
    how = decoding(max_new_tokens=16, ends=())
    prompts = [[number] for number in range(100)]
    alone, together = (answers(Shaken(), prompts, size, how, range(16)) for size in (1, 1600))
    # a prompt's answers are together even in the smallest batch, so each is compared with itself asked for alone
    single = {(n,): [answers(Shaken(), [[n]], 1, how, [k])[n,][0] for k in range(16)] for n in range(8)}
    assert together == alone
    assert all(together[prompt] == found for prompt, found in single.items())
    monkeypatch.setattr(draw, "CLOSE", 0.0)
    loose = answers(Shaken(), prompts, 1600, how, range(16))
    differing = sum(a != b for prompt, found in together.items() for a, b in zip(found, loose[prompt], strict=True))
    assert differing > 0


def test_tokens_are_drawn_with_their_probabilities() -> None:
    """4,000 draws of softmax([2, 1, 0]) = 0.665, 0.245, 0.090: four standard errors are 0.03 at most."""
    logits = torch.tensor([[2.0, 1.0, 0.0]]).expand(4000, 3)
    generator = torch.Generator().manual_seed(0)
    noise = draw.gumbel(12000, generator).reshape(4000, 3)
    tokens, _ = draw.choose(logits, noise, 1.0, 1.0)
    shares = [float((tokens == token).float().mean()) for token in range(3)]
    assert shares == pytest.approx([0.665, 0.245, 0.090], abs=0.03)


def test_top_p_leaves_out_what_more_probable_tokens_cover() -> None:
    """0.665 + 0.245 = 0.91: the third token is left out by 0.9 and not by 0.95; the second by 0.6."""
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    for winner, top_p, expected in ((2, 0.9, 1), (2, 0.95, 2), (2, 0.6, 0), (1, 0.6, 0), (1, 0.9, 1)):
        noise = torch.full((1, 3), -50.0)
        noise[0, winner] = 50.0
        noise[0, 1] = max(float(noise[0, 1]), 0.0)
        tokens, close = draw.choose(logits, noise, 1.0, top_p)
        assert (int(tokens), bool(close)) == (expected, False), (winner, top_p)


def test_a_boundary_of_top_p_within_the_last_digits_is_close() -> None:
    """The two best tokens are equally probable: whether one covers half depends on the last digits."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    noise = torch.tensor([[-50.0, 50.0, -50.0]])
    assert [bool(draw.choose(logits, noise, 1.0, top_p)[1]) for top_p in (0.5, 0.50001, 0.49, 0.51)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_low_temperature_is_the_most_probable_token(model: Any) -> None:
    cold = answers(model, PROMPTS[:1], 4, decoding(temperature=1e-3))[tuple(PROMPTS[0])]
    assert cold[0] == cold[1] == cold[2]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    assert cold[0][0] == int(logits.argmax())


def test_an_answer_is_rarely_computed_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[int] = []
    own = decode._alone

    def counted(model: Any, ids: Sequence[int], precision: Precision) -> torch.Tensor:
        alone.append(len(ids))
        return own(model, ids, precision)

    monkeypatch.setattr(decode, "_alone", counted)
    found = answers(model, PROMPTS, 64, decoding(max_new_tokens=40), range(8))
    assert len(alone) < 0.02 * sum(len(answer) for each in found.values() for answer in each)
