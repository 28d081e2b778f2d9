"""Several processes of one launch fill a store: disjoint rows, each computed once, all found by the stage."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from preflow.artifacts import build
from preflow.home import logprobs_url
from preflow.stages.filling import SHARD_GROUPS
from preflow.stages.reference import run_reference
from preflow.stages.specs import ReferenceSpec
from tests.unit.stages.conftest import Run, prepared  # noqa: F401 - a fixture
from tests.unit.stages.test_reference import Heard, rows


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "url"])
def test_ranks_compute_every_row_once(
    prepared: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """``accelerate launch`` starts CPU processes through MPI alone, so the launcher under it is used here.

    Behind a URL nothing is claimed: there the shares alone keep the ranks apart, and they wait for each other.
    """
    from preflow.data.store import rows_file, write_rows

    if place == "url":  # a file system of its own, not known to be local
        monkeypatch.setenv("PREFLOW_LOGPROBS", f"dir::file://{tmp_path}/store")

    def write(out: Path) -> None:
        write_rows(out / rows_file("preferences", "train"), rows(range(3 * SHARD_GROUPS)))
        write_rows(out / rows_file("preferences", "eval"), rows(range(900, 904)))

    data = build(tmp_path / "data", write)
    spec = ReferenceSpec(recipe=prepared.recipe, base=prepared.base, data=data, sft=prepared.sft)
    (tmp_path / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", "-m", "preflow.stages.reference", "compute"]
    command.append(str(tmp_path / "spec.json"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "store" if place == "url" else Path(logprobs_url())
    usage = [json.loads(path.read_text()) for path in folder.rglob("usage-*.json")]
    assert len(usage) == 2
    assert sum(entry["rows_computed"] for entry in usage) == 3 * SHARD_GROUPS + 4
    assert sum(entry["responses_computed"] for entry in usage) == 2 * (3 * SHARD_GROUPS + 4)
    assert all(entry["rows_computed"] > 0 for entry in usage)
    heard = Heard()
    build(tmp_path / "reference", lambda out: run_reference(spec, out, heard))
    assert heard.computed == 0
