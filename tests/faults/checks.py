"""What must hold at the end of every cell of the kill matrix."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.injections import Fault
from tests.faults.moments import Recording
from tests.faults.prefect_records import Prefect
from tests.faults.services import HEARTBEAT, Site, wait_until

#: Heartbeats after which no dead run may be called running, and seconds after which no slot may be held.
_HEARTBEATS, _SLOT_SECONDS, _MLFLOW_SECONDS = 3, 65.0, 60.0
_TRAINED = ("sft", "dpo")
#: Seconds that a busy machine takes on top.
_SLACK = 60.0


@dataclass(frozen=True)
class Ended:
    """A run that has ended after its fault.

    Attributes:
        site: Where it ran.
        prefect: The server.
        flow_run: What Prefect says of it.
        recording: All that it recorded, by attempt.
        whole: The store of an uninterrupted run; none where there is none to compare to.
        stage: In which stage it was given the fault.
        fault: Which one.
        kept: The step of the newest checkpoint at that moment.
    """

    site: Site
    prefect: Prefect
    flow_run: dict[str, Any]
    recording: Recording
    whole: Path | None
    stage: str
    fault: Fault
    kept: int


def check(ended: Ended) -> Iterator[str]:
    """What does not hold, in words."""
    state = ended.flow_run["state"]
    if state["type"] != "COMPLETED":
        yield f"ended as {state['name']}: {state['message']}"
    yield from _bytes(ended)
    yield from _repeated(ended)
    yield from _left(ended)
    yield from _mlflow(ended)


def _bytes(ended: Ended) -> Iterator[str]:
    """Every artifact has the bytes that it has without a fault: its manifest lists the digest of each file."""
    if ended.whole is None:
        return
    whole = {p.relative_to(ended.whole): p.read_bytes() for p in ended.whole.glob("*/*/manifest.json")}
    store = ended.site.home / "store"
    own = {p.relative_to(store): p.read_bytes() for p in store.glob("*/*/manifest.json")}
    for path in sorted(whole.keys() | own.keys()):
        if whole.get(path) != own.get(path):
            yield f"{path.parts[0]} is " + ("missing" if path not in own else "not the uninterrupted run's")


def _repeated(ended: Ended) -> Iterator[str]:
    """A training goes on after its newest checkpoint; where its process lived on, or saved, no step is done again."""
    if ended.stage not in _TRAINED:
        return
    steps = ended.recording.steps(ended.stage)
    again = [second for first, second in itertools.pairwise(steps) if second <= first]
    gone_on = [second for first, second in itertools.pairwise(steps) if second != first + 1]
    if again and (ended.fault.in_order or not ended.fault.restarts):
        yield f"steps from {again} on were computed again"
    elif any(step <= ended.kept for step in gone_on):
        yield f"went on from step {gone_on}, with a checkpoint of step {ended.kept}"


def _left(ended: Ended) -> Iterator[str]:
    """Neither Prefect nor the machine has anything left of it."""
    try:
        wait_until(lambda: not ended.prefect.unfinished(), _HEARTBEATS * HEARTBEAT + _SLACK, "")
    except AssertionError:
        yield f"running in Prefect: {', '.join(ended.prefect.unfinished())}"
    try:
        wait_until(lambda: not ended.site.processes(), _SLACK, "")
    except AssertionError:
        yield f"orphans: {[' '.join(p.cmdline())[:100] for p in ended.site.processes()]}"
    try:
        wait_until(lambda: not ended.prefect.slots(), _SLOT_SECONDS, "")
    except AssertionError:
        yield f"{ended.prefect.slots()} slots are held"


def _mlflow(ended: Ended) -> Iterator[str]:
    """MLflow has one finished run, with a finished child for each stage and each step once."""
    from mlflow import MlflowClient

    client = MlflowClient(ended.site.environment["MLFLOW_TRACKING_URI"])

    def runs() -> list[Any]:
        experiments = [e.experiment_id for e in client.search_experiments()]
        return list(client.search_runs(experiments, max_results=1000))

    try:
        wait_until(lambda: not [r for r in runs() if r.info.status == "RUNNING"], _MLFLOW_SECONDS, "")
    except AssertionError:
        yield f"running in MLflow: {[r.info.run_name for r in runs() if r.info.status == 'RUNNING']}"
    mine = [r for r in runs() if r.data.tags.get("prefect_flow_run_id") == ended.flow_run["id"]]
    if len(mine) != 1 or mine[0].info.status != "FINISHED":
        yield f"MLflow has {[(r.info.run_name, r.info.status) for r in mine]} of this run"
        return
    parent = mine[0].info.run_id
    children = {r.data.tags["stage"]: r for r in runs() if r.data.tags.get("mlflow.parentRunId") == parent}
    for stage, child in sorted(children.items()):
        if child.info.status != "FINISHED":
            yield f"{stage} is {child.info.status} in MLflow"
    if ended.stage in _TRAINED:
        history = client.get_metric_history(children[ended.stage].info.run_id, f"{ended.stage}/loss")
        steps = sorted(point.step for point in history)
        (log,) = (ended.site.home / "store" / ended.stage).glob("*/training.json")
        wanted = sorted(e["step"] for e in json.loads(log.read_text(encoding="utf-8")) if "loss" in e)
        if steps != wanted:
            yield f"MLflow has steps {steps}, expected {wanted}"
    computed = ended.stage != "evaluate"  # else DPO came from the store, and its place is named instead
    if computed and not any(f.path == "model" for f in client.list_artifacts(children["dpo"].info.run_id)):
        yield "MLflow has no files of the model"
