"""A training killed anywhere and started again ends with the same weights, byte for byte."""

import json
import subprocess
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import psutil
import pytest

from preflow.artifacts import SCRATCH, build
from preflow.observer import Silent
from preflow.specs import SftSpec
from preflow.stages.sft import run_sft
from preflow.training.checkpoints import resume_point
from tests.faults.kills.stages import Stage, launched
from tests.fixtures.prepared_run import Run


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "kills"), [("sft", (1, 4)), ("dpo", (3, 5))])
def test_killed_and_started_again(
    processes: ForkServerContext, prepared: Run, tmp_path: Path, stage: str, kills: tuple[int, ...]
) -> None:
    recipe, base, data = prepared.recipe, prepared.base, prepared.data
    spec = SftSpec(recipe=recipe, base=base, data=data) if stage == "sft" else prepared.dpo()
    training = Stage(processes, stage, spec)
    assert len(training.run(tmp_path / "whole")) >= 5
    for step in kills:
        training.run(tmp_path / "killed", kill_after=step)
        assert not (tmp_path / "killed").exists()
    assert 1 not in training.run(tmp_path / "killed"), "it began again instead of going on"
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("whole", "killed")]
    differing = [n for n, entry in manifests[0]["files"].items() if manifests[1]["files"].get(n) != entry]
    assert differing == []
    assert any(name.startswith("model/adapter_model") for name in manifests[0]["files"])


@pytest.mark.slow
def test_no_rank_outlives_a_killed_run(prepared: Run, tmp_path: Path) -> None:
    """They would hold the GPUs until the next time that they write to a pipe whose reader has ended."""
    command = launched(prepared, prepared.recipe, tmp_path, "tests.faults.silent_ranks")
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "working\n"
    launcher, *others = psutil.Process(run.pid).children(recursive=True)
    assert len(others) >= 2
    run.kill()
    _, alive = psutil.wait_procs([launcher, *others], timeout=60)
    left = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        process.kill()
    assert not left


@pytest.mark.slow
def test_two_runs_end_with_equal_bytes(prepared: Run, tmp_path: Path) -> None:
    spec = SftSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data)
    again = build(tmp_path / "again", lambda out: run_sft(spec, out, Silent()))
    assert again.digest == prepared.sft.digest


@pytest.mark.slow
def test_another_seed_ends_with_other_bytes(prepared: Run, tmp_path: Path) -> None:
    recipe = prepared.recipe.model_copy(update={"seed": 7})
    spec = SftSpec(recipe=recipe, base=prepared.base, data=prepared.data)
    other = build(tmp_path / "other", lambda out: run_sft(spec, out, Silent()))
    assert other.digest != prepared.sft.digest


@pytest.mark.slow
def test_a_half_written_checkpoint_is_not_used(prepared: Run, tmp_path: Path) -> None:
    """A kill during saving leaves a checkpoint without its mark, or one whose files changed after it."""
    spec = SftSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data)
    run_sft(spec, tmp_path, Silent())
    scratch = tmp_path / SCRATCH
    newest = resume_point(scratch)
    assert newest is not None
    weights = Path(newest) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    older = resume_point(scratch)
    assert older is not None
    assert older != newest
    (Path(older) / "preflow-complete.json").unlink()
    assert resume_point(scratch) is None
    assert not list(scratch.glob("checkpoint-*"))


@pytest.mark.slow
def test_time_is_not_part_of_an_artifact(prepared: Run) -> None:
    """Wall times would give the same run another digest each time, and every later stage a miss."""
    names = [p.read_text(encoding="utf-8") for p in Path(prepared.sft.path).glob("*.json")]
    assert not any(word in text for text in names for word in ("runtime", "per_second", str(time.gmtime().tm_year)))
