"""Variables of the environment in the paths of a recipe."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflow.config.loading import recipe_for_data
from preflow.errors import ConfigError
from tests.unit.config.recipe_files import TWO_STAGE, load, refused


@pytest.mark.parametrize(
    "given",
    [
        {"strategy": "dpo", "dataset": "${DATA_HOME}/p.jsonl"},
        {"strategy": "dpo", "dpo": {"dataset": ["${DATA_HOME}/p.jsonl"]}},
        {"strategy": "dpo", "eval_dataset": "${DATA_HOME}/p.jsonl"},
        {"strategy": "dpo", "dataset": {"path": "${DATA_HOME}/p.jsonl", "rows": 3}},
        {"validation": {"benchmark_files": ["${DATA_HOME}/p.jsonl"]}},
        {"launch": {"config": "${DATA_HOME}/p.jsonl"}},
        {"model_name": "${DATA_HOME}/p.jsonl"},
    ],
)
def test_variables_of_the_environment_are_read_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """The recipe is the one that has the path itself; a variable that is not set is named."""
    monkeypatch.setenv("DATA_HOME", "/where/data are")
    written = json.loads(json.dumps(given).replace("${DATA_HOME}", "/where/data are"))
    assert load(tmp_path, given) == load(tmp_path, written)
    monkeypatch.delenv("DATA_HOME")
    with pytest.raises(
        ConfigError, match=r"(dataset(.path)?|benchmark_files|config|model_name) has \$\{DATA_HOME\}, but the va"
    ):
        load(tmp_path, given)


def test_a_chat_templates_file_may_name_a_variable_and_its_text_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "{% for message in messages %}${HOME} {{ message['content'] }}{{ eos_token }}{% endfor %}"
    (tmp_path / "t.jinja").write_text(text, encoding="utf-8")
    monkeypatch.setenv("TEMPLATES", str(tmp_path))
    by_file = load(tmp_path, {"chat_template": "${TEMPLATES}/t.jinja"})
    assert by_file.chat_template == load(tmp_path, {"chat_template": text}).chat_template == text


def test_an_override_may_name_a_variable_and_replaces_one_that_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS", "/models")
    monkeypatch.delenv("ABSENT", raising=False)
    recipe = load(tmp_path, {**TWO_STAGE, "model_name": "${ABSENT}/m"}, model_name="${MODELS}/m")
    assert recipe.model_name == "/models/m"


def test_texts_that_are_no_paths_stay_as_they_are_and_files_of_the_command_line_too(tmp_path: Path) -> None:
    recipe = load(tmp_path, {"description": "${HOME}", "evaluation": {"sample_prompts": ["What is ${HOME}?"]}})
    assert (recipe.description, recipe.evaluation.sample_prompts) == ("${HOME}", ("What is ${HOME}?",))
    named = recipe_for_data({"dpo": ["./${HOME}.jsonl"]})
    assert named.dpo is not None
    assert named.dpo.dataset == (str(Path.cwd() / "${HOME}.jsonl"),)


@pytest.mark.parametrize(
    ("path", "part"),
    [("${HF_TOKEN}/d.jsonl", "which is a secret"), ("${A:-b}/d.jsonl", "expected the name of a variable")],
)
def test_a_secret_or_a_shells_default_in_a_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, part: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    message = refused(tmp_path, {"strategy": "dpo", "dataset": path})
    assert part in message
    assert "hf_abcdefgh" not in message
