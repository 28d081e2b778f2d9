"""Settings that are wrong are refused at once, by name; those that are right mean what they say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from preflow.config import Recipe, recipe_schema
from preflow.config.base import numbers
from preflow.config.checks.advice import advice
from preflow.config.losses import LOSSES
from preflow.config.training import DpoSettings
from tests.unit.config.recipe_files import TWO_STAGE, load, refused

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("strategy", "stages"), [("two-stage", ["sft", "dpo"]), ("sft", ["sft"]), ("dpo", ["dpo"])])
def test_the_training_sections_are_those_of_the_strategy_in_order(strategy: str, stages: list[str]) -> None:
    recipe = Recipe.model_validate({"strategy": strategy, "model_name": "m"})
    assert [stage for stage, _ in recipe.training_sections] == stages
    assert [section for _, section in recipe.training_sections] == [getattr(recipe, stage) for stage in stages]


def test_defaults_are_those_of_the_field(tmp_path: Path) -> None:
    recipe = load(tmp_path, TWO_STAGE)
    assert recipe.sft is not None
    assert recipe.dpo is not None
    assert (recipe.sft.learning_rate, recipe.sft.lora_r, recipe.sft.lora_alpha) == (2e-4, 16, 32)
    assert (recipe.sft.eval_split, recipe.dpo.beta, recipe.dpo.learning_rate) == (0.1, 0.1, 5e-6)
    assert recipe.tuning == "lora"
    full = load(tmp_path, {**TWO_STAGE, "tuning": "full"})
    assert full.dpo is not None
    assert full.dpo.learning_rate == 5e-7


def test_alpha_is_twice_the_rank_unless_given(tmp_path: Path) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "lora_r": 8})
    assert recipe.dpo is not None
    assert recipe.dpo.lora_alpha == 16
    assert load(tmp_path, {"strategy": "dpo", "lora_r": 8, "lora_alpha": 5}).dpo.lora_alpha == 5  # type: ignore[union-attr]


def test_shared_settings_reach_every_stage_and_a_section_wins(tmp_path: Path) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "num_train_epochs": 3, "dpo": {"dataset": "p", "num_train_epochs": 1}})
    assert recipe.sft is not None
    assert recipe.dpo is not None
    assert (recipe.sft.num_train_epochs, recipe.dpo.num_train_epochs) == (3, 1)


@pytest.mark.parametrize("name", ["learning_rate", "dataset", "eval_dataset"])
def test_what_two_stages_cannot_share_is_refused(tmp_path: Path, name: str) -> None:
    message = refused(tmp_path, {**TWO_STAGE, name: 1})
    assert f"sft.{name} and dpo.{name}" in message


@pytest.mark.parametrize(
    ("values", "both"),
    [
        ({"use_4bit": True, "tuning": "full"}, ("use_4bit is true", "tuning is 'full'")),
        ({"sft": {"lora_r": 8}, "dpo": {"lora_r": 4}}, ("dpo.lora_r is 4", "sft.lora_r is 8")),
        ({"lora_r": 16, "dpo": {"lora_r": 32}}, ("dpo.lora_r is 32", "sft.lora_r is 16")),
        ({"dpo": {"loss_type": "exo_pair"}}, ("'exo_pair'", "label_smoothing is 0.0")),
        ({"dpo": {"label_smoothing": 0.1}}, ("label_smoothing is 0.1", "sigmoid ignores it")),
        ({"dpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}}, ("1 values", "has 2")),
        ({"dpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0, 1.0]}}, ("3 values", "has 2")),
        ({"strategy": "dpo", "sft": {"dataset": "d"}}, ("strategy is 'dpo'", "section 'sft'")),
        ({"strategy": "sft", "beta": 0.3}, ("beta is 0.3", "'sft'")),
        ({"dpo": {"eval_split": 0.5, "validation_split": 0.5}}, ("eval_split 0.5", "validation_split 0.5")),
    ],
)
def test_contradictions_name_both_values(tmp_path: Path, values: dict[str, Any], both: tuple[str, str]) -> None:
    message = refused(tmp_path, values)
    assert all(part in message for part in both), message


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ({"loss_type": []}, ("dpo.loss_type", "at least 1")),
        ({"loss_type": "aot", "use_weighting": True}, ("use_weighting is true", "aot")),
        ({"loss_type": ["sigmoid", "sft"], "use_weighting": True}, ("use_weighting is true", "sft, a mean")),
        ({"loss_type": "hinge", "use_weighting": True}, ("use_weighting is true", "hinge")),
        ({"loss_type": "aot_unpaired", "auto_find_batch_size": True}, ("auto_find_batch_size is true", "aot_unpaired")),
        ({"loss_type": ["sigmoid", "sft"], "max_tokens_per_batch": 64}, ("max_tokens_per_batch is 64", "sft")),
        ({"loss_type": "nca_pair", "f_divergence_type": "js_divergence"}, ("'js_divergence'", "nca_pair")),
        ({"lora_target_modules": ["q_proj", "lm_head"]}, ("lora_target_modules", "lm_head")),
        ({"lora_target_modules": ".*(proj|lm_head)"}, ("lora_target_modules", "lm_head")),
        ({"lora_target_modules": "(proj"}, ("lora_target_modules", "no regular expression")),
        ({"max_steps": 0}, ("max_steps is 0", "-1")),
        ({"beta": True}, ("beta is true", "number")),
        ({"lora_r": True}, ("lora_r is true", "number")),
    ],
)
def test_what_the_trainer_would_refuse_after_hours_is_refused_at_once(
    tmp_path: Path, section: dict[str, Any], parts: tuple[str, str]
) -> None:
    message = refused(tmp_path, {**TWO_STAGE, "dpo": {"dataset": "p.jsonl", **section}})
    assert all(part in message for part in parts), message


def test_the_losses_and_divergences_that_agree_are_those_of_the_trainer(tmp_path: Path) -> None:
    """Each refusal of ours is one of TRL's, read from its own source."""
    import inspect

    from trl.trainer.dpo_trainer import DPOTrainer

    source = inspect.getsource(DPOTrainer.__init__)
    (line,) = [line for line in source.splitlines() if "f_divergence_loss_types = {" in line]
    theirs = set(json.loads(line.partition("=")[2].strip().replace("{", "[").replace("}", "]")))
    assert theirs == {name for name, loss in LOSSES.items() if loss.divergences}
    assert 'loss_type in {"aot", "aot_unpaired"}' in source


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"max_new_tokens": 5}, "belongs in evaluation: give evaluation.max_new_tokens"),
        ({"minimum_rows": 5}, "belongs in validation"),
        ({"dpo": {"kl_prompts": 5}}, "dpo.kl_prompts: 'kl_prompts' belongs in evaluation"),
        ({"sft": {"beta": 1}}, "sft.beta: 'beta' belongs in dpo"),
    ],
)
def test_a_setting_of_another_section_names_its_place(tmp_path: Path, values: dict[str, Any], hint: str) -> None:
    assert hint in refused(tmp_path, {**TWO_STAGE, **values})


def test_adapter_settings_cannot_change_full_weights(tmp_path: Path) -> None:
    full = {**TWO_STAGE, "tuning": "full"}
    plain, sized = load(tmp_path, full), load(tmp_path, {**full, "lora_r": 64})
    assert plain.identity_settings("sft") == sized.identity_settings("sft")
    assert load(tmp_path, TWO_STAGE).identity_settings("sft") != plain.identity_settings("sft")
    assert advice(plain) == []
    assert [line for line in advice(sized) if "lora_r is 64 but tuning is 'full'" in line]


def test_one_adapter_may_be_sized_in_the_sft_section_alone(tmp_path: Path) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "sft": {"dataset": "d", "lora_r": 32}})
    assert recipe.dpo is not None
    assert (recipe.dpo.lora_r, recipe.dpo.lora_alpha) == (32, 64)


@pytest.mark.parametrize("values", [{"sft": 5}, {"dpo": [1]}, {"sft": "foo"}, {"strategy": ["a"]}, {"strategy": {}}])
def test_values_of_the_wrong_kind_are_refused_without_a_traceback(tmp_path: Path, values: dict[str, Any]) -> None:
    assert next(iter(values)) in refused(tmp_path, values)


@pytest.mark.parametrize("rank", ["16", 16.0, 16])
def test_alpha_follows_a_rank_however_it_is_written(rank: object) -> None:
    assert DpoSettings.model_validate({"lora_r": rank}).lora_alpha == 32


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("all", "all-linear"),
        ("[all-linear]", "all-linear"),
        (["all-linear"], "all-linear"),
        (["all"], "all-linear"),
        ("q_proj,v_proj", ("q_proj", "v_proj")),
        ("q_proj v_proj", ("q_proj", "v_proj")),
        ("['q_proj', 'v_proj']", ("q_proj", "v_proj")),
        ("q_proj", ("q_proj",)),
        ("self_attn.q_proj", ("self_attn.q_proj",)),
        (r".*\.(q|v)_proj", r".*\.(q|v)_proj"),
        ("model..*q_proj", "model..*q_proj"),
        ("(q|k)[_]proj", "(q|k)[_]proj"),
    ],
)
def test_modules_for_adapters_mean_what_they_can_only_mean(written: Any, meant: Any) -> None:
    """PEFT reads every text but ``all-linear`` as a pattern of whole names, which no list of short names matches."""
    assert DpoSettings.model_validate({"lora_target_modules": written}).lora_target_modules == meant


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ([], "names nothing"),
        ("", "names nothing"),
        (["all-linear", "q_proj"], "give all-linear alone, or the names alone"),
        ("q_proj,lm_head", "has 'lm_head'"),
    ],
)
def test_modules_that_can_mean_nothing_are_refused(tmp_path: Path, written: Any, part: str) -> None:
    assert part in refused(tmp_path, {**TWO_STAGE, "lora_target_modules": written})


def test_resolved_recipes_load_again_to_the_same(tmp_path: Path) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "dpo": {"dataset": "/p.jsonl"}, "lora_r": 4})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_cosmetic_settings_do_not_enter_the_identity() -> None:
    first, second = DpoSettings(), DpoSettings(logging_steps=7, save_steps=9, dataset=("x",))
    assert numbers(first) == numbers(second)
    assert numbers(first) != numbers(DpoSettings(beta=0.2))


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3


def test_the_schema_documents_every_field_and_shared_settings() -> None:
    schema = recipe_schema()
    assert {"beta", "lora_r", "sft", "model_name"} <= schema["properties"].keys()
    for place in (schema, *(schema["$defs"][name] for name in ("SftSettings", "DpoSettings", "EvaluationSettings"))):
        undocumented = [n for n, field in place["properties"].items() if not field.get("description")]
        assert undocumented == []


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_fit_the_schema_as_an_editor_sees_them(file: Path) -> None:
    raw = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    jsonschema.validate(raw, recipe_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**raw, "bta": 1}, recipe_schema())


def test_the_schema_file_is_current() -> None:
    exported = json.loads((ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert exported == recipe_schema(), "run `make schema`"


@pytest.mark.slow
def test_reading_a_recipe_imports_no_torch() -> None:
    code = "import sys, preflow.config, preflow.config.loading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
