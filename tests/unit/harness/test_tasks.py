"""Tasks that are files: documents of their own are found beside them, and checked for leaks by themselves."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from flows.running.preparation import PACKAGED_RECIPES, data_sources
from preflow.benchmarks.tasks import tasks_of
from preflow.config.checks.requirements import require_runnable
from preflow.config.loading import load_recipe
from preflow.errors import ConfigError, MissingDependencyError
from preflow.fingerprints.files import file_digest

SHIPPED = PACKAGED_RECIPES / "demo" / "tasks" / "courtesy.yaml"


def test_no_rule_on_length_does_the_shipped_task() -> None:
    """Log-likelihoods prefer short replies, a person who is kind writes long ones: neither is what the task asks."""
    rows = [json.loads(line) for line in (SHIPPED.parent / "courtesy.jsonl").read_text(encoding="utf-8").splitlines()]
    right = [len(row["choices"][row["label"]]) for row in rows]
    wrong = [len(row["choices"][1 - row["label"]]) for row in rows]
    longer, shorter = (sum(sign * (a - b) > 0 for a, b in zip(right, wrong, strict=True)) for sign in (1, -1))
    assert abs(longer - shorter) <= 2
    assert abs(sum(right) - sum(wrong)) <= len(rows)
    assert sum(row["label"] for row in rows) == len(rows) / 2, "nor one on the place"


def write_task(folder: Path, **changes: object) -> Path:
    (folder / "documents.jsonl").write_text('{"question": "Where is order 3?", "label": 0}\n')
    task = {
        "task": "orders",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "documents.jsonl"}},
        "test_split": "test",
    }
    file = folder / "orders.yaml"
    file.write_text(yaml.safe_dump({**task, **changes}))
    return file


def write_recipe(folder: Path) -> Path:
    (folder / "sft.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    file = folder / "recipe.yaml"
    values = {"model_name": "m", "strategy": "sft", "dataset": "sft.jsonl"}
    file.write_text(yaml.safe_dump({**values, "evaluation": {"benchmarks": {"tasks": ["orders.yaml", "hellaswag"]}}}))
    return file


def test_documents_of_a_task_are_found_beside_it(tmp_path: Path) -> None:
    file = write_task(tmp_path)
    local, named = tasks_of([str(file), "hellaswag"])
    assert (local.name, local.files) == ("orders", (file, tmp_path / "documents.jsonl"))
    assert isinstance(local.settings, dict)
    assert local.settings["dataset_kwargs"]["data_files"] == {"test": [str(tmp_path / "documents.jsonl")]}
    assert (named.settings, named.files) == ("hellaswag", ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_path": "Rowan/hellaswag"}, "names no documents of its own"),
        ({"test_split": "validation"}, "names no documents of its own"),
        ({"task": None}, "has no name: give it as task: NAME"),
        ({"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}, "which is no file: paths are relative"),
    ],
)
def test_what_is_no_task_with_documents_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tasks_of([str(write_task(tmp_path, **changes))])


def test_a_task_that_would_run_code_is_refused(tmp_path: Path) -> None:
    file = write_task(tmp_path)
    file.write_text(file.read_text() + "process_docs: !function utils.process\n")
    with pytest.raises(ConfigError, match="is neither YAML nor JSON"):
        tasks_of([str(file)])


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    file = str(write_task(tmp_path))
    with pytest.raises(ConfigError, match="has orders twice"):
        tasks_of([file, file])


def test_prompts_of_a_tasks_documents_are_leak_checked_by_themselves(tmp_path: Path) -> None:
    write_task(tmp_path)
    recipe = load_recipe(write_recipe(tmp_path))
    assert recipe.evaluation.benchmarks is not None
    assert recipe.evaluation.benchmarks.tasks == (str(tmp_path / "orders.yaml"), "hellaswag")
    (checked,) = data_sources(recipe).benchmarks
    assert (checked.path, checked.digest) == (
        str(tmp_path / "documents.jsonl"),
        file_digest(tmp_path / "documents.jsonl"),
    )


def test_without_the_harness_a_recipe_with_benchmarks_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_task(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else found(name))
    with pytest.raises(MissingDependencyError, match=r"pip install 'preflow\[bench\]'"):
        require_runnable(load_recipe(write_recipe(tmp_path)))


def test_the_task_that_comes_with_the_demo_has_a_right_choice_for_each_question() -> None:
    (task,) = tasks_of([str(SHIPPED)])
    (documents,) = task.documents
    rows = [json.loads(line) for line in documents.read_text(encoding="utf-8").splitlines()]
    assert len({row["question"] for row in rows}) == len(rows) >= 10
    assert {row["label"] for row in rows} == {0, 1}, "no position is always right"
    assert all(len(row["choices"]) == 2 for row in rows)


def test_a_task_that_takes_a_part_from_elsewhere_is_refused(tmp_path: Path) -> None:
    """An included file may hold ``!function``, which runs it."""
    with pytest.raises(ConfigError, match="has include, which takes a task from elsewhere"):
        tasks_of([str(write_task(tmp_path, include="more.yaml"))])
