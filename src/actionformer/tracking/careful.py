"""Tracking that never ends what is tracked: MLflow may fail, a training goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from actionformer import layout
from actionformer.errors import first_line
from actionformer.files.writing import write_text
from actionformer.tracking.store import store_address

# between two system metrics, unless MLflow's own variable says otherwise
SAMPLE_SECONDS = 5.0


class Careful:
    """Calls the functions of this room for one run folder, and never fails.

    The run folder is the record, MLflow a view of it: what goes wrong there is said once, on stderr
    and in the folder, nothing more is tried by this process, and `actionformer track` brings the
    run in once it is evaluated.
    """

    def __init__(self, folder: Path) -> None:
        self._note = folder / layout.UNTRACKED
        self._failed = False

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns; None once something has failed."""
        if self._failed:
            return None
        try:
            return function(*arguments)
        except Exception as error:
            # MLflow, SQLAlchemy, a server or the disk: none of them may end a training
            self._say(error)
            return None

    @contextmanager
    def watching(self, run_id: str | None) -> Iterator[None]:
        """`system_metrics`, where they can be had."""
        monitor = None if run_id is None else self(_monitor, run_id)
        try:
            yield
        finally:
            if monitor is not None:
                self(monitor.finish)

    def _say(self, error: Exception) -> None:
        self._failed = True
        reason = first_line(error)
        brings = f"`actionformer track` brings {self._note.parent} in once it is evaluated"
        text = f"MLflow failed ({reason}); nothing else is lost, {brings}"
        print(text, file=sys.stderr, flush=True)
        with suppress(OSError):  # a full disk, which may be why MLflow failed
            write_text(self._note, f"{text}\n")


def _monitor(run_id: str) -> SystemMetricsMonitor:
    """Begins to log CPU, memory, disk and GPU use of this machine, until it is told to finish."""
    seconds = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SAMPLE_SECONDS
    monitor = SystemMetricsMonitor(
        run_id,
        sampling_interval=seconds,
        samples_before_logging=1,
        resume_logging=True,
        tracking_uri=store_address(),
    )
    monitor.start()
    return monitor
