"""Two processes that each hold half of the weights (FSDP 2, ZeRO 3) train as one does, and write the same files."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import tasks.runtime.launcher
import tasks.runtime.processes
from preflow.artifacts import SCRATCH, Artifact, build
from preflow.config import Launch, Recipe
from preflow.errors import TrainingError
from preflow.observer import Silent
from preflow.specs import DpoSpec, ReferenceSpec, SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from tests.fixtures.prepared_run import Run
from tests.integration.training.test_launch import ROOT
from tests.unit.support import COMMON, recipe_for

WITHOUT_DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"
)
SHARDINGS = ["fsdp", pytest.param("deepspeed-zero3", marks=WITHOUT_DEEPSPEED)]
#: What the Trainer leaves in a checkpoint where the weights were really sharded.
TRACES = {"fsdp": "pytorch_model_fsdp.bin", "deepspeed-zero3": "*zero_pp_rank_1*optim_states.pt"}


@pytest.fixture(autouse=True)
def on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped configurations, on CPUs."""
    own = tasks.runtime.launcher.command

    def command(*args: Any) -> list[str]:
        return ["tests.integration.training.sharded_ranks" if a == "preflow.stages.worker" else a for a in own(*args)]

    monkeypatch.setattr(tasks.runtime.launcher, "command", command)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def recipe_in(run: Run, sharding: str | None, tuning: str, **dpo: Any) -> Recipe:
    """Four rows a step, in one process or distributed over two ranks."""
    processes = 1 if sharding is None else 2
    section = {**COMMON, "per_device_train_batch_size": 4 // processes, "learning_rate": 1e-3, "max_steps": 4}
    recipe = recipe_for(run.base, tuning=tuning, sft=section, dpo={**section, "eval_steps": 2, "eval_pairs": 4, **dpo})
    config = None if sharding is None else str(ROOT / "infra" / "accelerate" / f"{sharding}.yaml")
    return recipe.model_copy(update={"launch": Launch(num_processes=processes, config=config)})


def train(spec: SftSpec | DpoSpec, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    if isinstance(spec, SftSpec):
        tasks.runtime.processes.in_processes("sft", run_sft)(spec, out, Silent())
    else:
        tasks.runtime.processes.in_processes("dpo", run_dpo)(spec, out, Silent())
    return out


def same(one: Path, two: Path) -> None:
    """Losses, looks, and the model's files with their weights."""
    logs = [json.loads((out / "training.json").read_text()) for out in (one, two)]
    losses, evaluations = ([[e[name] for e in log if name in e] for log in logs] for name in ("loss", "eval_kl"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert evaluations[1] == pytest.approx(evaluations[0], rel=1e-3, abs=1e-6)
    names = [sorted(p.name for p in (out / "model").iterdir()) for out in (one, two)]
    assert names[0] == names[1]
    (file,) = (name for name in names[0] if name.endswith(".safetensors"))
    expected, got = (load_file(out / "model" / file) for out in (one, two))
    assert sorted(expected) == sorted(got)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        assert float((got[name] - value).norm()) <= 1e-3 * float(value.norm()) + 1e-6, name
    reports = [json.loads((out / "report.json").read_text())["model"] for out in (one, two)]
    assert reports[0] == reports[1]


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_all_weights_from_demonstrations_to_the_best_step(prepared: Run, tmp_path: Path, sharding: str) -> None:
    """SFT, a reference made with its weights, and a DPO that goes too far and goes back to the best weights."""
    base, data = prepared.base, prepared.data
    outs = {}
    for where in (None, sharding):
        spec = SftSpec(recipe=recipe_in(prepared, where, "full"), base=base, data=data)
        outs[where] = train(spec, tmp_path / f"sft-{where}")
    same(outs[None], outs[sharding])
    assert list(outs[sharding].rglob(TRACES[sharding])), "nothing was sharded"

    def as_the_stage_leaves_it(out: Path) -> None:
        shutil.copytree(outs[sharding] / "model", out / "model")

    sft = build(tmp_path / "sft", as_the_stage_leaves_it)
    recipe = recipe_in(prepared, None, "full")
    asked = ReferenceSpec(recipe=recipe, base=base, data=data, sft=sft)
    reference: Artifact = build(tmp_path / "reference", lambda out: run_reference(asked, out, Silent()))
    for where in (None, sharding):
        recipe = recipe_in(prepared, where, "full", kl_limit=1.0, eval_steps=1)
        dpo = DpoSpec(recipe=recipe, base=base, data=data, sft=sft, reference=reference)
        outs[where] = train(dpo, tmp_path / f"dpo-{where}")
    same(outs[None], outs[sharding])
    metrics = [json.loads((outs[where] / "metrics.json").read_text()) for where in (None, sharding)]
    assert metrics[0]["dpo/kept_step"] == metrics[1]["dpo/kept_step"] > 0
    assert metrics[0]["dpo/stopped_at_step"] == metrics[1]["dpo/stopped_at_step"] > metrics[0]["dpo/kept_step"]
    kept = load_file(outs[sharding] / SCRATCH / f"best-{metrics[1]['dpo/kept_step']:.0f}.safetensors")
    saved = load_file(outs[sharding] / "model" / "model.safetensors")
    assert sorted(kept) == sorted(saved)
    assert all(kept[name].equal(value) for name, value in saved.items())


@pytest.mark.nightly  # all weights, sharded and compared, are trained each time
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_an_adapter_and_going_on_from_a_checkpoint(prepared: Run, tmp_path: Path, sharding: str) -> None:
    one, two = (
        train(prepared.dpo(recipe=recipe_in(prepared, where, "lora")), tmp_path / str(where))
        for where in (None, sharding)
    )
    same(one, two)
    assert list(two.rglob(TRACES[sharding])), "nothing was sharded"
    shutil.rmtree(two / SCRATCH / "checkpoint-4")
    shutil.move(two / "model", tmp_path / "before")
    recorder = Progress()
    tasks.runtime.processes.in_processes("dpo", run_dpo)(
        prepared.dpo(recipe=recipe_in(prepared, sharding, "lora")), two, recorder
    )
    assert recorder.steps == [3, 4]
    same(one, two)


class Progress(Silent):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def progress(self, done: int, total: int, what: str) -> None:
        if "optimizer steps" in what:
            self.steps.append(done)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_broken_row_of_one_process_stops_all_and_is_named_alone(
    prepared: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sharding: str,
) -> None:
    monkeypatch.setenv("BREAK_ROW", "7")
    spec = SftSpec(recipe=recipe_in(prepared, sharding, "full"), base=prepared.base, data=prepared.data)
    spec = spec.model_copy(update={"recipe": without_a_limit_of_steps(spec.recipe)})
    with pytest.raises(TrainingError) as caught:
        train(spec, tmp_path / "out")
    errors = {line for line in str(caught.value).splitlines() if "NonFiniteLossError" in line}
    assert len({line.partition("NonFiniteLossError")[2] for line in errors}) == 1, errors
    assert len(errors) == 2, "both ranks report it"
    (message,) = {line.partition("NonFiniteLossError")[2] for line in errors}
    assert "sft: the loss is nan at step" in message
    assert "on d.jsonl:7; the weights" in message


def without_a_limit_of_steps(recipe: Recipe) -> Recipe:
    assert recipe.sft is not None
    return recipe.model_copy(update={"sft": recipe.sft.model_copy(update={"max_steps": -1})})


@pytest.mark.slow
def test_gradients_of_a_head_in_parts_are_means_over_processes() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", "-m", "tests.integration.training.sharded_head"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
