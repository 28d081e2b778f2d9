"""Two processes that each hold half of the weights (FSDP 2) train as one process does, and write the same files."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import tasks.launch
from preflow.config import Launch, Recipe
from preflow.observer import Silent
from preflow.stages.dpo import run_dpo
from preflow.stages.sft import run_sft
from preflow.stages.specs import SftSpec
from tests.integration.test_launch import ROOT
from tests.unit.stages.conftest import Run, prepared  # noqa: F401 - a fixture
from tests.unit.stages.support import COMMON, recipe_for

FSDP = str(ROOT / "infra" / "accelerate" / "fsdp.yaml")


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped configuration, on CPUs."""
    own = tasks.launch.command

    def command(*args: Any) -> list[str]:
        return ["tests.integration.sharded_ranks" if a == "preflow.stages.launched" else a for a in own(*args)]

    monkeypatch.setattr(tasks.launch, "command", command)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def recipe_in(run: Run, processes: int, tuning: str, **changes: Any) -> Recipe:
    section = {**COMMON, "per_device_train_batch_size": 4 // processes, "learning_rate": 1e-3, "max_steps": 4}
    recipe = recipe_for(run.base, tuning=tuning, sft=section, dpo={**section, "eval_steps": 2, "eval_pairs": 4, **changes})
    return recipe.model_copy(update={"launch": Launch(num_processes=processes, config=FSDP if processes > 1 else None)})


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_sft(prepared: Run, tmp_path: Path, on_cpu: None, tuning: str) -> None:  # noqa: F811
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        spec = SftSpec(recipe=recipe_in(prepared, processes, tuning), base=prepared.base, data=prepared.data)
        tasks.launch.launched("sft", run_sft)(spec, out, Silent())
    same_models(tmp_path)


def same_models(folder: Path) -> None:
    one, two = (folder / str(n) / "model" for n in (1, 2))
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
    (file,) = one.glob("*.safetensors")
    expected, got = load_file(file), load_file(two / file.name)
    assert sorted(expected) == sorted(got)
    for name, value in expected.items():
        assert float((got[name] - value).norm()) <= 1e-3 * float(value.norm()) + 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_dpo(prepared: Run, tmp_path: Path, on_cpu: None, tuning: str) -> None:  # noqa: F811
    logs = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        run_dpo_in(prepared, out, recipe_in(prepared, processes, tuning))
        logs.append(json.loads((out / "training.json").read_text()))
    losses, looks = ([[e[name] for e in log if name in e] for log in logs] for name in ("loss", "eval_kl"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert looks[1] == pytest.approx(looks[0], rel=1e-3, abs=1e-6)
    same_models(tmp_path)


def run_dpo_in(run: Run, out: Path, recipe: Recipe) -> None:
    spec = run.dpo(recipe=recipe)
    tasks.launch.launched("dpo", run_dpo)(spec, out, Silent())
