"""Prompts of the harness's own tasks: which texts of a document a training row may repeat, and that a run has them."""

import json
from pathlib import Path
from typing import Any

import pytest

import flows.opening
from flows.opening import opened_run
from flows.running.preparation import PreparedRun
from preflow.benchmarks import loading
from preflow.benchmarks.documents import named_prompts, task_prompts
from preflow.benchmarks.tasks import Task

pytest.importorskip("lm_eval", reason="the extra preflow[bench] is not installed")
pytestmark = pytest.mark.slow  # imports the harness


class Part:
    """A task of the harness whose documents are given."""

    OUTPUT_TYPE = "multiple_choice"

    def __init__(self, template: str | int, *documents: dict[str, Any]) -> None:
        self.template, self.eval_docs = template, documents

    def higher_is_better(self) -> dict[str, bool]:
        return {"acc": True}

    def doc_to_text(self, document: dict[str, Any]) -> str | int:
        from lm_eval import utils

        return self.template if isinstance(self.template, int) else utils.apply_template(self.template, document)

    def doc_to_choice(self, document: dict[str, Any]) -> list[str]:
        return [document["sentence"].replace("_", name) for name in document["names"]]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            Part("Question: {{goal}}\nAnswer:", {"goal": "Boil an egg.", "sol1": "In hot water, for ten minutes."}),
            ["Boil an egg.", "Question: Boil an egg.\nAnswer:"],
        ),
        (
            Part("{{question}}\nA. {{choices[0]}}\nAnswer:", {"question": "Why?", "field": "optics", "choices": ["x"]}),
            ["Why?", "Why?\nA. x\nAnswer:"],
        ),
        (
            Part("{{passage}}\n{{question}}?", {"passage": "The sky is blue by day.", "question": "is it blue"}),
            ["is it blue", "The sky is blue by day.", "The sky is blue by day.\nis it blue?"],
        ),
        (
            Part(1, {"sentence": "As _ was late, Ben left.", "names": ["Ann", "Ben"]}),
            ["As Ann was late, Ben left.", "As Ben was late, Ben left."],
        ),
        (
            Part("{{query}}", {"query": "Cooking: A cook stirs. She then", "ctx_a": "A cook stirs.", "label": "cook"}),
            ["Cooking: A cook stirs. She then", "A cook stirs."],
        ),
        (Part("{{query}}", {"query": "She then"}, {"query": "She then"}, {"query": " "}), ["She then"]),
    ],
    ids=[
        "no column of a known name",
        "options in a list",
        "a passage",
        "two beginnings",
        "a whole column",
        "repeated and empty",
    ],
)
def test_each_form_of_a_prompt_is_there_once(part: Part, expected: list[str]) -> None:
    assert list(task_prompts([part])) == expected


def test_only_tasks_without_files_are_written_and_by_their_contents(tmp_path: Path) -> None:
    tasks = [Task("shop/orders", "shop/orders"), Task("mine", {}, (tmp_path / "mine.yaml",))]
    parts = [Part("{{query}}", {"query": text}) for text in ("Where is it?", "When will it come?")]
    loaded = {"shop/orders": dict(enumerate(parts)), "mine": {"mine": Part("{{query}}", {"query": "Mine."})}}
    (found,) = named_prompts(tasks, loaded, tmp_path)  # type: ignore[arg-type]
    file = Path(found.path)
    assert file.name == "shop_orders.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert rows == [{"prompt": "Where is it?"}, {"prompt": "When will it come?"}]
    assert named_prompts(tasks, loaded, tmp_path) == [found]  # type: ignore[arg-type]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_run_gives_them_to_data_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Manager:
        def __init__(self, *, named: bool) -> None:
            assert named

        def load(self, settings: list[Any]) -> dict[str, Any]:
            return {"tasks": {name: Part("{{query}}", {"query": f"What is {name}?"}) for name in settings}}

    def announced(prepared: PreparedRun) -> None:
        raise InterruptedError([source.path for source in prepared.sources.benchmarks])

    monkeypatch.setattr(loading, "manager", Manager)
    monkeypatch.setattr(flows.opening, "announce", announced)
    (tmp_path / "sft.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{model_name: m, strategy: sft, dataset: sft.jsonl, evaluation: {benchmarks: {tasks: [shop, piqa]}}}"
    )
    with pytest.raises(InterruptedError) as stopped, opened_run(str(recipe), {}):
        pass
    files = [Path(path) for path in stopped.value.args[0]]
    assert [file.name for file in files] == ["shop.jsonl", "piqa.jsonl"]
    assert json.loads(files[0].read_text("utf-8")) == {"prompt": "What is shop?"}
