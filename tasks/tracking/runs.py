"""Everything that goes to MLflow, and the only module that knows it.

One experiment per recipe name, one parent run per pipeline run, one child run per stage. Calls are few, because each
costs 18 ms on SQLite and 100 ms over HTTP.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from preflow.artifacts import MANIFEST, Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen
from preflow.environment import mlflow_uri, preflow_home, without_login
from preflow.errors import ConfigError
from preflow.models.resolve import ModelRef
from preflow.specs import ValidateSpec
from tasks.tracking.lineage import is_gone, lineage, parameters, process_tags

#: Larger files are not copied into MLflow, adapters excepted; a list says where they lie.
LARGEST_UPLOAD = 200 * 2**20
#: Seconds of metrics that may wait for a common call.
_PATIENCE = 0.5
_BATCH = 500
#: A training stage's log of every step.
_LOG = "training.json"


class PipelineRun(Frozen):
    """The MLflow run of one pipeline run, as a value that tasks can be given."""

    recipe: str
    """The recipe's name, which is the experiment's."""
    experiment_id: str
    run_id: str


def client() -> Any:
    """An MLflow client for the configured store; an SQLite database is made where it is missing."""
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = mlflow_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)  # system metrics know no client
    return mlflow.MlflowClient(tracking_uri=uri)


@contextmanager
def pipeline_run(recipe: Recipe, sources: ValidateSpec, flow_run_id: str | None, name: str) -> Iterator[PipelineRun]:
    """The parent run: reopened if this start goes on with an unfinished one, else new.

    Args:
        recipe: The resolved recipe.
        sources: The data that go in.
        flow_run_id: Prefect's id of this flow run; a retry of it reopens its own run.
        name: What a new run is called.

    Raises:
        ConfigError: The experiment was deleted in MLflow.
    """
    mlflow = client()
    tags = lineage(recipe, sources, flow_run_id)
    with FileLock(preflow_home() / "pipeline_run.lock"):  # two starts must not reopen the same run
        experiment = _experiment(mlflow, recipe.name)
        run_id = _unfinished(mlflow, experiment, tags)
        if run_id is None:
            run_id = mlflow.create_run(experiment, tags=tags, run_name=name).info.run_id
            _describe(mlflow, run_id, recipe, sources)
        else:
            mlflow.update_run(run_id, status="RUNNING")
            _set_tags(mlflow, run_id, tags)
        _bury(mlflow, run_id)
    run = PipelineRun(recipe=recipe.name, experiment_id=experiment, run_id=run_id)
    with _ending(mlflow, run_id):
        yield run


@contextmanager
def _ending(mlflow: Any, run_id: str) -> Iterator[None]:
    """Give a run its last status however the block ends: a signal leaves it killed, an error failed."""
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        mlflow.set_terminated(run_id, status)


def _experiment(mlflow: Any, name: str) -> str:
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        uri = mlflow_uri()
        local = uri.startswith("sqlite:///")
        place = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts") if local else None
        return str(mlflow.create_experiment(name, artifact_location=place and place.as_uri()))
    if found.lifecycle_stage != "active":
        raise ConfigError(
            f"the MLflow experiment '{name}' was deleted: restore it (mlflow experiments restore "
            f"--experiment-id {found.experiment_id}) or give the recipe another name (--set name=...)"
        )
    return str(found.experiment_id)


def _unfinished(mlflow: Any, experiment: str, tags: Mapping[str, str]) -> str | None:
    """The run that this start goes on with: a retry's own, or one whose process is gone."""
    same = f"tags.kind = 'pipeline' and tags.recipe_digest = '{tags['recipe_digest']}'"
    same += f" and tags.data_digest = '{tags['data_digest']}'"
    for run in mlflow.search_runs([experiment], same, order_by=["attributes.start_time DESC"]):
        flow_run = tags.get("prefect_flow_run_id")
        is_retry = flow_run is not None and run.data.tags.get("prefect_flow_run_id") == flow_run
        was_killed = run.info.status == "RUNNING" and is_gone(run.data.tags)
        if is_retry or was_killed or run.info.status == "KILLED":  # its process may still be about to end
            return str(run.info.run_id)
    return None


def _bury(mlflow: Any, reopened: str) -> None:
    """Mark runs of this host that no process will finish, and their stages, as killed."""
    experiments = [e.experiment_id for e in mlflow.search_experiments()]
    running = f"attributes.status = 'RUNNING' and tags.host = '{process_tags()['host']}'"
    for run in mlflow.search_runs(experiments, running):
        if run.info.run_id != reopened and is_gone(run.data.tags):
            mlflow.set_terminated(run.info.run_id, "KILLED")


def _describe(mlflow: Any, run_id: str, recipe: Recipe, sources: ValidateSpec) -> None:
    """What a new run says about itself: parameters, the resolved recipe, the data."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    values = parameters(recipe)
    mlflow.log_batch(run_id, params=[Param(name, value) for name, value in values.items()])
    mlflow.log_dict(run_id, recipe.model_dump(mode="json"), "recipe.yaml")
    names = ("demonstrations", "demonstrations_eval", "preferences", "preferences_eval")
    inputs = [
        DatasetInput(
            Dataset(
                name=Path(source.path).name,
                digest=source.digest[:36],  # MLflow keeps no more
                source_type="local" if Path(source.path).is_absolute() else "hf",
                source=json.dumps({"uri": source.path, "digest": source.digest}),
            ),
            tags=[InputTag("mlflow.data.context", name)],
        )
        for name in names
        for source in getattr(sources, name)
    ]
    mlflow.log_inputs(run_id, datasets=inputs)


def tag_base_model(run: PipelineRun, base: ModelRef) -> None:
    """Say which weights the pipeline run started from."""
    _set_tags(client(), run.run_id, {"base_model_digest": base.digest})


def _set_tags(mlflow: Any, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    mlflow.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


class StageRun:
    """The child run of one stage: collects metrics and sends them in batches."""

    def __init__(self, run: PipelineRun, stage: str, run_id: str, recorded: set[tuple[str, int]]) -> None:
        """Write to ``run_id``, for which an earlier start recorded some metrics at some steps."""
        self.parent = run
        self.stage = stage
        self.run_id = run_id
        self._recorded = recorded
        self._waiting: list[Any] = []
        self._sent = 0.0
        self._client = client()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of one step; what an earlier, killed start recorded is left alone."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {name: value for name, value in values.items() if (name, step) not in self._recorded}
        self._recorded.update((name, step) for name in new)
        self._waiting += [Metric(name, value, now, step) for name, value in new.items()]
        if time.monotonic() - self._sent > _PATIENCE or len(self._waiting) > _BATCH:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            self._client.log_batch(self.run_id, metrics=batch)
        self._sent = time.monotonic()

    def complete(self, artifact: Artifact, identity: str, *, computed: bool) -> None:
        """Record a finished stage: headline metrics here and on the parent, and all its files or their place."""
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
            if computer != self.run_id:  # an earlier start of this very run
                tags["cached_from"] = computer or artifact.path
        _set_tags(self._client, self.run_id, tags)
        values, curves = artifact.load("metrics.json"), {name for name, _ in self._recorded}
        last_step = max((step for _, step in self._recorded), default=0)
        alone = {name: value for name, value in values.items() if name not in curves}  # a mean is no step of a curve
        memory = self._memory_of(computer)
        _headline(self._client, self.run_id, alone | ({} if computer == self.run_id else memory), last_step)
        _headline(self._client, self.parent.run_id, values | memory, 0)

    def _memory_of(self, run_id: str | None) -> dict[str, float]:
        """What the stage was estimated to take and took where it was computed: no file of the stage can hold that."""
        found = {} if run_id is None else self._client.get_run(run_id).data.metrics
        return {name: value for name, value in found.items() if name.startswith(f"{self.stage}/memory_")}

    def keep(self, folder: Path) -> None:
        """Put the files of a stage that was stopped where its run shows them, so that it can be seen why."""
        self.flush()
        for path in folder.iterdir():
            if path.is_file():
                self._client.log_artifact(self.run_id, str(path))

    def _fill_gaps(self, artifact: Artifact) -> None:
        """Record steps whose metrics waited when an earlier start was killed: the stage's own log has them all."""
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
    with _ending(store, child.run_id):
        if computing:
            # The fluent interface is the public way to system metrics; status stays with us.
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
    _set_tags(store, run_id, tags)
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
    """The run, under any recipe, that computed an artifact; none where this MLflow never saw it."""
    experiments = [e.experiment_id for e in store.search_experiments()]
    found = store.search_runs(experiments, f"tags.identity = '{identity}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def log_summary(run: PipelineRun, markdown: str) -> None:
    """Put the run's summary where the pipeline run's page shows it."""
    client().log_text(run.run_id, markdown, "summary.md")


def run_address(run: PipelineRun, server: str) -> str:
    """The address of a pipeline run in the MLflow UI that ``server`` serves."""
    return f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}"


def prepare_store() -> None:
    """Make the local database where it is missing, so that a UI has something to show."""
    client().search_experiments(max_results=1)


def find_run(run_id: str) -> PipelineRun:
    """A pipeline run by its id.

    Raises:
        ConfigError: MLflow knows no such run.
    """
    from mlflow.exceptions import MlflowException

    store = client()
    try:
        info = store.get_run(run_id).info
    except MlflowException as error:
        raise ConfigError(f"MLflow at {without_login(mlflow_uri())} has no run {run_id}: {error.message}") from error
    name = store.get_experiment(info.experiment_id).name
    return PipelineRun(recipe=name, experiment_id=info.experiment_id, run_id=run_id)
