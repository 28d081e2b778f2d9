"""Recipes that others wrote to break what reads them are one short error."""

import os
from pathlib import Path

import pytest

from preflow.config.loading import load_recipe, parse_value
from preflow.errors import ConfigError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)


def refusal(tmp_path: Path, text: str, name: str = "r.yaml") -> str:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(file)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB + "name: *a9\n", "aliases make it more than 100,000 values"),
        ("name: &a [*a, *a]\n", "nested too deeply"),
        ("name: " + "[" * 3000, "nested too deeply"),
        ("name: " + "- " * 3000, "nested too deeply"),
        ("- " * 3000, "nested too deeply"),
        ('{"name": ' + "[" * 100_000, "nested too deeply"),
        ("seed: " + "1" * 5000, "4300 digits"),
        ("name: a\n" + "# comment\n" * 14_000, "more than 128 KiB"),
        ("name: a\n  b: c\n", "line 2 column 4: mapping values are not allowed here"),
    ],
)
def test_a_hostile_recipe_is_one_short_error(tmp_path: Path, text: str, why: str) -> None:
    message = refusal(tmp_path, text)
    assert why in message
    assert len(message) < 400


def test_an_aliased_value_is_written_out_in_no_message(tmp_path: Path) -> None:
    few = BOMB.partition("a4:")[0]
    assert refusal(tmp_path, few + "name: *a3\n").count("'x'") < 300  # of 10,000 and more
    assert "too many digits" in refusal(tmp_path, f"seed: 0x{'f' * 5000}\n")


def test_a_file_that_is_no_recipe_is_not_quoted(tmp_path: Path) -> None:
    for text in ("password: hunter2: x\n", "password: hunter2\npassword: hunter3\n"):
        message = refusal(tmp_path, text)
        assert "line" in message
        assert "hunter" not in message


def test_aliases_within_reason_are_read(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: &n demo\nmodel_name: *n\n")
    assert load_recipe(file).model_name == "demo"


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 3000, "&a [*a]"])
def test_an_override_that_cannot_be_read_is_one_short_error(value: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read as a setting") as caught:
        parse_value(value)
    assert len(str(caught.value)) < 300


def test_a_recipe_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a named pipe"), ("zero", "a device")):
        with pytest.raises(ConfigError, match=f"is {kind}: give a file"):
            load_recipe(tmp_path / f"{name}.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "loop.yaml")


def test_an_endless_link_as_data_set_leaves_the_recipe_readable(tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    (tmp_path / "r.yaml").write_text("sft: {dataset: loop.jsonl}\n")
    sft = load_recipe(tmp_path / "r.yaml").sft
    assert sft
    assert sft.dataset == (str(tmp_path / "loop.jsonl"),)


def test_a_key_with_an_escape_sequence_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    message = refusal(tmp_path, '"\\e]0;PWNED\\a": 1\n')
    assert "\\x1b]0;PWNED\\x07: unknown setting" in message


@pytest.mark.parametrize(
    ("setting", "name"),
    [("model_name", "x" * 5000), ("dataset", "x" * 5000), ("dataset", "~no-such-user/a"), ("dataset", "a\\0b")],
)
def test_a_path_that_can_be_none_is_one_error(tmp_path: Path, setting: str, name: str) -> None:
    settings = {"strategy": "sft", "model_name": "m", "dataset": "rows.jsonl", setting: name}
    said = refusal(tmp_path, "".join(f'{key}: "{value}"\n' for key, value in settings.items()))
    assert "names a path that can be none" in said
    assert len(said) < 1000
