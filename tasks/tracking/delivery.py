"""Delivers events to MLflow in the background: training does not wait for MLflow, and goes on while it is away."""

import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from preflow.environment import mlflow_uri
from preflow.redaction import without_login
from tasks.tracking.client import brief
from tasks.tracking.lineage import heartbeat_seconds, heartbeat_tags
from tasks.tracking.outbox import Outbox, left_behind, lock, outboxes_folder
from tasks.tracking.recorder import Recorder, now, refused

#: Seconds between two attempts while MLflow is away.
_PAUSE = 3.0
#: Packages whose errors are those of MLflow, of its network, or of where it keeps its files.
_OTHERS = {"mlflow", "sqlalchemy", "requests", "urllib3", "httpx", "boto3", "botocore", "s3transfer", "google", "azure"}
#: Seconds between two messages that it is away.
_REMINDER = 60.0


class Say(Protocol):
    """Tells the user something."""

    def __call__(self, message: str, *, warning: bool = False) -> None:
        """Show a message."""


def log_message(message: str, *, warning: bool = False) -> None:
    """Log a message where no flow runs."""
    logging.getLogger("preflow").log(logging.WARNING if warning else logging.INFO, message)


class Delivery:
    """Sends one pipeline run's events from its outbox to MLflow, in a thread of its own."""

    def __init__(self, experiment_id: str, run_id: str, outbox: Outbox, say: Say) -> None:
        """Begin to deliver.

        Args:
            experiment_id: MLflow's id of the experiment.
            run_id: MLflow's id of the pipeline run.
            outbox: Its outbox, locked by this process.
            say: Tells the user when MLflow is away; called in the context of the caller of this.
        """
        self._recorder = Recorder(experiment_id, run_id)
        self._outbox = outbox
        self._say = say
        self._changed = threading.Condition()
        self._stopping = False
        self._away: float | None = None
        self._said = 0.0
        self._beat = 0.0
        self._defect: BaseException | None = None
        self._attempt = ThreadPoolExecutor(1, "mlflow")
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._work,), daemon=True)
        self._thread.start()

    def put(self, do: str, **values: Any) -> None:
        """Keep an event, to be delivered after all that were put before."""
        with self._changed:
            self._outbox.append({"do": do, "at": now(), **values})
            self._changed.notify_all()

    def copy(self, folder: Path) -> Path:
        """Copy the files of a folder that is about to go; the folder of the copies."""
        with self._changed:
            return self._outbox.copy(folder)

    def child_id(self, stage: str) -> str:
        """MLflow's id of a stage's run, once it is delivered."""
        self.settle()
        return self._recorder.child(stage).run_id

    def settle(self, patience: float = 0.0) -> int:
        """Wait until all is delivered, or MLflow has been away for so many seconds; the events left."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_settled(patience))
            if self._defect is not None:
                raise self._defect
            return len(self._outbox.waiting)

    def _is_settled(self, patience: float) -> bool:
        away = self._away is not None and time.monotonic() - self._away >= patience
        return not self._outbox.waiting or away or self._defect is not None

    def close(self) -> int:
        """End the thread; the events left, which stay on disk."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._attempt.shutdown()
        return len(self._outbox.waiting)

    def _work(self) -> None:
        while not self._stopping and self._defect is None:
            job = self._next()
            if job is None:
                continue
            error = self._attempt.submit(job).exception()
            with self._changed:
                self._note(error, job)
                self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        """What to do at MLflow: a heartbeat that is due comes first, since it keeps the run from counting as dead."""
        with self._changed:
            if self._away is not None:
                self._changed.wait_for(lambda: self._stopping, _PAUSE)
            if time.monotonic() >= self._beat:
                return self._heartbeat
            if not self._outbox.waiting:
                self._changed.wait(max(0.01, self._beat - time.monotonic()))
            return self._deliver if self._outbox.waiting and not self._stopping else None

    def _heartbeat(self) -> None:
        self._recorder.heartbeat(heartbeat_tags())
        self._beat = time.monotonic() + heartbeat_seconds()

    def _deliver(self) -> None:
        self._recorder.record(self._outbox.waiting[0])

    def _note(self, error: BaseException | None, job: Callable[[], None]) -> None:
        if error is None or refused(error):
            self._answered(error, job)
            if job == self._deliver:
                self._outbox.delivered()
            elif error is not None:  # the run was deleted: a heartbeat is no more use
                self._beat = float("inf")
        elif is_defect(error):
            self._defect = error
        else:
            self._recorder.forget()
            self._remind(error)

    def _answered(self, error: BaseException | None, job: Callable[[], None]) -> None:
        if error is not None:
            self._say(f"a part of this run's record cannot go to MLflow: {brief(error)}", warning=True)
        # A heartbeat says nothing of the files: their store can be away while the server answers.
        whole = job == self._deliver or not self._outbox.waiting
        if self._away is not None and whole:
            self._say(f"MLflow answers again: {len(self._outbox.waiting)} entries that waited are delivered now")
            self._away = None

    def _remind(self, error: BaseException) -> None:
        """Say once a minute that MLflow is away."""
        moment = time.monotonic()
        self._away = moment if self._away is None else self._away
        if self._said and moment - self._said < _REMINDER:
            return
        self._said = moment
        since = datetime.fromtimestamp(time.time() - (moment - self._away))
        self._say(
            f"MLflow at {without_login(mlflow_uri())} does not answer since {since:%H:%M:%S} ({brief(error)}). The run "
            f"goes on; {len(self._outbox.waiting)} entries wait in {self._outbox.folder}",
            warning=True,
        )


def is_defect(error: BaseException) -> bool:
    """Whether an error is a fault of this program, and none of MLflow, its network or its disk."""
    return not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _OTHERS


_deliveries: dict[str, Delivery] = {}


def delivery_of(run_id: str) -> Delivery:
    """The delivery of a pipeline run that this process has under way."""
    return _deliveries[run_id]


@contextmanager
def delivering(experiment_id: str, run_id: str, say: Say) -> Iterator[Delivery]:
    """Deliver a pipeline run's events while the block runs, and for a while after it.

    Args:
        experiment_id: MLflow's id of the experiment.
        run_id: MLflow's id of the pipeline run.
        say: Tells the user when MLflow is away.
    """
    folder = outboxes_folder() / run_id
    with lock(folder):
        outbox = Outbox(folder)
        outbox.describe({"experiment_id": experiment_id, "run_id": run_id, "mlflow": without_login(mlflow_uri())})
        delivery = _deliveries[run_id] = Delivery(experiment_id, run_id, outbox, say)
        patience = 0.0
        try:
            yield delivery
            patience = float(os.environ.get("PREFLOW_MLFLOW_PATIENCE", "60"))
        finally:
            del _deliveries[run_id]
            try:
                delivery.settle(patience)
            finally:
                left = delivery.close()
            if not left:
                outbox.remove()
            else:
                say(
                    f"MLflow stayed away: {left} entries of this run wait in {folder}. The next run delivers them, or "
                    "preflow sync",
                    warning=True,
                )


def deliver_left_behind(say: Say) -> int:
    """Deliver what earlier runs could not; the entries that still wait.

    Args:
        say: Tells the user what was delivered, and what was not.
    """
    left, here = 0, without_login(mlflow_uri())
    for folder, run in left_behind():
        outbox = Outbox(folder)
        count = len(outbox.waiting)
        if run["mlflow"] != here:
            say(f"{count} entries in {folder} are for MLflow at {run['mlflow']}, not {here}", warning=True)
            left += count
            continue
        delivery = Delivery(run["experiment_id"], run["run_id"], outbox, say)
        try:
            delivery.settle()
        finally:
            waiting = delivery.close()
        left += waiting
        if not waiting:
            outbox.remove()
            say(f"{count} entries of MLflow run {run['run_id']} delivered")
    return left
