"""Files of tasks as the harness loads them: none of them runs anything, and each error names its file."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from preflow.benchmarks import loading
from preflow.benchmarks.harness import Harness
from preflow.benchmarks.loading import load_tasks, require_comparable, sandboxed_templates
from preflow.benchmarks.tasks import Task, tasks_of
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.errors import ConfigError
from tests.fixtures.prepared_run import Run

pytest.importorskip("lm_eval", reason="the extra preflow[bench] is not installed")
pytestmark = pytest.mark.slow  # imports the harness

DOCUMENTS = [{"question": f"Where is order {n}?", "choices": ["here", "gone"], "label": n % 2} for n in range(4)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def task_of(folder: Path, **changes: Any) -> Task:
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))
    settings = {
        "task": "orders",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "documents.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}} Reply:",
        "doc_to_target": "label",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "orders.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    (task,) = tasks_of([str(folder / "orders.yaml")])
    return task


def running(marker: Path) -> str:
    """A template that makes a file, where it may."""
    return f"{{{{ cycler.__init__.__globals__.os.popen('touch {marker}').read() }}}}"


@pytest.mark.parametrize("setting", ["doc_to_text", "doc_to_target", "doc_to_choice"])
def test_a_template_of_a_file_runs_nothing(tmp_path: Path, setting: str) -> None:
    task = task_of(tmp_path, **{setting: running(tmp_path / "made")})
    with pytest.raises(ConfigError, match=r"benchmark orders \(.*orders\.yaml\) cannot be loaded: .*unsafe"):
        load_tasks([task])
    assert not (tmp_path / "made").exists()


def test_nor_does_one_that_waits_for_a_later_document(tmp_path: Path, prepared: Run) -> None:
    """Loading fills in the first document alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    later = f"{{% if label %}}{running(tmp_path / 'made')}{{% endif %}}{{{{question}}}}"
    model, tokenizer = (kind.from_pretrained(prepared.base.path) for kind in (AutoModelForCausalLM, AutoTokenizer))
    with pytest.raises(ConfigError, match=r"a template of the benchmarks orders cannot be filled: .*unsafe"):
        Harness().run(model, tokenizer, [task_of(tmp_path, doc_to_text=later)], BenchmarkSettings(tasks=("t",)))
    assert not (tmp_path / "made").exists()


def test_templates_are_filled_as_the_harness_fills_them() -> None:
    from lm_eval import utils

    own, template = utils.env, "{{a | regex_replace('x', 'y')}}\n"
    with sandboxed_templates():
        assert utils.apply_template(template, {"a": "xz"}) == "yz\n"
        assert utils.env is not own
    assert utils.env is own


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"metric": "someone/measure"}, r"has metric 'someone/measure', which is none of the harness's own: .*acc"),
        ({"metric": "acc", "aggregation": "sum_of"}, r"has aggregation 'sum_of', which is none .*mean"),
        ({"metric": "acc", "hf_evaluate": True}, "has hf_evaluate, which runs code of the hub"),
    ],
)
def test_a_measure_that_would_be_looked_for_on_the_hub_is_refused(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_tasks([task_of(tmp_path, metric_list=[row])])


def test_documents_that_cannot_be_read_name_the_tasks_file(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    (tmp_path / "documents.jsonl").write_text("{")
    with pytest.raises(ConfigError, match=r"benchmark orders \(.*orders\.yaml\) cannot be loaded: .*Correct the file"):
        load_tasks([task])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unsafe_code": True}, "runs code that the model writes"),
        ({"doc_to_image": "question"}, "asks about pictures or sounds"),
        ({"output_type": "loglikelihood_rolling", "metric_list": None}, "of its metrics .*word_perplexity"),
        ({"metric_list": [{"metric": "f1"}, {"metric": "mcc"}]}, r"of its metrics \(f1, mcc\) none is a number"),
        ({"metric_list": [{"metric": "acc", "higher_is_better": False}]}, r"of its metrics \(acc\) none is a number"),
    ],
)
def test_what_gives_no_numbers_to_compare_is_refused_before_a_model_does_it(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    given = {name: value for name, value in changes.items() if value is not None}
    task = task_of(tmp_path, **given)
    if "metric_list" in changes and changes["metric_list"] is None and isinstance(task.settings, dict):
        del task.settings["metric_list"]
    with pytest.raises(ConfigError, match=f"orders.yaml.*{message}"):
        load_tasks([task])


class Part:
    """A task of the harness with one metric."""

    OUTPUT_TYPE = "multiple_choice"

    def __init__(self, metric: str) -> None:
        self.metric = metric

    def higher_is_better(self) -> dict[str, bool]:
        return {self.metric: True}


def test_a_group_whose_parts_have_no_metric_in_common_is_refused() -> None:
    require_comparable(Task("both", "both"), {"a": Part("acc"), "b": Part("acc")})
    with pytest.raises(ConfigError, match=r"both has parts that are measured differently: name parts .* such as a"):
        require_comparable(Task("both", "both"), {"a": Part("acc"), "b": Part("acc_norm")})


def test_a_file_with_the_name_of_a_part_of_a_group_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Manager:
        def __init__(self, *, named: bool) -> None:
            """As the harness's list of tasks is made."""

        def load(self, settings: list[Any]) -> dict[str, Any]:
            return {"tasks": {"orders": Part("acc")}}

    monkeypatch.setattr(loading, "manager", Manager)
    with pytest.raises(ConfigError, match=r"has orders twice, in shop and in orders \(.*orders.yaml\): rename"):
        load_tasks([Task("shop", "shop"), task_of(tmp_path)])


def test_an_error_of_any_library_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Manager:
        def __init__(self, *, named: bool) -> None:
            """As the harness's list of tasks is made."""

        def load(self, settings: list[Any]) -> dict[str, Any]:
            raise RuntimeError("Dataset scripts are no longer supported, but found piqa.py")

    monkeypatch.setattr(loading, "manager", Manager)
    with pytest.raises(ConfigError, match=r"benchmark piqa cannot be loaded: Dataset scripts are no longer supported"):
        load_tasks([Task("piqa", "piqa")])
