"""What this process uses while something runs: private memory, seconds of CPU, resident memory with its children's."""

import threading
from pathlib import Path

import psutil

_WATCH_SECONDS = 0.05


def data_bytes() -> int:
    """Private memory of this process that counts against RLIMIT_DATA."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))


def cpu_seconds() -> float:
    """Seconds of CPU that this process and its living children have used."""
    me = psutil.Process()
    return float(sum(sum(process.cpu_times()[:2]) for process in (me, *me.children(recursive=True))))


class Watch:
    """Looks at the memory of this process and its children while something runs.

    Attributes:
        start: Bytes at the beginning.
        peak: Most bytes seen.
    """

    def __init__(self) -> None:
        self.start = self.peak = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _measure(self) -> None:
        while not self._done.wait(_WATCH_SECONDS):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> int:
        me = psutil.Process()
        total = int(me.memory_info().rss)
        for process in me.children(recursive=True):
            try:
                total += int(process.memory_info().rss)
            except psutil.NoSuchProcess:  # has just ended
                continue
        return total
