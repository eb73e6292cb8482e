"""Run folders into MLflow: of an evaluation, or all that the store lacks."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from filelock import FileLock
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from actionformer import layout
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.params.experiment import Experiment
from actionformer.params.files import as_yaml
from actionformer.params.stored import evaluated_experiment
from actionformer.progress import progress
from actionformer.tracking.artifacts import upload
from actionformer.tracking.models import log_model
from actionformer.tracking.rows import log_drawn, summarise
from actionformer.tracking.runs import TOKEN, evaluated_in, find, log_history, log_new, start
from actionformer.tracking.store import LOCK, is_local, open_store, tag_of
from actionformer.training.history import read_history

ARTIFACTS = (
    "model.pt",
    "history.csv",
    "lineage.json",
    "detections.json",
    "metrics.json",
    "diagnosis.json",
)
# a tag: that all of a run's folder is in
WHOLE = "whole"


def log_result(run: Path) -> str:
    """Metrics and artifacts of an evaluated run folder, into its child run; returns the run's id.

    A folder of a published checkpoint has no history. Metrics under other post-processing or
    evaluation params than the run has, or in a store that lacks the run, become a run of their own.
    """
    client = open_store()
    with FileLock(layout.tracking_lock(run)):
        return _log_result(client, run)


def _log_result(client: MlflowClient, run: Path) -> str:
    """`log_result`, for who holds the lock of the run folder."""
    metrics = read_object(run / "metrics.json", "percent", "lineage")
    trained = read_object(run / "lineage.json")
    experiment = evaluated_experiment(metrics, str(run / "metrics.json"))
    lineage = trained | metrics["lineage"]
    run_id = start(experiment, lineage, find(client, experiment, lineage))
    if (run / "history.csv").exists():
        log_history(run_id, read_history(run / "history.csv"))
    log_new(client, run_id, metrics["percent"], step=experiment.training.epochs)
    _log_artifacts(client, run_id, run, experiment)
    earlier = run.parent.name == layout.EARLIER
    # the newest version of a registered model must be the one that counts
    if not earlier:
        log_model(client, run_id, run, experiment)
    # a run that was moved aside must not count in its row's mean
    client.set_tag(run_id, "evaluated", "earlier" if earlier else "true")
    client.set_terminated(run_id, "FINISHED")
    if not earlier:
        with FileLock(LOCK):
            summarise(client, run_id, experiment)
    # last: a run without it is brought in again
    client.set_tag(run_id, WHOLE, "true")
    (run / layout.UNTRACKED).unlink(missing_ok=True)
    return run_id


def _log_artifacts(client: MlflowClient, run_id: str, run: Path, experiment: Experiment) -> None:
    """The files of a run folder and its params; of those the run has, what has changed since."""
    upload(client, run_id, [run / name for name in ARTIFACTS])
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "params.yaml"
        params.write_text(as_yaml(experiment), encoding="utf-8")
        upload(client, run_id, [params])


def restore(results: Path) -> int:
    """Bring every finished run folder that the store lacks, or has but in part, into it.

    Runs that were set aside are brought in, too, and runs that a killed process has left running
    are ended. Returns how many were brought in.
    """
    client = open_store()
    _end_orphans(client, results)
    finished: list[Path] = []
    for pattern in ("*/*/seed*", "*/*/released", f"*/*/{layout.EARLIER}/*"):
        finished += [path.parent for path in results.glob(f"{pattern}/metrics.json")]
    # runs that were set aside come last: of equal identity, the other one has taken its place
    finished.sort(key=lambda run: (run.parent.name == layout.EARLIER, run))
    count = 0
    for run in progress(finished, "restore runs", unit="run"):
        try:
            count += _restored(client, run)
        except (InputError, MlflowException) as error:
            print(f"{run}: left out: {error}", file=sys.stderr)
    for row in sorted(results.glob("*/*/")):
        try:
            log_drawn(client, row)
        except (InputError, MlflowException) as error:
            print(f"{row}: left out: {error}", file=sys.stderr)
    return count


def _restored(client: MlflowClient, run: Path) -> bool:
    """Bring a run folder into the store, if that lacks it; says whether it did."""
    evaluated = evaluated_in(run)
    if evaluated is None:
        return False
    # eight that restore at once bring each run in once
    with FileLock(layout.tracking_lock(run)):
        found = find(client, *evaluated)
        is_whole = found is not None and tag_of(client, found, WHOLE) is not None
        if is_whole and not (run / layout.UNTRACKED).exists():
            return False
        _log_result(client, run)
    return True


def _end_orphans(client: MlflowClient, results: Path) -> None:
    """End the runs of this folder's own store that are said to run while nobody trains them."""
    if not is_local():
        return  # of a server's runs others know
    tables = {table.experiment_id: table.name for table in client.search_experiments()}
    for run in client.search_runs(list(tables), "attributes.status = 'RUNNING'"):
        tags = run.data.tags
        if TOKEN in tags:
            folder = results / tags["edition"] / tags["row"] / f"seed{tags['seed']}"
            if layout.is_held(layout.run_lock(folder)):
                continue
            # it may have ended by itself since it was listed
            now = client.get_run(run.info.run_id).info.status
            if now == RunStatus.to_string(RunStatus.RUNNING):
                client.set_terminated(run.info.run_id, "KILLED")
