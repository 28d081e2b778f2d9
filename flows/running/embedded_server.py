"""Prefect's embedded server ends with its process, unless that is killed: then the next start ends it."""

import os
import signal

import psutil
from filelock import FileLock
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_EPHEMERAL_ENABLED

from tasks.tracking.lineage import is_gone, process_tags

_OWNER = {"host": "PREFLOW_OWNER_HOST", "pid": "PREFLOW_OWNER_PID", "process_started": "PREFLOW_OWNER_STARTED"}
_EMBEDDED = "PREFECT__SERVER_EPHEMERAL"


def own_server() -> None:
    """Start Prefect's embedded server as this process's own, and end those whose owner is gone.

    Ctrl-C reaches every process of a terminal. The server must not receive it: the run has yet to report its end.
    """
    for tag, value in process_tags().items():
        os.environ[_OWNER[tag]] = value
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):  # not ours to look at, or just gone
            continue
        owner = {tag: environment.get(name, "") for tag, name in _OWNER.items()}
        if environment.get(_EMBEDDED) == "1" and all(owner.values()) and is_gone(owner):
            process.terminate()
    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        return  # an external server, or none: then Prefect's client reports it
    from prefect.server.api.server import SubprocessASGIServer

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes are born with their parent's mask
    try:
        with FileLock(PREFECT_HOME.value() / "server.lock"):  # two servers must not make one database's tables at once
            SubprocessASGIServer().start()  # the one that Prefect's clients then find running
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
