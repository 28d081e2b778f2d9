"""What each event of an outbox does at MLflow. Each can be done again: what arrived before is not recorded twice."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preflow.artifacts import MANIFEST, WITHHELD, Artifact
from preflow.errors import PreflowError
from tasks.tracking.client import client, set_tags
from tasks.tracking.outbox import Event
from tasks.tracking.registry import versions
from tasks.tracking.registry.package import Candidate

#: Larger files are not uploaded to MLflow, adapters excepted; ``large_files.json`` lists their paths.
LARGEST_UPLOAD = 200 * 2**20
#: MLflow's limit of metrics in one call is 1000.
_BATCH = 500
#: A training stage's log of every step.
_LOG = "training.json"
_SYSTEM = "system/"


@dataclass
class Child:
    """A stage's run in MLflow, and what it holds."""

    run_id: str
    recorded: set[tuple[str, int]] = field(default_factory=set)
    """Metrics by name and step."""
    sampled: set[int] = field(default_factory=set)
    """Times of system metrics, which have no step of their own: milliseconds."""
    samples: int = 0
    """The next step of system metrics."""


class Recorder:
    """Records the events of one pipeline run."""

    def __init__(self, experiment_id: str, run_id: str) -> None:
        """Record below a pipeline run of an experiment."""
        self._experiment = experiment_id
        self._run_id = run_id
        self._children: dict[str, Child] = {}
        self._client = client()

    def forget(self) -> None:
        """Read again what MLflow has: after a failed call it is unknown whether it arrived."""
        self._children.clear()

    def record(self, event: Event) -> None:
        """Do what an event says."""
        getattr(self, f"_{event['do']}")(
            **{name: value for name, value in event.items() if name not in ("do", "number")}
        )

    def heartbeat(self, tags: Mapping[str, str]) -> None:
        """Say that the run's process is alive."""
        set_tags(self._client, self._run_id, tags)

    def child(self, stage: str) -> Child:
        """The run of a stage, which has begun."""
        if stage not in self._children:
            self._children[stage] = self._found(stage) or self._created(stage, {}, now())
        return self._children[stage]

    def _found(self, stage: str) -> Child | None:
        mine = f"tags.`mlflow.parentRunId` = '{self._run_id}' and tags.stage = '{stage}'"
        found = self._client.search_runs([self._experiment], mine)
        if not found:
            return None
        child = Child(found[0].info.run_id)
        for name in found[0].data.metrics:
            history = self._client.get_metric_history(child.run_id, name)
            if name.startswith(_SYSTEM):
                child.sampled |= {point.timestamp for point in history}
                child.samples = max(child.samples, *(point.step + 1 for point in history))
            else:
                child.recorded |= {(point.key, point.step) for point in history}
        return child

    def _created(self, stage: str, tags: Mapping[str, str], at: int) -> Child:
        tags = {"mlflow.parentRunId": self._run_id, "stage": stage, **tags}
        return Child(self._client.create_run(self._experiment, at, tags, stage).info.run_id)

    def _stage(self, stage: str, tags: dict[str, str], at: int) -> None:
        """A stage has begun, perhaps again."""
        found = self._found(stage)
        self._children[stage] = found or self._created(stage, tags, at)
        if found is not None:
            self._client.update_run(found.run_id, status="RUNNING")
            set_tags(self._client, found.run_id, tags)

    def _metrics(self, stage: str, values: list[tuple[str, float, int]], at: int) -> None:
        """Metrics of steps; those that an earlier, killed attempt recorded are kept."""
        from mlflow.entities import Metric

        child = self.child(stage)
        new = {(name, step): value for name, value, step in values if (name, step) not in child.recorded}
        self._send(child.run_id, [Metric(name, value, at, step) for (name, step), value in new.items()])
        child.recorded |= new.keys()

    def _system(self, stage: str, values: dict[str, float], at: int) -> None:
        """One sample of the machine's load."""
        from mlflow.entities import Metric

        child = self.child(stage)
        if at in child.sampled:
            return
        self._send(child.run_id, [Metric(_SYSTEM + name, v, at, child.samples) for name, v in values.items()])
        child.sampled.add(at)
        child.samples += 1

    def _send(self, run_id: str, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])

    def _complete(self, stage: str, made: dict[str, Any], identity: str, computed: bool, at: int) -> None:
        """A stage has its artifact: final metrics on its run and on the parent, and its files or their paths."""
        artifact, child = Artifact.model_validate(made), self.child(stage)
        if computed and artifact.file(_LOG).is_file():  # steps that a killed attempt had not written
            name = stage.rpartition("/")[2]
            log = [(f"{name}/{k}", v, e["step"]) for e in artifact.load(_LOG) for k, v in e.items() if k != "step"]
            self._metrics(stage, log, at)
        tags = {"artifact_path": artifact.path, "artifact_digest": artifact.digest}
        computer: str | None = child.run_id
        if computed:
            tags["identity"] = identity
            _upload(self._client, child.run_id, artifact)
        else:
            computer = _computed_by(self._client, identity)
            if computer != child.run_id:  # an earlier attempt of this run
                tags["cached_from"] = computer or artifact.path
        set_tags(self._client, child.run_id, tags)
        values, curves = artifact.load("metrics.json"), {name for name, _ in child.recorded}
        last_step = max((step for _, step in child.recorded), default=0)
        alone = {name: value for name, value in values.items() if name not in curves}  # a mean is no step of a curve
        memory = self._memory_of(stage, computer)
        alone |= {} if computer == child.run_id else memory
        self._metrics(stage, [(name, value, last_step) for name, value in alone.items()], at)
        self._headline(values | memory, at)

    def _memory_of(self, stage: str, run_id: str | None) -> dict[str, float]:
        """Estimated and measured memory of the stage, from the run that computed it; no file has them."""
        found = {} if run_id is None else self._client.get_run(run_id).data.metrics
        return {name: value for name, value in found.items() if name.startswith(f"{stage.rpartition('/')[2]}/memory_")}

    def _headline(self, values: Mapping[str, float], at: int) -> None:
        from mlflow.entities import Metric

        there = self._client.get_run(self._run_id).data.metrics
        new = [Metric(name, value, at, 0) for name, value in values.items() if there.get(name) != value]
        self._send(self._run_id, new)

    def _round(self, values: dict[str, float], step: int, at: int) -> None:
        """Measures of a round on the parent; a round that was recorded before is not recorded twice."""
        from mlflow.entities import Metric

        new = [Metric(name, value, at, step) for name, value in values.items() if step not in self._steps(name)]
        self._send(self._run_id, new)

    def _steps(self, name: str) -> set[int]:
        return {point.step for point in self._client.get_metric_history(self._run_id, name)}

    def _files(self, stage: str, folder: str, at: int) -> None:
        """The files of a stage that failed, such as the report that gives the reason."""
        run_id = self.child(stage).run_id
        listed = Path(folder) / WITHHELD
        withheld = json.loads(listed.read_text(encoding="utf-8"))["files"] if listed.is_file() else []
        for path in sorted(Path(folder).iterdir()):
            if path.name not in withheld:
                self._client.log_artifact(run_id, str(path))

    def _tags(self, tags: dict[str, str], at: int) -> None:
        set_tags(self._client, self._run_id, tags)

    def _register(self, candidate: dict[str, Any], at: int) -> None:
        """The run's model becomes a version in the registry, and the challenger."""
        versions.register(self._run_id, Candidate.model_validate(candidate))

    def _text(self, name: str, text: str, at: int, stage: str | None = None) -> None:
        self._client.log_text(self._run_id if stage is None else self.child(stage).run_id, text, name)

    def _end(self, stage: str | None, status: str, at: int) -> None:
        """A stage, or the whole run, has ended."""
        self._client.set_terminated(self._run_id if stage is None else self.child(stage).run_id, status, at)


def now() -> int:
    """This moment, as MLflow counts time: milliseconds."""
    return int(time.time() * 1000)


def _upload(store: Any, run_id: str, artifact: Artifact) -> None:
    files = artifact.load(MANIFEST)["files"]
    withheld = artifact.load(WITHHELD)["files"] if WITHHELD in files else []
    large = {
        name: entry
        for name, entry in files.items()
        if name in withheld or (entry["bytes"] > LARGEST_UPLOAD and not _is_adapter(name))
    }
    if not large:
        store.log_artifacts(run_id, artifact.path)
        return
    for name in [MANIFEST, *(files.keys() - large.keys())]:
        folder = Path(name).parent.as_posix()
        store.log_artifact(run_id, str(artifact.file(name)), None if folder == "." else folder)
    places = {n: {**entry, "place": f"{artifact.path}/{n}"} for n, entry in large.items()}
    store.log_dict(run_id, places, "large_files.json")


def _is_adapter(name: str) -> bool:
    return Path(name).name.startswith("adapter_model.")


def _computed_by(store: Any, identity: str) -> str | None:
    """The run, under any recipe, that computed an artifact; none where this tracking store has no such run."""
    experiments = [e.experiment_id for e in store.search_experiments()]
    found = store.search_runs(experiments, f"tags.identity = '{identity}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def refused(error: BaseException) -> bool:
    """Whether an event can never be delivered: MLflow does not take it, or its files are gone."""
    if isinstance(error, PreflowError):
        return True
    lasting = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST")
    return getattr(error, "error_code", None) in lasting
