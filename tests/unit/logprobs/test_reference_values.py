"""Stored values are TRL's own, whatever the padding, and those of a float64 loop over tokens, bit for bit the same."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.dpo.trainer import StoredReferenceTrainer, as_dataset
from preflow.logprobs.scored_pairs import PairTable, ScoredPair
from preflow.maths.agreement import sums_agree
from preflow.models.loading import LanguageModel, load_policy, load_tokenizer
from preflow.models.packed.layout import PromptResponses
from preflow.models.precision import Precision, choose_precision
from preflow.models.resolve import ModelRef, resolve_model
from preflow.models.scoring import batches, packed_length, scores
from preflow.observer import Silent
from preflow.stages.reference import score_groups
from tests.conftest import make_model
from tests.fixtures.prepared_run import Run
from tests.unit.logprobs.stale_models import write_adapter
from tests.unit.support import recipe_for

pytestmark = pytest.mark.slow  # TRL's trainer is made for each

CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)


def random_groups(count: int, seed: int = 0) -> list[PromptResponses]:
    """Prompts longer than responses, of mixed lengths."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [rng.randrange(3, 290) for _ in range(rng.randint(low, high))]

    return [(ids(1, 40), (ids(1, 9), ids(1, 20))) for _ in range(count)]


def trl_values(
    folder: Path,
    model: LanguageModel,
    tokenizer: Any,
    groups: Sequence[PromptResponses],
    batch: int,
    **settings: Any,
) -> list[tuple[float, float]]:
    """The pairs' reference log-probs by TRL's own ``compute_ref_log_probs``, in its own padded batches."""
    from trl.trainer.dpo_config import DPOConfig

    pairs = [ScoredPair(list(p), list(c), list(r), [0.0] * len(c), [0.0] * len(r), "-") for p, (c, r) in groups]
    config = DPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        max_length=None,
        report_to="none",
        precompute_ref_log_probs=True,
        **settings,
    )
    trainer: Any = StoredReferenceTrainer(
        model=model, args=config, train_dataset=as_dataset(pairs, None), processing_class=tokenizer
    )
    trainer.model.eval()
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    values: list[tuple[float, float]] = []
    for start in range(0, len(pairs), batch):
        rows = [{name: getattr(pair, name) for name in columns} for pair in pairs[start : start + batch]]
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model, trainer.data_collator(rows))
        values += list(zip(chosen.tolist(), rejected.tolist(), strict=True))
    return values


@pytest.fixture(params=["lora", "merged", "full", pytest.param("nf4", marks=pytest.mark.slow)])
def reference(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ModelRef, Recipe, Artifact]:
    """A base model, a recipe and what is trained over it, of every kind."""
    pytest.importorskip("bitsandbytes") if request.param == "nf4" else None
    # bitsandbytes 0.50 packs weights for inference on the CPU in blocks of 64: narrower ones fail there.
    folder = make_model(tmp_path / "base", width=64 if request.param == "nf4" else 32)
    base = resolve_model(Recipe(strategy="dpo", model_name=str(folder)), Silent())
    recipe = recipe_for(base, use_4bit=request.param == "nf4")
    trained = tmp_path / "sft" / "model"
    if request.param == "full":
        make_model(trained, seed=3)
    else:
        write_adapter(trained, folder, seed=1)
    if request.param == "merged":
        merged = load_policy(base, trained, recipe, choose_precision(recipe)).merge_and_unload()
        trained = tmp_path / "merged" / "model"
        merged.save_pretrained(str(trained))
    return base, recipe, Artifact(path=str(trained.parent), digest="-", bytes=0)


def test_stored_values_are_those_of_trl(reference: tuple[ModelRef, Recipe, Artifact], tmp_path: Path) -> None:
    base, recipe, trained = reference
    groups = random_groups(12)
    store = score_groups(recipe, base, trained, groups, Silent(), "test")
    shuffled = random.Random(1).sample(groups, len(groups))
    for arrangement, batch in ((groups, 1), (groups, 5), (shuffled, 3), (shuffled, 12)):
        model = load_policy(base, trained.file("model"), recipe, choose_precision(recipe), trainable=True)
        got = trl_values(tmp_path / "trl", model, load_tokenizer(base, recipe), arrangement, batch)
        for group, sums in zip(arrangement, got, strict=True):
            for stored, response, value in zip(store.get(group), group[1], sums, strict=True):
                assert sums_agree(sum(stored), value, len(response)), (arrangement is groups, batch)


@pytest.mark.parametrize("ld_alpha", [0.0, 0.5])
def test_weighted_sums_are_those_of_trl(prepared: Run, tmp_path: Path, ld_alpha: float) -> None:
    """LD-DPO's reference scores come from the same stored per-token values: nothing is computed again."""
    groups = random_groups(6, seed=4)
    recipe, base = prepared.recipe, prepared.base
    precision = choose_precision(recipe)
    store = score_groups(recipe, base, prepared.sft, groups, Silent(), "test")
    values = [store.get(group) for group in groups]
    pairs = [
        ScoredPair(list(prompt), list(chosen), list(rejected), stored[0], stored[1], "-")
        for (prompt, (chosen, rejected)), stored in zip(groups, values, strict=True)
    ]
    model = load_policy(base, prepared.sft.file("model"), recipe, precision, trainable=True)
    got = trl_values(tmp_path, model, load_tokenizer(base, recipe), groups, 4, ld_alpha=ld_alpha)
    table = PairTable.of(pairs).reference_scores(ld_alpha)
    for i, (pair, (chosen, rejected)) in enumerate(zip(pairs, got, strict=True)):
        assert sums_agree(table["chosen"][i], chosen, len(pair.chosen_ids))
        assert sums_agree(table["rejected"][i], rejected, len(pair.rejected_ids))


def test_values_are_those_of_a_loop_over_tokens_in_float64(prepared: Run) -> None:
    groups = random_groups(4, seed=2)
    recipe, base = prepared.recipe, prepared.base
    store = score_groups(recipe, base, prepared.sft, groups, Silent(), "test")
    model = load_policy(base, prepared.sft.file("model"), recipe, choose_precision(recipe)).double()
    for prompt, responses in groups:
        for response, stored in zip(responses, store.get((prompt, responses)), strict=True):
            total = 0.0
            for t, token in enumerate(response):
                ids = torch.tensor([[*prompt, *response[:t]]])
                with torch.no_grad():
                    logits = model(input_ids=ids).logits[0, -1].double()
                total += float(logits[token] - torch.log(torch.exp(logits - logits.max()).sum()) - logits.max())
            assert abs(sum(stored) - total) <= 1e-4


@pytest.fixture
def model(prepared: Run) -> LanguageModel:
    return load_policy(prepared.base, prepared.sft.file("model"), prepared.recipe, CPU)


def test_bits_do_not_depend_on_neighbours(model: LanguageModel) -> None:
    """Alone, with another response before or after it, in another order, among other groups: the same bits."""
    groups = random_groups(5, seed=3)
    together = list(scores(model, groups, CPU))
    backwards = list(scores(model, groups[::-1], CPU))[::-1]
    for group, values, again in zip(groups, together, backwards, strict=True):
        prompt, (chosen, rejected) = group
        (turned,) = scores(model, [(prompt, (rejected, [5] * 30, chosen))], CPU)
        (alone,) = scores(model, [(prompt, (chosen,))], CPU)
        assert torch.equal(values[0], again[0])
        assert torch.equal(values[1], again[1])
        assert torch.equal(values[0], turned[2])
        assert torch.equal(values[1], turned[0])
        assert torch.equal(values[0], alone[0])


def test_bits_do_not_depend_on_the_number_of_cores(model: LanguageModel) -> None:
    groups, cores = random_groups(9, seed=4), torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append([value for values in scores(model, groups, CPU) for value in values])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(cores)
    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_a_scorer_that_fails_leaves_the_threads_as_they_were(model: LanguageModel) -> None:
    cores = torch.get_num_threads()
    with pytest.raises(IndexError):
        list(scores(model, [([3, 4, 5], [[10**6, 7]])], CPU))
    assert torch.get_num_threads() == cores


def test_batches_hold_every_group_once_and_no_more_than_their_share() -> None:
    groups = sorted(random_groups(50, seed=7), key=lambda group: -packed_length(group))
    made = list(batches(groups, 200))
    assert [group for batch in made for group in batch] == groups
    assert 1 < len(made) < 50
    for batch in made:
        assert len(batch) == 1 or sum(map(packed_length, batch)) <= 200
    assert [len(batch) for batch in batches([groups[0]], 1)] == [1]
