"""A recipe's file is read as it is meant, with its overrides, or refused by name."""

from pathlib import Path
from typing import Any

import pytest

from preflow.config.checks.advice import advice
from preflow.config.checks.requirements import require_runnable
from preflow.config.loading import load_recipe, recipe_for_data
from preflow.config.validation import Dataset
from preflow.data.files.sources import resolve_sources
from preflow.errors import ConfigError, DataFileError, MissingDependencyError
from tests.unit.config.recipe_files import TWO_STAGE, load, refused

ROOT = Path(__file__).parents[3]
FILES = [path for ending in ("*.yaml", "*.yml", "*.json") for path in sorted((ROOT / "recipes").glob(ending))]
RECIPES = [path for path in FILES if path.name != "recipe.schema.json"]


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"dpo": {"bta": 0.2}}, "dpo.bta: unknown setting; did you mean 'beta'?"),
        ({"lr": 1e-6}, "lr: unknown setting; did you mean 'learning_rate'?"),
        ({"dpo": {"batch_size": 2}}, "dpo.batch_size: unknown setting; did you mean 'per_device_train_batch_size'?"),
        ({"learning_rat": 1e-6}, "learning_rat: unknown setting; did you mean 'learning_rate'?"),
        ({"evaluation": {"kl_prompt": 3}}, "evaluation.kl_prompt: unknown setting; did you mean 'kl_prompts'?"),
        ({"dpo": {"use_4bit": True}}, "dpo.use_4bit: 'use_4bit' is a setting of the whole recipe"),
        ({"zzzzzz": 1}, "zzzzzz: unknown setting; valid names here:"),
    ],
)
def test_unknown_settings_name_the_nearest_valid_one(tmp_path: Path, values: dict[str, Any], hint: str) -> None:
    assert hint in refused(tmp_path, values)


@pytest.mark.parametrize(
    ("optim", "part"), [("adamw_trch", "did you mean 'adamw_torch'"), ("nothing like it", "expected one of")]
)
def test_an_unknown_optimizer_is_refused_at_once(tmp_path: Path, optim: str, part: str) -> None:
    with pytest.raises(ConfigError, match=f"dpo.optim is '{optim}'.*{part}"):
        require_runnable(load(tmp_path, TWO_STAGE, **{"dpo.optim": optim}))


def test_an_8_bit_optimizer_needs_bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "optim": "paged_adamw_8bit"})
    require_runnable(recipe)
    monkeypatch.setattr("preflow.config.checks.requirements.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"sft\.optim: paged_adamw_8bit.*bitsandbytes"):
        require_runnable(recipe)


@pytest.mark.parametrize(
    ("optim", "package"),
    [
        ("galore_adamw_8bit", "galore-torch"),
        ("lion_32bit", "bitsandbytes"),
        ("ademamix", "bitsandbytes"),
        ("adamw_torch_8bit", "torchao"),
        ("stable_adamw", "torch-optimi"),
    ],
)
def test_an_optimizer_whose_package_is_missing_is_refused_before_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optim: str, package: str
) -> None:
    monkeypatch.setattr("preflow.config.checks.requirements.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=rf"sft\.optim: {optim}.*pip install {package},"):
        require_runnable(load(tmp_path, {**TWO_STAGE, "optim": optim}))


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


@pytest.mark.parametrize("name", ["dataset", "dpo.dataset"])
@pytest.mark.parametrize("given", [{"dataset": "p.jsonl"}, {"dpo": {"dataset": "p.jsonl"}}])
def test_an_override_of_a_part_of_a_data_set_reaches_it_wherever_it_is_named(
    tmp_path: Path, name: str, given: dict[str, Any]
) -> None:
    recipe = load(tmp_path, {"strategy": "dpo", **given}, **{f"{name}.rows": 5})
    assert recipe.dpo is not None
    assert recipe.dpo.dataset == (Dataset(path=str(tmp_path / "p.jsonl"), rows=5),)


def test_an_override_of_a_shared_setting_reaches_every_stage(tmp_path: Path) -> None:
    recipe = load(tmp_path, {**TWO_STAGE, "sft": {"num_train_epochs": 3}}, num_train_epochs="5")
    assert recipe.sft is not None
    assert recipe.dpo is not None
    assert (recipe.sft.num_train_epochs, recipe.dpo.num_train_epochs) == (5, 5)
    with pytest.raises(ConfigError, match=r"sft\.learning_rate and dpo\.learning_rate"):
        load(tmp_path, {"sft": {"learning_rate": 1e-4}, "dpo": {}}, learning_rate="3e-5")


def test_json_recipes_keep_their_emoji(tmp_path: Path) -> None:
    recipe = load(tmp_path, {"description": "\U0001f600"})  # json.dumps writes it as a pair of surrogates
    assert recipe.description.encode("utf-8") == "\U0001f600".encode()
    (tmp_path / "twice.json").write_text('{"seed": 1, "seed": 2}', encoding="utf-8")
    with pytest.raises(ConfigError, match="seed twice"):
        load_recipe(tmp_path / "twice.json")


def test_a_file_name_that_is_no_experiment_name_is_changed_to_one(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("file", sorted((Path(__file__).parent / "published").glob("*.json")), ids=lambda p: p.stem)
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


def test_personal_data_without_their_packages_are_refused_when_the_recipe_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"strategy": "dpo", "validation": {"personal_data": True}}
    assert load(tmp_path, given).validation.personal_data
    monkeypatch.setattr(
        "preflow.config.checks.requirements.importlib.util.find_spec",
        lambda name: None if name == "phonenumbers" else name,
    )
    with pytest.raises(MissingDependencyError, match=r"personal_data is true, but phonenumbers is not installed: pip"):
        load(tmp_path, given)
    with pytest.raises(MissingDependencyError, match="phonenumbers"):
        recipe_for_data({"dpo": ["d.jsonl"]}, {"validation.personal_data": "true"})
