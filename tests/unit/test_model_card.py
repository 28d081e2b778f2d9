"""The model card says what the artifacts hold, in the form that Hugging Face's hub reads."""

from typing import Any

import pytest
from huggingface_hub import ModelCard

from preflow.config import Recipe
from preflow.model_card import CardFacts, model_card

RECIPE = Recipe.model_validate(
    {"name": "polite", "model_name": "/models/tiny", "sft": {"dataset": "d"}, "dpo": {"dataset": "p"}}
)
SHARE = {"value": 0.75, "low": 0.69, "high": 0.8}


def facts(**changes: Any) -> CardFacts:
    evaluation: dict[str, Any] = {
        "models": {
            "base": {"preference_accuracy": {"value": 0.5, "low": 0.43, "high": 0.57}},
            "dpo": {"preference_accuracy": SHARE, "kl_sft": {"value": 1.5, "se": 0.25}, "cut_share": 0.125},
            "sft": {"preference_accuracy": SHARE, "perplexity": 9.5},
        },
        "comparison": {
            "preference_accuracy_gain": {"value": 0.1, "low": 0.05, "high": 0.15, "p": 0.004, "test": "a test"}
        },
        "power": {"prompts": 220, "visible_difference": 0.0944},
        "n_pairs": 220,
        "reference": "sft",
        "confidence": 0.95,
        "warnings": ["the KL is high"],
    }
    findings = {"blank_text": {"set_aside": 3}, "near_copy": {"set_aside": 0}}
    pairs = {"rows_in": 1223, "train": 1000, "eval": 220, "set_aside": 3, "findings": findings}
    return CardFacts(RECIPE, "b" * 64, {"dpo": "d" * 64}, {"preferences": pairs}, evaluation, **changes)


def test_the_front_matter_is_read_back_as_it_was_meant() -> None:
    data: Any = ModelCard(model_card(facts())).data
    assert data.base_model == "tiny"
    assert data.library_name == "peft"
    assert data.eval_results is not None
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("preference_accuracy", 0.75)


@pytest.mark.parametrize(
    "line",
    [
        "| preferences | 1,223 | 1,000 | 0 | 220 | 3 |",
        "Quarantined: 3 preferences by blank text.",
        "| measure | base | sft | dpo |",
        "| preference accuracy | 0.5000 [0.4300, 0.5700] | 0.7500 [0.6900, 0.8000] | 0.7500 [0.6900, 0.8000] |",
        "| KL from SFT |  |  | 1.5000 ± 0.2500 |",
        f"| dpo | `{'d' * 64}` |",
        "n = 220 held-out pairs; 95% intervals; ± is a standard error.",
        "Gain in preference accuracy over sft, paired: 0.1000 [0.0500, 0.1500], p = 0.004 (a test).",
        "220 prompts show differences of 9.4 points and more.",
        "- the KL is high",
    ],
)
def test_the_model_card_has_data_stages_measures_with_n_and_limits(line: str) -> None:
    assert line in model_card(facts()).splitlines()


def test_the_model_card_says_what_the_judge_is_and_how_it_was_tested() -> None:
    assert "no benchmark and no judge took part." in model_card(facts())
    test = {"accuracy": SHARE, "pairs": 100, "fit": True, "reason": None, "orders": {"pairs": 10, "obeyed": 2}}
    said = {"models": ["dpo", "sft"], "win_rate": SHARE, "prompts": 64, "win_rate_lc_reason": "it is always longer"}
    judge = {"judge": {"kind": "endpoint", "model": "m-7"}, "test": {**test, "consistency": 0.875}, **said}
    text = model_card(facts(judge=judge))
    assert "endpoint m-7: agrees with people on 0.7500 [0.6900, 0.8000] of 100 held-out pairs, so it is fit." in text
    assert "Win rate of dpo over sft: 0.7500 [0.6900, 0.8000] on 64 prompts." in text
    assert "At equal length: none (it is always longer)." in text
    assert "| consistency, both orders | 0.875 |" in text
    assert "| planted orders obeyed, of 10 | 2 |" in text
    assert (
        "Guards: kl 10, length_ratio 1.3, perplexity_ratio 1.1, benchmark_margin 0.02. Approval by a person: none."
        in text
    )
    assert "and no judge" not in text


def test_the_model_card_names_no_place() -> None:
    assert "/models" not in model_card(facts())
    assert model_card(facts()) == model_card(facts())


def test_the_model_card_of_demonstrations_alone_has_no_preference_accuracy() -> None:
    recipe = Recipe.model_validate({"strategy": "sft", "model_name": "/models/tiny", "dataset": "d"})
    models = {"base": {"perplexity": 9.5}, "sft": {"perplexity": 4.5}}
    report = {"models": models, "n_pairs": 0, "reference": "sft", "confidence": 0.95, "warnings": []}
    card = ModelCard(model_card(CardFacts(recipe, "b" * 64, {"sft": "c" * 64}, {}, report)))
    data: Any = card.data
    assert data.eval_results is None
    assert "| perplexity | 9.5 | 4.5 |" in card.content
