"""A recipe that is wrong says so at once, by name; one that is right means what it says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from preflow.advice import advice
from preflow.config import _ANY_DIVERGENCE, DpoSettings, Recipe, recipe_schema
from preflow.data.reading import resolve_sources
from preflow.errors import ConfigError, DataFileError, MissingDependencyError
from preflow.recipes import load_recipe, require_runnable
from preflow.settings import numbers

ROOT = Path(__file__).parents[2]
FILES = [path for ending in ("*.yaml", "*.yml", "*.json") for path in sorted((ROOT / "recipes").glob(ending))]
RECIPES = [path for path in FILES if path.name != "recipe.schema.json"]
TWO_STAGE = {"model_name": "m", "sft": {"dataset": "d.jsonl"}, "dpo": {"dataset": "p.jsonl"}}


def load(tmp_path: Path, values: dict[str, Any], **overrides: Any) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    return load_recipe(file, overrides)


def refused(tmp_path: Path, values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, values)
    return str(caught.value)


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
    ("values", "hint"),
    [
        ({"dpo": {"bta": 0.2}}, "dpo.bta: unknown setting; did you mean 'beta'?"),
        ({"learning_rat": 1e-6}, "learning_rat: unknown setting; did you mean 'learning_rate'?"),
        ({"evaluation": {"kl_prompt": 3}}, "evaluation.kl_prompt: unknown setting; did you mean 'kl_prompts'?"),
        ({"dpo": {"use_4bit": True}}, "dpo.use_4bit: 'use_4bit' is a setting of the whole recipe"),
        ({"zzzzzz": 1}, "zzzzzz: unknown setting; valid names here:"),
    ],
)
def test_unknown_settings_name_the_nearest_valid_one(tmp_path: Path, values: dict[str, Any], hint: str) -> None:
    assert hint in refused(tmp_path, values)


@pytest.mark.parametrize(
    ("values", "both"),
    [
        ({"use_4bit": True, "tuning": "full"}, ("use_4bit is true", "tuning is 'full'")),
        ({"sft": {"lora_r": 8}, "dpo": {"lora_r": 4}}, ("dpo.lora_r is 4", "sft.lora_r is 8")),
        ({"lora_r": 16, "dpo": {"lora_r": 32}}, ("dpo.lora_r is 32", "sft.lora_r is 16")),
        ({"dpo": {"loss_type": "exo_pair"}}, ("'exo_pair'", "label_smoothing is 0.0")),
        ({"dpo": {"label_smoothing": 0.1}}, ("label_smoothing is 0.1", "sigmoid ignores it")),
        ({"dpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}}, ("1 values", "has 2")),
        ({"strategy": "dpo", "sft": {"dataset": "d"}}, ("strategy is 'dpo'", "section 'sft'")),
        ({"strategy": "sft", "beta": 0.3}, ("beta is 0.3", "'sft'")),
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
        ({"loss_type": "nca_pair", "f_divergence_type": "js_divergence"}, ("'js_divergence'", "nca_pair")),
        ({"lora_target_modules": ["q_proj", "lm_head"]}, ("lora_target_modules", "lm_head")),
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
    assert set(json.loads(line.partition("=")[2].strip().replace("{", "[").replace("}", "]"))) == _ANY_DIVERGENCE
    assert 'loss_type in {"aot", "aot_unpaired"}' in source


@pytest.mark.parametrize(
    ("optim", "part"), [("adamw_trch", "did you mean 'adamw_torch'"), ("nothing like it", "expected one of")]
)
def test_an_unknown_optimizer_is_refused_at_once(tmp_path: Path, optim: str, part: str) -> None:
    with pytest.raises(ConfigError, match=f"dpo.optim is '{optim}'.*{part}"):
        require_runnable(load(tmp_path, TWO_STAGE, **{"dpo.optim": optim}))


def test_an_8_bit_optimizer_needs_bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "optim": "paged_adamw_8bit"})
    require_runnable(recipe)
    monkeypatch.setattr("preflow.recipes.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"sft\.optim: paged_adamw_8bit.*bitsandbytes"):
        require_runnable(recipe)


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


def test_an_overriding_section_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    """``prefect deployment run --param overrides='{"dpo": {"beta": 0.2}}'``."""
    values = {**TWO_STAGE, "dpo": {"dataset": "p.jsonl", "beta": 0.5, "learning_rate": 1e-6}}
    recipe = load(tmp_path, values, dpo={"beta": 0.2}, evaluation={"kl_prompts": 8})
    assert recipe.dpo is not None
    assert (recipe.dpo.beta, recipe.dpo.learning_rate) == (0.2, 1e-6)
    assert recipe.evaluation.kl_prompts == 8


def test_a_name_may_be_a_number_and_a_model_must_have_a_name(tmp_path: Path) -> None:
    assert load(tmp_path, TWO_STAGE, name="2024").name == "2024"
    with pytest.raises(ConfigError, match="missing model_name"):
        require_runnable(load(tmp_path, {**TWO_STAGE, "model_name": ""}))


def test_data_are_never_looked_for_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd" / "owner").mkdir(parents=True)
    for name in ("y.ndjson", "owner/x.jsonl"):
        (tmp_path / "cwd" / name).write_text("{}\n", encoding="utf-8")
    (tmp_path / "rec").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    recipe = load(tmp_path / "rec", {"strategy": "dpo", "dataset": ["y.ndjson", "owner"]})
    assert recipe.dpo is not None
    assert recipe.dpo.dataset == (str(tmp_path / "rec" / "y.ndjson"), "owner")
    with pytest.raises(DataFileError, match=r"rec/y\.ndjson"):
        resolve_sources(recipe.dpo.dataset[:1])
    with pytest.raises(DataFileError, match="'owner' is no file here"):
        resolve_sources(recipe.dpo.dataset[1:])


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


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, {"seed": -1, "dpo": {"beta": 0, "bta": 1}})
    assert all(part in message for part in ("seed", "dpo.beta", "dpo.bta"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "neither YAML nor JSON"),
        ("- a\n- b\n", "holds list"),
        ("", "holds NoneType"),
        ("seed: 1\nseed: 2\n", "neither YAML nor JSON"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=part):
        load_recipe(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "absent.yaml")


def test_small_learning_rates_in_yaml_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 5e-7 as text; recipes are YAML 1.2."""
    file = tmp_path / "r.yaml"
    file.write_text("strategy: dpo\nlearning_rate: 5e-7\n", encoding="utf-8")
    recipe = load_recipe(file)
    assert recipe.dpo is not None
    assert recipe.dpo.learning_rate == 5e-7
    assert recipe.name == "r"


def test_overrides_win_wherever_the_setting_stands(tmp_path: Path) -> None:
    section = load(tmp_path, {**TWO_STAGE, "dpo": {"beta": 0.1}}, **{"dpo.beta": "0.2"})
    shared = load(tmp_path, {**TWO_STAGE, "dpo": {"beta": 0.1}}, beta="0.3")
    flat = load(tmp_path, {"strategy": "dpo", "beta": 0.1}, **{"dpo.beta": "0.4"})
    assert [r.dpo.beta for r in (section, shared, flat) if r.dpo is not None] == [0.2, 0.3, 0.4]
    with pytest.raises(ConfigError, match="did you mean 'beta'"):
        load(tmp_path, TWO_STAGE, **{"dpo.bta": "0.2"})


def test_an_override_of_a_shared_setting_reaches_every_stage(tmp_path: Path) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "sft": {"num_train_epochs": 3}}, num_train_epochs="5")
    assert recipe.sft is not None
    assert recipe.dpo is not None
    assert (recipe.sft.num_train_epochs, recipe.dpo.num_train_epochs) == (5, 5)
    with pytest.raises(ConfigError, match=r"sft\.learning_rate and dpo\.learning_rate"):
        load(tmp_path, {"sft": {"learning_rate": 1e-4}, "dpo": {}}, learning_rate="3e-5")


@pytest.mark.parametrize("values", [{"sft": 5}, {"dpo": [1]}, {"sft": "foo"}, {"strategy": ["a"]}, {"strategy": {}}])
def test_values_of_the_wrong_kind_are_refused_without_a_traceback(tmp_path: Path, values: dict[str, Any]) -> None:
    assert next(iter(values)) in refused(tmp_path, values)


@pytest.mark.parametrize("rank", ["16", 16.0, 16])
def test_alpha_follows_a_rank_however_it_is_written(rank: object) -> None:
    assert DpoSettings.model_validate({"lora_r": rank}).lora_alpha == 32


def test_json_recipes_keep_their_emoji(tmp_path: Path) -> None:
    recipe = load(tmp_path, {"description": "\U0001f600"})  # json.dumps writes it as a pair of surrogates
    assert recipe.description.encode("utf-8") == "\U0001f600".encode()
    (tmp_path / "twice.json").write_text('{"seed": 1, "seed": 2}', encoding="utf-8")
    with pytest.raises(ConfigError, match="seed twice"):
        load_recipe(tmp_path / "twice.json")


def test_a_file_name_that_is_no_experiment_name_is_mended(tmp_path: Path) -> None:
    (tmp_path / "my run (2).yaml").write_text("strategy: dpo", encoding="utf-8")
    assert load_recipe(tmp_path / "my run (2).yaml").name == "my run -2"


def test_data_paths_resolve_against_the_recipes_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = load(tmp_path, {"strategy": "dpo", "dataset": ["data/p.jsonl", "org/name", "/abs/x.jsonl"]})
    assert recipe.dpo is not None
    assert recipe.dpo.dataset == (str(tmp_path / "data" / "p.jsonl"), "org/name", "/abs/x.jsonl")


def test_missing_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing model_name, sft\.dataset, dpo\.dataset"):
        require_runnable(load(tmp_path, {}))
    with pytest.raises(ConfigError, match="missing dataset"):
        require_runnable(load(tmp_path, {"strategy": "dpo", "model_name": "m"}))


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


@pytest.mark.parametrize("file", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_loads(file: Path) -> None:
    recipe = load_recipe(file)
    require_runnable(recipe)
    assert advice(recipe) == []
    assert recipe.name == file.stem


EXPECTED = {
    "dpo_basic": (5e-7, 2, 4, 16, 32),
    "dpo_advanced": (5e-7, 4, 2, 64, 128),
    "dpo_assistant_example": (5e-7, 4, 2, 64, 128),
    "dpo_mid_range_12_to_16_gb": (5e-6, 2, 4, 16, 32),
    "dpo_high_end_16_gb_up": (5e-6, 4, 2, 64, 128),
    "two_stage_1_sft": (2e-4, 4, 2, 16, 32),
    "two_stage_2_dpo": (5e-6, 4, 2, 16, 32),
}


@pytest.mark.parametrize("file", sorted((Path(__file__).parent / "configs").glob("*.json")), ids=lambda p: p.stem)
def test_files_that_users_already_have_load_unchanged(file: Path) -> None:
    recipe = load_recipe(file)
    section = recipe.dpo or recipe.sft
    assert section is not None
    got = (
        section.learning_rate,
        section.per_device_train_batch_size,
        section.gradient_accumulation_steps,
        section.lora_r,
        section.lora_alpha,
    )
    assert got == EXPECTED[file.stem]


def test_the_schema_documents_every_field_and_shared_settings() -> None:
    schema = recipe_schema()
    assert {"beta", "lora_r", "sft", "model_name"} <= schema["properties"].keys()
    for place in (schema, *(schema["$defs"][name] for name in ("SftSettings", "DpoSettings", "EvaluationSettings"))):
        undocumented = [n for n, field in place["properties"].items() if not field.get("description")]
        assert undocumented == []


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_fit_the_schema_as_an_editor_sees_them(file: Path) -> None:
    raw = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    jsonschema.validate(raw, recipe_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**raw, "bta": 1}, recipe_schema())


def test_the_schema_file_is_current() -> None:
    exported = json.loads((ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert exported == recipe_schema(), "run `make schema`"


def test_reading_a_recipe_imports_no_torch() -> None:
    code = "import sys, preflow.config, preflow.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"tuning": "full", "dpo": {"learning_rate": 2e-6}}, "above 1e-6"),
        ({"dpo": {"learning_rate": 2e-5}}, "above 1e-5"),
        ({"dpo": {"learning_rate": 5e-7}}, "hardly moves an adapter"),
        ({"dpo": {"beta": 0.05}}, "outside 0.1 to 2"),
        ({"dpo": {"beta": 3}}, "outside 0.1 to 2"),
        ({"dpo": {"num_train_epochs": 5}}, "beyond about 4"),
        ({"dpo": {"warmup_ratio": 0.0}}, "dpo has no warm-up"),
        ({"sft": {"warmup_ratio": 0.0}}, "sft has no warm-up"),
        ({"sft": {"lr_scheduler_type": "constant"}}, "sft has no warm-up"),
    ],
)
def test_advice_outside_what_is_known_to_work(values: dict[str, Any], part: str) -> None:
    warnings = advice(Recipe.model_validate(values))
    assert len(warnings) == 1
    assert part in warnings[0]


def test_advice_is_silent_inside_what_is_known_to_work() -> None:
    assert advice(Recipe.model_validate({"dpo": {"learning_rate": 5e-6, "beta": 0.1}})) == []
    assert advice(Recipe.model_validate({"tuning": "full"})) == []
