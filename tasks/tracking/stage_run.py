"""The child run in MLflow: one for each stage of a pipeline run, with its metrics and files."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preflow.artifacts import Artifact
from tasks.tracking.client import ending
from tasks.tracking.delivery import Delivery, delivery_of
from tasks.tracking.lineage import process_tags
from tasks.tracking.pipeline_run import PipelineRun
from tasks.tracking.system_load import SystemLoad

#: The file of a stage's run that has what its identity is the digest of.
SPECIFICATION = "specification.json"
#: Seconds for which metrics are collected before they become one event.
_FLUSH_SECONDS = 0.5
#: Metrics that are collected at most.
_MOST = 500


class StageRun:
    """The child run of one stage: what happens in it is kept on disk and delivered to MLflow in the background."""

    def __init__(self, stage: str, delivery: Delivery) -> None:
        """Record a stage of the pipeline run that ``delivery`` is for."""
        self.stage = stage
        self._delivery = delivery
        self._pending: list[tuple[str, float, int]] = []
        self._flushed = 0.0

    @property
    def run_id(self) -> str:
        """MLflow's id of this run, once MLflow has it."""
        return self._delivery.child_id(self.stage)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of one step; those that an earlier, killed attempt recorded are kept."""
        self._pending += [(name, float(value), step) for name, value in values.items()]
        if time.monotonic() - self._flushed > _FLUSH_SECONDS or len(self._pending) > _MOST:
            self.flush()

    def flush(self) -> None:
        """Keep all collected metrics on disk."""
        if self._pending:
            self._delivery.put("metrics", stage=self.stage, values=self._pending)
        self._pending, self._flushed = [], time.monotonic()

    def complete(self, artifact: Artifact, identity: str, *, computed: bool) -> None:
        """Record a finished stage: final metrics here and on the parent, and its files or their paths."""
        self.flush()
        made = artifact.model_dump(mode="json")
        self._delivery.put("complete", stage=self.stage, made=made, identity=identity, computed=computed)

    def specified(self, specification: Mapping[str, Any]) -> None:
        """Record all that the stage's identity is the digest of."""
        text = json.dumps(specification, indent=1, sort_keys=True) + "\n"
        self._delivery.put("text", stage=self.stage, name=SPECIFICATION, text=text)

    def keep(self, folder: Path) -> None:
        """Upload the files of a stage that failed, such as the report that gives the reason."""
        self.flush()
        self._delivery.put("files", stage=self.stage, folder=str(self._delivery.copy(folder)))

    def sample(self, values: Mapping[str, float]) -> None:
        """Record a sample of the machine's load."""
        self._delivery.put("system", stage=self.stage, values=dict(values))

    def end(self, status: str) -> None:
        """Record how the stage ended."""
        self.flush()
        self._delivery.put("end", stage=self.stage, status=status)


@contextmanager
def stage_run(run: PipelineRun, stage: str, *, computing: bool = True) -> Iterator[StageRun]:
    """The child run of a stage: the pipeline run's own unfinished one, else new.

    Args:
        run: The pipeline run.
        stage: Its tag.
        computing: Whether to record system metrics.
    """
    delivery = delivery_of(run.run_id)
    stage = f"{run.part}/{stage}" if run.part else stage
    delivery.put("stage", stage=stage, tags=process_tags())
    child = StageRun(stage, delivery)
    with ending(child.end):
        monitor = SystemLoad(child.sample) if computing else None
        try:
            yield child
        finally:
            if monitor is not None:
                monitor.finish()
