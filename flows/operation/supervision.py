"""Processes in one terminal, kept by supervisord: each in a group of its own, started again where it fails.

They end in the reverse order of their start, each with the time that it needs before the one that it uses goes.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from flows.operation.server_processes import end_with_parent

_POLL_SECONDS = 0.1
_LOG_BYTES = "10MB"
_SCRIPT = "#!/bin/sh\ncd {folder}\nexec {command}\n"
_CONFIGURATION = """\
[supervisord]
nodaemon=true
silent=true
nocleanup=true
logfile=supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile={scripts}/pid
umask={umask:03o}
[unix_http_server]
file={scripts}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """\
[program:{name}]
command=/bin/sh {scripts}/{name}
priority={priority}
autostart=false
autorestart=true
startsecs=3
startretries=10
stopsignal=TERM
stopwaitsecs={stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes={log_bytes}
stdout_logfile_backups=1
"""
#: Names of supervisord's states in which a process is there, or on its way.
_THERE = {"STARTING", "RUNNING"}


@dataclass(frozen=True, slots=True)
class Program:
    """A process that is kept running.

    Attributes:
        name: Its name.
        command: What it runs.
        log: The name of its log file; none where its output goes to the terminal.
        stop_seconds: The seconds that it has for its end.
    """

    name: str
    command: Sequence[str]
    log: str | None
    stop_seconds: int


def configuration(programs: Sequence[Program], scripts: Path, umask: int) -> str:
    """What supervisord reads: no path but those of a temporary folder, since it would read a ``%`` or ``;`` in one.

    Args:
        programs: In the order in which they start.
        scripts: The folder with a script for each.
        umask: That of the files that they write.
    """
    parts = [_CONFIGURATION.format(scripts=scripts, umask=umask)]
    for priority, program in enumerate(programs, 1):
        place = {"log": program.log or "/dev/fd/1", "log_bytes": _LOG_BYTES if program.log else 0}
        named = {"name": program.name, "stop_seconds": program.stop_seconds}
        parts.append(_PROGRAM.format(scripts=scripts, priority=priority, **named, **place))
    return "".join(parts)


class Supervision:
    """A running supervisord."""

    def __init__(self, process: "subprocess.Popen[bytes]", socket: Path) -> None:
        from supervisor.xmlrpc import SupervisorTransport

        self.process = process
        transport = SupervisorTransport(None, None, f"unix://{socket}")
        self._calls: Any = ServerProxy("http://127.0.0.1", transport=transport)
        self._socket = socket

    def start(self, name: str) -> None:
        """Start a process; it need not be there yet when this returns."""
        self._calls.supervisor.startProcess(name, False)

    def ended(self, name: str) -> str | None:
        """How a process ended that should be there; nothing while it is."""
        try:
            found = self._calls.supervisor.getProcessInfo(name)
        except (Fault, OSError) as error:
            return f"with its supervisor: {error}"
        if found["statename"] in _THERE:
            return None
        return f"({found['spawnerr'] or 'exit code ' + str(found['exitstatus'])})"

    def wait(self) -> int:
        """Wait until all has ended; the exit code."""
        return self.process.wait()

    def wait_until_ready(self) -> None:
        """Wait until orders can be given."""
        while not self._socket.exists() and self.process.poll() is None:
            time.sleep(_POLL_SECONDS)


@contextmanager
def supervised(programs: Sequence[Program], logs: Path, environment: Mapping[str, str]) -> Iterator[Supervision]:
    """Keep processes until the block ends, or this process does, even by SIGKILL; none is started yet.

    Args:
        programs: In the order in which they start.
        logs: The folder of their log files.
        environment: Theirs; it is in no file and no argument.
    """
    umask = os.umask(0o022)
    os.umask(umask)
    with tempfile.TemporaryDirectory(prefix="preflow-") as made:
        scripts = Path(made)
        for program in programs:
            text = _SCRIPT.format(folder=shlex.quote(str(Path.cwd())), command=shlex.join(program.command))
            (scripts / program.name).write_text(text, encoding="utf-8")
        (scripts / "configuration").write_text(configuration(programs, scripts, umask), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(scripts / "configuration")],
            cwd=logs,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone
            # Safe: this process has one thread, and the child only makes one system call.
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
        copying = threading.Thread(target=_show, args=(process,), daemon=True)
        copying.start()
        try:
            running = Supervision(process, scripts / "socket")
            running.wait_until_ready()
            yield running
        finally:
            process.terminate()
            process.wait()
            copying.join()


def _show(process: "subprocess.Popen[bytes]") -> None:
    """Copy output of processes to the terminal; they go on where no process reads it any more."""
    assert process.stdout is not None, "it is a pipe"
    is_read = True
    while output := process.stdout.read1():  # type: ignore[attr-defined]  # it is buffered
        try:
            if is_read:
                os.write(sys.stderr.fileno(), output)
        except OSError:
            is_read = False
