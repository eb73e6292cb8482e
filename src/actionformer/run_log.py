"""Tells of a training as it goes: in the run folder, in words with its pace, and in MLflow."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from actionformer import layout
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json
from actionformer.params.experiment import Experiment
from actionformer.progress import clock, now_and_then
from actionformer.tracking import runs
from actionformer.tracking.careful import Careful
from actionformer.training.observer import Observer

# Short epochs go to MLflow together: trainings that log by turns into one SQLite file wait for
# each other. What an interruption loses is brought in when training goes on.
LOG_SECONDS = 5.0


class RunLog(Observer):
    """Tells of a training: in the run folder, in words, and in MLflow, which may fail."""

    def __init__(
        self,
        experiment: Experiment,
        run: Path,
        lineage: dict[str, Any],
        who: Mapping[str, Any],
        say: Callable[[str], None],
        outdated: Path | None = None,
    ) -> None:
        """A log of a training in a folder.

        Args:
            outdated: a file of an earlier training, which goes as soon as this one has begun.
        """
        self.run_id: str | None = None
        self.trained_by: Sequence[Mapping[str, Any]] = ()
        self._experiment = experiment
        self._run = run
        self._lineage = lineage
        self._who = who
        self._say = say
        self._outdated = outdated
        self._seconds = 0.0
        # what this training is known by to MLflow, before its run has an id
        self._token = ""
        self._every = now_and_then()
        # epochs that MLflow has yet to hear of, and when it last heard of some
        self._pending: list[tuple[int, int, Mapping[str, float]]] = []
        self._logged = -LOG_SECONDS
        self._careful = Careful(run)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._log_epochs()
        if self.run_id is not None:
            failed = "FAILED" if kind is not None and issubclass(kind, Exception) else "KILLED"
            self._careful(runs.end, self.run_id, "FINISHED" if kind is None else failed)

    def started(
        self,
        run_id: str | None,
        history: Sequence[Mapping[str, float]],
        trained_by: Sequence[Mapping[str, Any]],
    ) -> str | None:
        if self._outdated is not None:
            self._outdated.unlink(missing_ok=True)
        epochs = self._experiment.training.epochs
        if len(history) == epochs:
            self._say(f"all {epochs} epochs are trained: model.pt is written from checkpoint.pt")
        elif history:
            self._say(f"goes on after epoch {len(history)}/{epochs}")
        sessions = list(trained_by)
        if len(history) < epochs:  # what is to come, as far as it can be known
            sessions.append({"first_epoch": len(history), "last_epoch": epochs - 1, **self._who})
        self._token = self._known_token() or uuid.uuid4().hex
        # the token first: a run of MLflow's that was created for it is then found again
        self._note_progress(len(history), sum(record["seconds"] for record in history))
        lineage = self._lineage | {"trained_by": sessions, runs.TOKEN: self._token}
        self.run_id = self._careful(runs.start, self._experiment, lineage, run_id)
        if self.run_id is not None:
            self._careful(runs.log_history, self.run_id, history)
        return self.run_id

    def _known_token(self) -> str | None:
        """The token of the process that began this training."""
        # absent or damaged: MLflow gets a run of its own
        with suppress(InputError):
            return read_object(self._run / layout.PROGRESS).get(runs.TOKEN)
        return None

    def watching(self) -> AbstractContextManager[None]:
        return self._careful.watching(self.run_id)

    def epoch_finished(self, epoch: int, record: Mapping[str, float]) -> None:
        epochs = self._experiment.training.epochs
        self._pending.append((epoch, runs.milliseconds(), record))
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._log_epochs()
        self._note_progress(epoch + 1, self._seconds + record["seconds"])
        score = f"  mAP {record['mAP/average']:.2f}" if "mAP/average" in record else ""
        left = clock(self._seconds / (epoch + 1) * (epochs - epoch - 1))
        self._now_and_then(
            f"{self._experiment.name}, seed {self._lineage['seed']}: "
            f"epoch {epoch + 1}/{epochs}, {left} left"
        )
        self._say(
            f"epoch {epoch + 1}/{epochs}  loss {record['loss/total']:.4f}  "
            f"lr {record['learning_rate']:.2e}  "
            f"{record['videos_per_second']:.1f} videos/s  {left} left{score}"
        )

    def _log_epochs(self) -> None:
        if self.run_id is not None and self._pending:
            self._careful(runs.log_epochs, self.run_id, self._pending)
        self._pending, self._logged = [], time.monotonic()

    def _now_and_then(self, line: str) -> None:
        # what is said of every epoch goes into a job's log; who started the job sees stderr alone
        if not sys.stdout.isatty():
            self._every(line)

    def ended(self, trained_by: Sequence[Mapping[str, Any]]) -> None:
        self.trained_by = trained_by
        self._log_epochs()
        if self.run_id is not None:
            lineage = self._lineage | {"trained_by": trained_by}
            self._careful(runs.tag, self.run_id, self._experiment, lineage)

    def _note_progress(self, epoch: int, seconds: float) -> None:
        self._seconds = seconds
        content = {
            "row": self._experiment.called or self._experiment.name,
            "epoch": epoch,
            "epochs": self._experiment.training.epochs,
            "seconds": seconds,
            runs.TOKEN: self._token,
        }
        write_json(self._run / layout.PROGRESS, content)
