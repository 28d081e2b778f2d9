"""The stage of benchmarks on the tiny model, with a stand-in for the harness, and with the harness where it is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.running.preparation import PACKAGED_RECIPES, benchmark_spec
from preflow.benchmarks.harness import DocumentResult, Harness
from preflow.benchmarks.tasks import Task
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.observer import Silent
from preflow.specs import BenchmarkSpec
from preflow.stages import benchmarks
from preflow.stages.benchmarks import run_benchmarks
from tests.fixtures.prepared_run import Run

pytestmark = pytest.mark.slow  # loads models
SHIPPED = PACKAGED_RECIPES / "demo" / "tasks" / "courtesy.yaml"


class StandIn:
    """The base gets 3 of 10 documents right, the SFT model 9 of them, 6 of which the base got wrong."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def run(
        self, model: Any, tokenizer: Any, tasks: Sequence[Task], settings: BenchmarkSettings
    ) -> Mapping[str, list[DocumentResult]]:
        self.asked += [task.name for task in tasks]
        right = 3 if len(self.asked) == 1 else 9
        return {task.name: [DocumentResult(str(n), "acc", float(n < right)) for n in range(10)] for task in tasks}


@pytest.fixture
def spec(prepared: Run) -> BenchmarkSpec:
    asked = BenchmarkSettings(tasks=(str(SHIPPED),))
    evaluation = prepared.recipe.evaluation.model_copy(update={"benchmarks": asked})
    recipe = prepared.recipe.model_copy(update={"evaluation": evaluation})
    return benchmark_spec(recipe, prepared.base, prepared.data, sft=prepared.sft)


def test_every_model_does_every_task_and_the_last_is_compared_with_the_one_before(
    spec: BenchmarkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six documents better, none worse: p = 2 / 2^6."""
    stand_in = StandIn()
    monkeypatch.setattr(benchmarks, "runner", lambda: stand_in)
    run_benchmarks(spec, tmp_path, Silent())
    assert stand_in.asked == ["courtesy", "courtesy"]
    found = json.loads((tmp_path / "benchmarks.json").read_text())["courtesy"]
    assert {name: share["value"] for name, share in found["models"].items()} == {"base": 0.3, "sft": 0.9}
    assert found["delta"]["p"] == pytest.approx(0.03125)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "bench/courtesy/acc_base": 0.3,
        "bench/courtesy/acc_sft": 0.9,
        "bench/courtesy/delta": pytest.approx(0.6),
    }
    assert len(json.loads((tmp_path / "documents.json").read_text())["sft"]["courtesy"]) == 10


def test_another_document_or_batch_size_is_another_identity_and_another_folder_is_not(
    spec: BenchmarkSpec, tmp_path: Path
) -> None:
    def asked(**changes: Any) -> BenchmarkSpec:
        settings = spec.recipe.evaluation.benchmarks
        assert settings is not None
        update = {"benchmarks": settings.model_copy(update=changes)}
        recipe = spec.recipe.model_copy(update={"evaluation": spec.recipe.evaluation.model_copy(update=update)})
        return benchmark_spec(recipe, spec.base, spec.data, sft=spec.sft)

    for file in SHIPPED.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    moved = asked(tasks=(str(tmp_path / SHIPPED.name),))
    assert (moved.inputs(), moved.options()) == (spec.inputs(), spec.options())
    assert asked(batch_size=3).options() != spec.options()
    (tmp_path / "courtesy.jsonl").write_text('{"question": "q", "choices": ["a", "b"], "label": 0}\n')
    assert asked(tasks=(str(tmp_path / SHIPPED.name),)).inputs() != spec.inputs()


def test_the_harness_does_the_shipped_task_with_models_in_memory(
    spec: BenchmarkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval", reason="the extra preflow[bench] is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert isinstance(benchmarks.runner(), Harness)
    for folder in (tmp_path / "first", tmp_path / "again"):
        folder.mkdir()
        run_benchmarks(spec, folder, Silent())
    assert "it/s]" not in capfd.readouterr().err, "no bar of the harness's own"
    first, again = ((tmp_path / name / "documents.json").read_bytes() for name in ("first", "again"))
    assert first == again
    found = json.loads(first)
    assert {name: len(tasks["courtesy"]) for name, tasks in found.items()} == {"base": 24, "sft": 24}
    assert [row[0] for row in found["base"]["courtesy"]] == [row[0] for row in found["sft"]["courtesy"]]
    assert {row[1] for tasks in found.values() for row in tasks["courtesy"]} <= {0.0, 1.0}
