"""The machine's load during a stage, measured by MLflow's monitors and recorded as all else is."""

import threading
from collections.abc import Callable, Mapping
from typing import Any


class SystemLoad:
    """Measures the machine's load in a thread; MLflow's own sends its samples itself, and ends when that fails."""

    def __init__(self, sample: Callable[[Mapping[str, float]], None]) -> None:
        """Begin to measure.

        Args:
            sample: Given each sample.
        """
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        measured: Callable[..., Any] = SystemMetricsMonitor
        self._measured = measured(run_id="")
        self._sample = sample
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-load", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._ended.is_set():
            for _ in range(self._measured.samples_before_logging):
                self._measured.collect_metrics()
                if self._ended.wait(self._measured.sampling_interval):
                    return
            self._sample(self._measured.aggregate_metrics())
            for monitor in self._measured.monitors:
                monitor.clear_metrics()

    def finish(self) -> None:
        """End the measurement; a sample that has not its whole interval is dropped."""
        self._ended.set()
        self._thread.join()
