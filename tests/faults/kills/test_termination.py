"""A training that has to end loses no step: it saves, ends, and goes on after the last step that it did."""

import signal
import subprocess
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from preflow.artifacts import SCRATCH, verify
from preflow.config import Recipe
from preflow.specs import DpoSpec, SftSpec
from preflow.training.checkpoints import resume_point
from tests.faults.kills.stages import Stage, launched
from tests.fixtures.prepared_run import Run


def without_checkpoints(recipe: Recipe) -> Recipe:
    """The same recipe, whose trainings save nothing of their own before they end."""
    sections = {name: getattr(recipe, name).model_copy(update={"save_steps": 1000}) for name in ("sft", "dpo")}
    return recipe.model_copy(update=sections)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_it_goes_on_after_its_last_step(
    processes: ForkServerContext, prepared: Run, tmp_path: Path, stage: str
) -> None:
    recipe = without_checkpoints(prepared.recipe)
    spec: SftSpec | DpoSpec = SftSpec(recipe=recipe, base=prepared.base, data=prepared.data)
    training = Stage(processes, stage, spec if stage == "sft" else prepared.dpo(recipe=recipe))
    whole = set(training.run(tmp_path / "whole"))
    first = set(training.run(tmp_path / "told", kill_after=2, order=signal.SIGTERM))
    second = set(training.run(tmp_path / "told"))
    assert 2 <= max(first) < max(whole), "it ran to its end"
    assert min(second) == max(first) + 1, "a step was done twice"
    assert first | second == whole
    assert verify(tmp_path / "told").digest == verify(tmp_path / "whole").digest


@pytest.mark.slow
def test_ranks_end_together_at_one_step(prepared: Run, tmp_path: Path) -> None:
    """A rank that saved at a step of its own would leave the others waiting."""
    command = launched(prepared, without_checkpoints(prepared.recipe), tmp_path, "tests.faults.slow_ranks")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert "2\n" in run.stdout, "it ended before its second step"  # reads up to there
        run.terminate()
        run.wait(60)
    assert run.returncode == 143
    checkpoint = resume_point(tmp_path / "out" / SCRATCH)
    assert checkpoint is not None
    assert 2 <= int(checkpoint.rpartition("-")[2]) <= 4
