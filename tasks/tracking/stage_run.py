"""The child run in MLflow: one for each stage of a pipeline run, with its metrics and files."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preflow.artifacts import MANIFEST, Artifact
from tasks.tracking.client import client, ending, set_tags
from tasks.tracking.lineage import process_tags
from tasks.tracking.pipeline_run import PipelineRun

#: Larger files are not uploaded to MLflow, adapters excepted; ``large_files.json`` lists their paths.
LARGEST_UPLOAD = 200 * 2**20
#: Seconds for which metrics are collected before they are sent together.
_FLUSH_SECONDS = 0.5
#: MLflow's limit of metrics in one call is 1000.
_BATCH = 500
#: A training stage's log of every step.
_LOG = "training.json"


class StageRun:
    """The child run of one stage: collects metrics and sends them in batches."""

    def __init__(self, run: PipelineRun, stage: str, run_id: str, recorded: set[tuple[str, int]]) -> None:
        """Log to ``run_id``, of which an earlier attempt recorded the given metrics and steps."""
        self.parent = run
        self.stage = stage
        self.run_id = run_id
        self._recorded = recorded
        self._pending: list[Any] = []
        self._sent = 0.0
        self._client = client()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of one step; those that an earlier, killed attempt recorded are kept."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {name: value for name, value in values.items() if (name, step) not in self._recorded}
        self._recorded.update((name, step) for name in new)
        self._pending += [Metric(name, value, now, step) for name, value in new.items()]
        if time.monotonic() - self._sent > _FLUSH_SECONDS or len(self._pending) > _BATCH:
            self.flush()

    def flush(self) -> None:
        """Send all collected metrics."""
        while self._pending:
            batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
            self._client.log_batch(self.run_id, metrics=batch)
        self._sent = time.monotonic()

    def complete(self, artifact: Artifact, identity: str, *, computed: bool) -> None:
        """Record a finished stage: final metrics here and on the parent, and its files or their paths."""
        if computed:
            self._fill_gaps(artifact)
        self.flush()
        tags = {"artifact_path": artifact.path, "artifact_digest": artifact.digest}
        computer: str | None = self.run_id
        if computed:
            tags["identity"] = identity
            _upload(self._client, self.run_id, artifact)
        else:
            computer = _computed_by(self._client, identity)
            if computer != self.run_id:  # an earlier attempt of this run
                tags["cached_from"] = computer or artifact.path
        set_tags(self._client, self.run_id, tags)
        values, curves = artifact.load("metrics.json"), {name for name, _ in self._recorded}
        last_step = max((step for _, step in self._recorded), default=0)
        alone = {name: value for name, value in values.items() if name not in curves}  # a mean is no step of a curve
        memory = self._memory_of(computer)
        _headline(self._client, self.run_id, alone | ({} if computer == self.run_id else memory), last_step)
        _headline(self._client, self.parent.run_id, values | memory, 0)

    def _memory_of(self, run_id: str | None) -> dict[str, float]:
        """Estimated and measured memory of the stage, from the run that computed it; no file has them."""
        found = {} if run_id is None else self._client.get_run(run_id).data.metrics
        return {name: value for name, value in found.items() if name.startswith(f"{self.stage}/memory_")}

    def keep(self, folder: Path) -> None:
        """Upload the files of a stage that failed, such as the report that gives the reason."""
        self.flush()
        for path in folder.iterdir():
            if path.is_file():
                self._client.log_artifact(self.run_id, str(path))

    def _fill_gaps(self, artifact: Artifact) -> None:
        """Record the steps that an earlier, killed attempt had not sent: the stage's own log has all of them."""
        if artifact.file(_LOG).is_file():
            for entry in artifact.load(_LOG):
                values = {f"{self.stage}/{name}": v for name, v in entry.items() if name != "step"}
                self.metrics(values, entry["step"])


@contextmanager
def stage_run(run: PipelineRun, stage: str, *, computing: bool = True) -> Iterator[StageRun]:
    """The child run of a stage: the pipeline run's own unfinished one, else new.

    Args:
        run: The pipeline run.
        stage: Its tag.
        computing: Whether to record system metrics.
    """
    import mlflow

    store = client()
    child = _child(store, run, stage)
    with ending(store, child.run_id):
        if computing:
            # Only the fluent interface offers system metrics; the status is set by ``ending``.
            mlflow.start_run(run_id=child.run_id, nested=True, log_system_metrics=True)
        try:
            yield child
        finally:
            child.flush()
            if computing:
                mlflow.end_run()


def _child(store: Any, run: PipelineRun, stage: str) -> StageRun:
    tags = {"mlflow.parentRunId": run.run_id, "stage": stage, **process_tags()}
    mine = f"tags.`mlflow.parentRunId` = '{run.run_id}' and tags.stage = '{stage}'"
    found = store.search_runs([run.experiment_id], mine)
    if not found:
        created = store.create_run(run.experiment_id, tags=tags, run_name=stage)
        return StageRun(run, stage, created.info.run_id, set())
    run_id = found[0].info.run_id
    store.update_run(run_id, status="RUNNING")
    set_tags(store, run_id, tags)
    names = [name for name in found[0].data.metrics if not name.startswith("system/")]
    histories = [store.get_metric_history(run_id, name) for name in names]
    recorded = {(m.key, m.step) for history in histories for m in history}
    return StageRun(run, stage, run_id, recorded)


def _upload(store: Any, run_id: str, artifact: Artifact) -> None:
    files = artifact.load(MANIFEST)["files"]
    large = {name: entry for name, entry in files.items() if entry["bytes"] > LARGEST_UPLOAD and not _is_adapter(name)}
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


def _headline(store: Any, run_id: str, values: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    store.log_batch(run_id, metrics=[Metric(name, v, now, step) for name, v in values.items()])


def _computed_by(store: Any, identity: str) -> str | None:
    """The run, under any recipe, that computed an artifact; none where this tracking store has no such run."""
    experiments = [e.experiment_id for e in store.search_experiments()]
    found = store.search_runs(experiments, f"tags.identity = '{identity}'", max_results=1)
    return str(found[0].info.run_id) if found else None
