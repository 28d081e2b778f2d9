"""Several ranks fill a store: disjoint rows, each computed once, all found by the stage."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from preflow.artifacts import build
from preflow.config import Launch
from preflow.data.validated import rows_file, write_rows
from preflow.environment import logprobs_url
from preflow.logprobs.fill import SHARD_GROUPS
from preflow.logprobs.scored_pairs import read_pairs
from preflow.specs import ReferenceSpec
from preflow.stages.reference import run_reference
from tasks.runtime.processes import filled
from tests.fixtures.prepared_run import Run
from tests.integration.training.test_launch import CPU
from tests.unit.support import Recorder, rows

PAIRS = 3 * SHARD_GROUPS + 4


def check_fill_stats(values: Mapping[str, float]) -> None:
    """Each row was computed once, by one of two ranks: by whichever came first, on a busy machine all by one."""
    by_rank = [values[f"rank_{number}_rows_computed"] for number in range(2)]
    assert sum(by_rank) == values["rows_asked"] == values["rows_computed"] == PAIRS
    assert values["responses_computed"] == 2 * PAIRS


def write_pairs(out: Path) -> None:
    write_rows(out / rows_file("preferences", "train"), rows(range(3 * SHARD_GROUPS)))
    write_rows(out / rows_file("preferences", "eval"), rows(range(900, 904)))


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("folder", marks=pytest.mark.nightly),  # as the launched stage below each time
        pytest.param("url", marks=pytest.mark.slow),
    ],
)
def test_ranks_compute_every_row_once(
    prepared: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """``accelerate launch`` starts CPU processes through MPI alone, so the launcher under it is used here.

    Behind a URL nothing is leased: there the shares alone keep the ranks apart, and they wait for each other.
    """
    if place == "url":  # a file system of its own, not known to be local
        monkeypatch.setenv("PREFLOW_LOGPROBS", f"dir::file://{tmp_path}/store")

    data = build(tmp_path / "data", write_pairs)
    spec = ReferenceSpec(recipe=prepared.recipe, base=prepared.base, data=data, sft=prepared.sft)
    (tmp_path / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", "-m", "preflow.stages.worker", "reference"]
    command += [str(tmp_path / "spec.json"), str(tmp_path / "unused")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "store" if place == "url" else Path(logprobs_url())
    usage = [json.loads(path.read_text()) for path in folder.rglob("usage-*.json")]
    assert len(usage) == 1, "the rows were counted once for each rank"
    check_fill_stats(usage[0])
    if place == "url":  # in a folder, a rank that comes late may find that the other took its share too
        assert min(usage[0][f"rank_{number}_rows_computed"] for number in range(2)) > 0
    recorder = Recorder()
    build(tmp_path / "reference", lambda out: run_reference(spec, out, recorder))
    assert recorder.values["scoring/rows_computed"] == 0


@pytest.mark.slow
def test_the_stage_launches_its_ranks_and_writes_what_one_process_writes(
    prepared: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the recipe's ``launch:`` says; settings that shard weights over ranks must not reach them."""
    data = build(tmp_path / "data", write_pairs)
    launch = Launch(num_processes=2, config=CPU)
    recipe = prepared.recipe.model_copy(update={"launch": launch})
    spec = ReferenceSpec(recipe=recipe, base=prepared.base, data=data, sft=prepared.sft)
    recorder = Recorder()
    with monkeypatch.context() as patch:
        for name in ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING", "ACCELERATE_USE_DEEPSPEED"):
            patch.setenv(name, "true")
        launched = build(tmp_path / "launched", lambda out: filled(run_reference)(spec, out, recorder))
    scoring = {name.removeprefix("scoring/"): value for name, value in recorder.values.items()}
    check_fill_stats(scoring)
    assert recorder.values["assembling/rows_computed"] == 0
    assert recorder.values["assembling/rows_hit"] == PAIRS
    (usage,) = (json.loads(path.read_text()) for path in Path(logprobs_url()).rglob("usage-*.json"))
    assert usage["rows_asked"] == PAIRS
    monkeypatch.setenv("PREFLOW_LOGPROBS", str(tmp_path / "another store"))
    alone = build(tmp_path / "alone", lambda out: filled(run_reference)(with_one(spec), out, recorder))
    assert recorder.values["scoring/rows_computed"] == PAIRS
    for side in ("train", "eval"):
        assert list(read_pairs(launched.file(f"{side}.parquet"))) == list(read_pairs(alone.file(f"{side}.parquet")))


def with_one(spec: ReferenceSpec) -> ReferenceSpec:
    return spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"launch": Launch()})})
