"""The benchmark of sampling: what it reports of made-up measurements, and that both contenders answer all prompts."""

import json
from collections.abc import Iterator

import pytest

from bench.bench_generation import Spent, measure, plain, preflow, report
from preflow.config import Recipe
from preflow.models.loading import load_weights
from preflow.models.precision import choose_precision
from preflow.models.resolve import ModelRef
from preflow.sampling.decode import Decoding


def test_rates_are_tokens_by_time(capsys: pytest.CaptureFixture[str]) -> None:
    """100 tokens in 10 s and 5 s of CPU against 90 in 3 s and 2: 30 / 10, and 45 / 20."""
    report(Spent(100, 10.0, 5.0), Spent(90, 3.0, 2.0))
    values = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert values == {"ratio": 3.0, "cpu_ratio": 2.25, "tokens_per_second": 30.0, "plain_tokens_per_second": 10.0}


def test_both_run_in_turn_to_their_end() -> None:
    order = []

    def batches(name: str, tokens: list[int]) -> Iterator[int]:
        for count in tokens:
            order.append(name)
            yield count

    theirs, ours = measure(batches("plain", [1, 2, 3]), batches("preflow", [4, 5]))
    assert (theirs.tokens, ours.tokens) == (6, 9)
    assert order == ["plain", "preflow", "plain", "preflow", "plain"]


def test_both_give_every_prompt_its_answers(tiny: ModelRef) -> None:
    """Five prompts of two answers of four tokens, which no token ends: 40 tokens each, in three batches."""
    recipe = Recipe(strategy="sft", model_name=tiny.path)
    precision = choose_precision(recipe)
    model = load_weights(tiny.path, recipe, precision)
    how = Decoding(1.0, 1.0, 4, (299,), 0)
    prompts = [[7 + n] * (n + 1) for n in range(5)]
    for contender in (plain, preflow):
        counts = list(contender(model, prompts, how, precision, 2, 4))
        assert len(counts) == 3
        assert 38 <= sum(counts) <= 40
