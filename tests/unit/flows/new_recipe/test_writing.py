"""Settings of a new recipe follow from the machine, the model and the rows."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.new_recipe.file_facts import FileFacts
from flows.new_recipe.writing import choose_profile, recipe_text, weight_bytes, write_recipe
from preflow.config.validation import RowReading
from preflow.errors import ConfigError

HALF = 1 << 63


def written(*files: FileFacts, model: str | None = None, memory: float | None = None, folder: Path) -> Any:
    text = recipe_text(files, choose_profile(model, memory), folder / "r.yaml")
    for line in text.splitlines()[2:]:
        assert not line.strip() or line.endswith(":") or " # " in line or line.startswith("        "), line
    return YAML(typ="safe", pure=True).load(text)


def pairs(entry: str = "p.jsonl", **said: Any) -> FileFacts:
    return FileFacts(entry, "preferences", "pairs", keys=[0, HALF], characters=[300, 300], **said)


@pytest.mark.parametrize(
    ("memory", "model", "expected"),
    [
        (None, None, {"model_name": "SmolLM2-135M-Instruct"}),
        (8, None, {"model_name": "SmolLM2-135M-Instruct"}),
        (12, None, {"use_4bit": True, "bf16": True, "optim": "paged_adamw_8bit", "lora_r": 16}),
        (16, "org/Llama-3.1-8B", {"model_name": "org/Llama-3.1-8B", "use_4bit": True, "lora_r": 64}),
        (24, "org/unknown", {"use_4bit": True}),
    ],
)
def test_the_profile_is_that_of_the_memory(
    tmp_path: Path, memory: float | None, model: str | None, expected: dict[str, Any]
) -> None:
    recipe = written(pairs(), model=model, memory=memory, folder=tmp_path)
    assert {name: recipe[name] for name in expected} == expected


def test_a_model_that_fits_is_not_quantized(tmp_path: Path) -> None:
    """1.5 billion weights are 3 GB in bfloat16, below 0.4 of 16 GB."""
    recipe = written(pairs(), model="org/Qwen2.5-1.5B", memory=16, folder=tmp_path)
    assert not {"use_4bit", "bf16", "optim"} & recipe.keys()


@pytest.mark.parametrize(
    ("name", "size"),
    [("org/Llama-3.1-8B-Instruct", 16e9), ("SmolLM2-135M", 270e6), ("org/phi-4", None), ("a/b-4bit", None)],
)
def test_a_models_size_is_in_its_name(name: str, size: float | None) -> None:
    assert weight_bytes(name) == size


def test_the_strategy_follows_from_what_the_files_hold(tmp_path: Path) -> None:
    shown = FileFacts("d.jsonl", "demonstrations", "shown", keys=[0, HALF], characters=[300])
    assert written(pairs(), folder=tmp_path)["strategy"] == "dpo"
    assert written(shown, folder=tmp_path)["strategy"] == "sft"
    both = written(pairs(), shown, folder=tmp_path)
    assert (both["strategy"], both["sft"]["dataset"], both["dpo"]["dataset"]) == ("two-stage", "d.jsonl", "p.jsonl")


def test_the_share_to_hold_out_leaves_rows_on_both_sides(tmp_path: Path) -> None:
    """Keys are parted by their size as shares of 2^64: 0.25 is held out from 0.3 on, and 0.9 is left."""
    facts = FileFacts("p.jsonl", "preferences", "pairs", keys=[int(0.25 * 2**64), int(0.9 * 2**64)], characters=[9, 9])
    assert written(facts, folder=tmp_path)["dpo"]["eval_split"] == 0.3


def test_rows_that_cannot_be_parted_are_said(tmp_path: Path) -> None:
    facts = FileFacts("p.jsonl", "preferences", "pairs", keys=[7, 7], characters=[9, 9])
    text = recipe_text([facts], choose_profile(None, None), tmp_path / "r.yaml")
    assert "all rows begin with the same turn, so none can be held out: name other rows as eval_dataset" in text


def test_a_file_for_evaluation_is_held_out_beside_one_to_train_on(tmp_path: Path) -> None:
    section = written(pairs("train.jsonl"), pairs("test.jsonl", held_out=True), folder=tmp_path)["dpo"]
    assert (section["dataset"], section["eval_dataset"]) == ("train.jsonl", "test.jsonl")
    assert "eval_split" not in section
    assert written(pairs("test.jsonl", held_out=True), folder=tmp_path)["dpo"]["dataset"] == "test.jsonl"


def test_the_length_is_a_power_of_two_that_the_rows_fit_in(tmp_path: Path) -> None:
    """600 characters are about 200 tokens and 48 of the template; 90,000 are more than the profile allows."""
    for characters, length in ((30, 128), (600, 256), (90_000, 1024)):
        facts = FileFacts("p.jsonl", "preferences", "pairs", keys=[0, HALF], characters=[characters])
        assert written(facts, folder=tmp_path)["max_seq_length"] == length


def test_columns_and_odd_names_are_written_so_that_they_read_back(tmp_path: Path) -> None:
    reading = RowReading(columns={"prompt": "what: is # it", "chosen": "yes", "rejected": "1"})
    name = 'a "b": #c.jsonl'
    (tmp_path / name).touch()
    section = written(pairs(str(tmp_path / name), reading=reading), folder=tmp_path)["dpo"]
    assert section["dataset"] == [{"path": name, "columns": reading.columns}]
    facts = FileFacts("p.jsonl", "preferences", "a\nb -> prompt", keys=[0, HALF], characters=[9, 9])
    assert written(facts, folder=tmp_path)["dpo"]["dataset"] == "p.jsonl"


def test_the_recipes_name_is_made_of_its_files(tmp_path: Path) -> None:
    text = recipe_text([pairs()], choose_profile(None, None), tmp_path / "mine (2).yaml")
    write_recipe(text, tmp_path / "mine (2).yaml", force=False)
    assert YAML(typ="safe", pure=True).load(text)["name"] == "mine -2"


def test_a_text_that_is_no_recipe_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_recipe("strategy: pear\n", tmp_path / "r.yaml", force=False)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_recipe("strategy: dpo\n", tmp_path / "absent" / "r.yaml", force=False)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
