"""The start-up checks take rounding for no other model, whatever rows are made of, and see another adapter in them all.

``PREFLOW_SHARED_DATA`` names the folder of real rows.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from bench.parts.start_check_rows import Tokens, rows_of
from preflow.data.tokens.chat_template import Renderer
from preflow.dpo import start_checks
from preflow.dpo.trainer import StoredReferenceTrainer, make_trainer, policy_scores
from preflow.errors import PolicyMismatchError
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.models.adapters import inner_model, new_adapter
from preflow.models.loading import LanguageModel, load_tokenizer, load_weights
from preflow.models.precision import Precision
from preflow.models.resolve import resolve_model
from preflow.models.scoring import scores
from preflow.observer import Silent
from tests.fixtures.prepared_run import Run
from tests.integration.training.smollm2 import smollm2
from tests.unit.dpo.start_models import going_on
from tests.unit.support import shared_data

CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)
#: Positions of the tiny model.
ROOM = 512
#: Tokens of prompts and of responses, from a range drawn at random.
PROMPTS = ((1, 1), (2, 20), (20, 120), (300, 380))
RESPONSES = ((1, 1), (2, 5), (5, 40), (40, 60))
#: What the tiny model's last layer is multiplied with: from unsure of every token to sure of most.
SHARPNESS = (1.0, 4.0, 16.0)


def made_up(count: int, vocabulary: int, known: Sequence[list[int]], seed: int) -> Iterator[Tokens]:
    """Rows of all shapes: one token to hundreds; responses that share a prefix, equal ones, the model's own words."""
    rng = random.Random(seed)

    def tokens(ranges: Sequence[tuple[int, int]]) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(rng.randint(*rng.choice(ranges)))]

    for _ in range(count):
        prompt, chosen, rejected = tokens(PROMPTS), tokens(RESPONSES), tokens(RESPONSES)
        shape = rng.random()
        if shape < 0.2:  # a shared prefix
            start = tokens(RESPONSES)
            chosen, rejected = (start + chosen)[:60], (start + rejected)[:60]
        elif shape < 0.25:
            rejected = list(chosen)
        elif shape < 0.5:  # the model's own words
            whole = rng.choice(known)
            cut = rng.randint(1, len(whole) - 1)
            prompt, chosen = whole[:cut], whole[cut : cut + 60]
        yield Tokens(prompt, chosen, rejected)


def own_words(model: LanguageModel, vocabulary: int) -> list[list[int]]:
    """What the model itself goes on with, greedily, after one token each: it is as sure of it as it ever is."""
    first = torch.arange(0, vocabulary, 5)[:, None]
    mask = torch.ones_like(first)
    words: list[list[int]] = model.generate(first, attention_mask=mask, max_new_tokens=100, do_sample=False).tolist()
    return words


def sharper(model: LanguageModel, by: float) -> None:
    """Multiply all logits: the norm before the last layer is the last one's input."""
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.endswith("model.norm.weight")).mul_(by)


def stored(model: LanguageModel, rows: Sequence[Tokens]) -> list[ScoredPair]:
    """Rows with the values that the reference stage would store."""
    values = scores(model, [(prompt, (chosen, rejected)) for prompt, chosen, rejected in rows], CPU)
    pairs = []
    for n, (row, both) in enumerate(zip(rows, values, strict=True)):
        chosen, rejected = ([float(value) for value in side] for side in both)
        pairs.append(ScoredPair(*row, chosen, rejected, f"row {n}"))
    return pairs


def proven(trainer: StoredReferenceTrainer, pairs: Sequence[ScoredPair], run: Run) -> float:
    """The row-by-row proof of ``run_dpo``, in units of its limits."""
    return start_checks.check_policy(
        pairs, lambda rows: policy_scores(trainer, rows, CPU), CPU.compute, start_checks.BATCH, Silent(), run.reference
    )


def prove_made_up_rows(run: Run, out: Path, count: int, sharpness: float, seed: int) -> None:
    """A right policy passes with room to spare; one with another adapter does not."""
    model = going_on(run).eval()
    sharper(model, sharpness)
    vocabulary = model.config.vocab_size
    rows = list(made_up(count, vocabulary, own_words(model, vocabulary), seed))
    pairs = stored(model, rows)
    trainer = make_trainer(run.dpo(), model, load_tokenizer(run.base, run.recipe), pairs, out, Silent())
    assert proven(trainer, pairs, run) <= 0.1
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():  # type: ignore[union-attr]
            if "lora_B" in name:
                parameter.zero_()
    with pytest.raises(PolicyMismatchError):
        proven(trainer, pairs, run)


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_a_hundred_made_up_rows_raise_no_false_alarm(prepared: Run, tmp_path: Path, sharpness: float) -> None:
    prove_made_up_rows(prepared, tmp_path, 100, sharpness, seed=0)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(10))
def test_20_000_made_up_rows_of_all_shapes_raise_no_false_alarm(prepared: Run, tmp_path: Path, part: int) -> None:
    """Two thousand a part."""
    prove_made_up_rows(prepared, tmp_path, 2000, SHARPNESS[part % len(SHARPNESS)], seed=1 + part)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(20))
def test_2_000_real_rows_raise_no_false_alarm(prepared: Run, tmp_path: Path, part: int) -> None:
    """SmolLM2 with an adapter that says something, a hundred rows a part, as the file has them."""
    recipe = prepared.recipe.model_copy(update={"model_name": str(smollm2()), "max_seq_length": 512})
    base, spec = resolve_model(recipe, Silent()), prepared.dpo()
    tokenizer = load_tokenizer(base, recipe)
    rows = rows_of(shared_data("hh_harmless_test.messages.jsonl"), Renderer(tokenizer, recipe.rendering), 2000)
    assert len(rows) == 2000
    assert recipe.dpo is not None
    model = new_adapter(load_weights(base.path, recipe, CPU), recipe.dpo, seed=0).eval()
    torch.manual_seed(part)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    pairs = stored(model, rows[part::20])
    trainer = make_trainer(
        spec.model_copy(update={"recipe": recipe, "base": base}), model, tokenizer, pairs, tmp_path, Silent()
    )
    assert inner_model(trainer.model).config.vocab_size == 49152
    assert proven(trainer, pairs, prepared) <= 0.1
