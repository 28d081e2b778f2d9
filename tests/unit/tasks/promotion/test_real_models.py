"""Promotions in which challenger and champion are models that are run: nothing of their measures is planted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tasks.promotion
from preflow.artifacts import Artifact, build
from preflow.data.rows import Demonstration, Pair
from preflow.data.validated import load_demonstrations, load_pairs, rows_file, write_rows
from preflow.maths.significance import spent_alpha
from preflow.stages.promotion import Measured
from tasks.promotion import compare
from tasks.tracking.registry.versions import Version
from tests.fixtures.real_versions import RealVersions, crowned, real

__all__ = ["crowned", "real"]  # fixtures
pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds


def right(real: RealVersions, model: Artifact) -> dict[str, bool]:
    """Which held-out pairs a model gets right, by transformers and PEFT alone: one response at a time, unpadded."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(real.prepared.base.path)
    network = PeftModel.from_pretrained(base, str(model.file("model"))).eval()
    tokenizer = AutoTokenizer.from_pretrained(real.prepared.base.path)

    def mean(prompt: str, response: str) -> float:
        before = tokenizer(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
        after = tokenizer(f"{response}<|im_end|>\n", add_special_tokens=False)
        start, ids = len(before["input_ids"]), torch.tensor([[*before["input_ids"], *after["input_ids"]]])
        end = ids[0].tolist().index(tokenizer.eos_token_id, start) + 1
        with torch.no_grad():
            scores = network(ids).logits[0].log_softmax(-1)
        return float(scores[range(start - 1, end - 1), ids[0, start:end]].mean())

    return {
        pair.id: mean(pair.prompt[0].content, pair.chosen[0].content)
        > mean(pair.prompt[0].content, pair.rejected[0].content)
        for pair in load_pairs(real.prepared.data, "eval")
    }


def challengers_of(draft: Any) -> Any:
    return draft.evidence["challengers"]


def evidence(draft: Any) -> Any:
    (found,) = challengers_of(draft)
    return found


def test_a_real_champion_is_measured_against_a_real_challenger(
    real: RealVersions, crowned: Callable[..., tuple[Version, Version]]
) -> None:
    """Each pair has a prompt of its own, so better and worse are counted on what transformers and PEFT alone say."""
    champion, challenger = crowned()
    draft = compare.fn(real.recipe(), [])
    old, new = right(real, real.drawn(1)), right(real, real.drawn(2))
    found = evidence(draft)
    counted = found["comparison"]
    better, worse = (sum(a[row] > b[row] for row in old) for a, b in ((new, old), (old, new)))
    assert better + worse, "the two models prefer the same responses: the test would show nothing"
    assert (counted["better"], counted["worse"], counted["equal"]) == (better, worse, 8 - better - worse)
    assert (counted["new"], counted["old"]) == (sum(new.values()) / 8, sum(old.values()) / 8)
    assert (draft.champion, draft.chosen) == (real.place(champion), real.place(challenger))
    assert (draft.evidence["against"], draft.evidence["level"]) == ("champion", spent_alpha(0.05, 1))
    measured = {guard["name"]: guard["value"] for guard in found["guards"]}
    assert measured["kl"] > 0
    assert measured["length_ratio"] > 0
    assert measured["perplexity_ratio"] > 0


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Measured]:
    """What is measured, in order: the challengers', then what they are compared with."""
    found: list[Measured] = []
    whole = vars(tasks.promotion)["measure"]

    def kept(*given: Any) -> Measured:
        made: Measured = whole(*given)
        found.append(made)
        return made

    monkeypatch.setattr(tasks.promotion, "measure", kept)
    return found


def test_both_models_answer_as_the_recipe_asks_now_and_not_as_their_runs_did(
    real: RealVersions, crowned: Callable[..., tuple[Version, Version]], measured: list[Measured]
) -> None:
    """The runs sampled 2 answers of at most 6 tokens, and the champion's and the challenger's differ in that."""
    crowned(evaluation={"kl_prompts": 4, "max_new_tokens": 5, "bootstrap_samples": 100}, seed=5)
    asked = {"kl_prompts": 3, "max_new_tokens": 2, "bootstrap_samples": 100}
    compare.fn(real.recipe(evaluation=asked, seed=7), [])
    assert [len(each.answers) for each in measured] == [3, 3]
    assert {row["seed"] for each in measured for row in each.answers} == {7}
    assert max(row["tokens"] for each in measured for row in each.answers) == 2


def test_held_out_rows_that_the_champion_was_trained_on_in_any_form_count_for_neither_model(
    real: RealVersions, measured: list[Measured]
) -> None:
    """Of the 8 held-out pairs it had the prompts of 3 as pairs or demonstrations, and 1 of the 6 demonstrations."""
    held_out = load_pairs(real.prepared.data, "eval")
    (shown,) = load_demonstrations(real.prepared.data, "eval")[:1]
    answered = [Demonstration(pair.prompt + pair.rejected, pair.source) for pair in held_out[:2]]
    other = [Pair(held_out[2].prompt, held_out[0].chosen, held_out[1].chosen, held_out[2].source)]

    def write(out: Path) -> None:
        write_rows(out / rows_file("demonstrations", "train"), [*answered, shown])
        write_rows(out / rows_file("preferences", "train"), other)
        write_rows(out / rows_file("demonstrations", "eval"), [])
        write_rows(out / rows_file("preferences", "eval"), [])

    real.crown(real.dpo(1, data=build(real.folder / "data", write)))
    real.dpo(2)
    asked = {"kl_prompts": 8, "max_new_tokens": 2, "bootstrap_samples": 100}
    draft = compare.fn(real.recipe(evaluation=asked), [])
    remaining = {pair.id for pair in held_out[3:]}
    assert [set(each.rows.ids) for each in measured] == [remaining] * 2
    assert [{row["prompt"] for row in each.answers} for each in measured] == [
        {pair.prompt[0].content for pair in held_out[3:]}
    ] * 2
    assert evidence(draft)["comparison"]["rows"] == 5
    assert draft.reasons[-1] == (
        "left out, since the champion was trained on their first user turns: 3 of 8 held-out pairs and 1 of 6 "
        "held-out demonstrations"
    )
    assert draft.evidence["training_rows_left_out"] == 3
    assert draft.evidence["training_demonstrations_left_out"] == 1


def test_without_a_champion_each_challenger_is_compared_with_the_model_that_it_was_trained_from(
    real: RealVersions, measured: list[Measured]
) -> None:
    """Three challengers from two SFT models: the reference that two of them share is measured once."""
    sft = {number: real.drawn(number) for number in (11, 12)}
    start = {1: 11, 2: 12, 3: 11}
    versions = {number: real.dpo(number, sft=sft[of]) for number, of in start.items()}
    draft = compare.fn(real.recipe(), [version.run_id for version in versions.values()])
    expected = {number: sum(right(real, made).values()) / 8 for number, made in sft.items()}
    assert expected[11] != expected[12], "the two references do equally well: the test would show nothing"
    found = {each["version"]: each["comparison"]["old"] for each in challengers_of(draft)}
    assert found == {versions[number].number: expected[of] for number, of in start.items()}
    assert len(measured) == 3 + 2
    assert "there is no champion yet: compared with its own reference, the sft model" in draft.reasons
