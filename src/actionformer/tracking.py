"""MLflow: runs, tags, metrics, uploads; no other file knows it.

An experiment per results table, a parent run per row, a child run per seed and published
checkpoint. The run folder is the record, MLflow a view of it: `restore` makes the view anew from
the folders. The store is mlflow.db in the current folder, which `mlflow ui` finds there, or what
MLFLOW_TRACKING_URI says.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlparse

import numpy as np
from filelock import FileLock
from mlflow import pyfunc, set_tracking_uri
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunStatus,
    RunTag,
)
from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from actionformer import disks, layout, provenance
from actionformer.detection.timing import AS_TRAINED, OF_A_VIDEO
from actionformer.errors import InputError, first_line
from actionformer.files import atomic_path, file_md5, read_object, write_text
from actionformer.params.experiment import Experiment
from actionformer.params.files import as_yaml, evaluated_experiment
from actionformer.progress import progress
from actionformer.reporting.tables import best_of_seeds, intervals
from actionformer.reporting.verdict import verdict
from actionformer.training.history import best_epoch, read_history
from actionformer.training.observer import Record

LOCK = Path("build/mlflow.lock")
ARTIFACTS = (
    "model.pt",
    "history.csv",
    "lineage.json",
    "detections.json",
    "metrics.json",
    "diagnosis.json",
)
# of a child run, that its row's run has, too
OF_A_ROW = (
    "git.commit",
    "trained",
    "data.version",
    "data.pinned",
    "protocol",
    "loading",
    "params",
)
# shows a table's own runs, one per row and seed
EVALUATED = "tags.kind = 'seed' and tags.evaluated = 'true'"
# tags: what a run was created for; that it has its params and data; that all of its folder is in
TOKEN, DESCRIBED, WHOLE = "token", "described", "whole"
# what runs are compared by
SCORE = "mAP/average"
# between two system metrics, unless MLflow's own variable says otherwise
SAMPLE_SECONDS = 5.0
# of MLflow's database, table and column: where an artifact's address stands
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
# how a folder begins in which a database is made, before it is moved into its place
BESIDE = "mlflow-new-"
# the folder of MLflow's artifacts, beside its database
ARTIFACT_FOLDER = "mlruns"
# bytes from which an artifact is a hard link, where the store lies here
LINKED_FROM = 1_000_000
# MLflow's limits
LONGEST_PARAM, PARAMS_AT_ONCE, METRICS_AT_ONCE = 6000, 100, 1000
LONGEST_DIGEST, LONGEST_DESCRIPTION = 36, 5000


class Careful:
    """Calls the functions of this module for one run folder, and never fails.

    The run folder is the record, MLflow a view of it: what goes wrong there is said once, on stderr
    and in the folder, nothing more is tried by this process, and `actionformer track` brings the
    run in later.
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
        brings = f"`actionformer track` brings {self._note.parent} in"
        text = f"MLflow failed ({reason}); nothing else is lost, {brings}"
        print(text, file=sys.stderr, flush=True)
        with suppress(OSError):  # a full disk, which may be why MLflow failed
            write_text(self._note, f"{text}\n")


def open_store() -> MlflowClient:
    """A client of a store that exists: of several processes that find none, one makes it.

    Raises:
        InputError: a database that is damaged, or on a network file system.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    # it logs a traceback of whatever it raises, which is said here in one line
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # several that make the database at once all fail, with "table already exists"
    with FileLock(LOCK):
        if _is_local():
            disks.refuse_database(layout.TRACKING_FILE)
            _make_database()
            _refuse_damaged_database()
        client = _client()
        client.search_experiments(max_results=1)
        make_addresses_relative()
    return client


def _is_local() -> bool:
    """Does the store lie in this folder, and not on a server or wherever its variable says?"""
    return os.environ.get("MLFLOW_TRACKING_URI", "") in ("", layout.TRACKING_ADDRESS)


def _store_address() -> str | None:
    """Of the store in this folder; None leaves it to MLflow's variable.

    MLflow's own default, but for `mlflow ui`, quotes the folder's name: in "my project" it would
    make and fill a database in a folder "my%20project" beside it.
    """
    return f"sqlite:///{layout.TRACKING_FILE.absolute()}" if _is_local() else None


@contextmanager
def _as_default_store() -> Iterator[None]:
    """For what MLflow looks up in its default store alone: addresses such as models:/..."""
    if not _is_local():
        yield
        return
    set_tracking_uri(_store_address())
    try:
        yield
    finally:
        set_tracking_uri(None)


def _client() -> MlflowClient:
    return MlflowClient(_store_address())


def _make_database() -> None:
    """Make the database beside and move it in, where there is none.

    MLflow makes it table by table: one that was killed meanwhile would never open again.
    """
    for left in LOCK.parent.glob(f"{BESIDE}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    if layout.TRACKING_FILE.exists() and layout.TRACKING_FILE.stat().st_size:
        return
    # another name each time: MLflow keeps what it has opened once
    with tempfile.TemporaryDirectory(prefix=BESIDE, dir=LOCK.parent) as folder:
        made = Path(folder).absolute() / layout.TRACKING_FILE
        MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        with atomic_path(layout.TRACKING_FILE) as part, closing(sqlite3.connect(made)) as database:
            database.execute("VACUUM INTO ?", (str(part),))


def _refuse_damaged_database() -> None:
    """One line of a database that MLflow would only give a traceback of."""
    wrong = _damage()
    if wrong:
        todo = "move it away, then `actionformer track` brings every run in again"
        raise InputError(f"{layout.TRACKING_FILE}: damaged ({' '.join(wrong.split())}); {todo}")


def _damage() -> str:
    """What is wrong with the database; empty where it is whole."""
    try:
        with closing(sqlite3.connect(layout.TRACKING_FILE, timeout=60)) as database:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                return str(said)
            tables = "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
            if database.execute(tables).fetchone() == (0,):
                return "it lacks MLflow's tables"
            version = database.execute("SELECT version_num FROM alembic_version").fetchone()
            return "" if version else "it has no version"
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return str(error)
        # a lock, a missing permission: it says nothing of the database
        raise InputError(f"{layout.TRACKING_FILE}: {error}") from None


def make_addresses_relative() -> None:
    """Let artifacts be found beside the database that lies here, wherever that is.

    MLflow writes absolute addresses. In a copied or moved checkout those would still lead to the
    folder in which they were made, and what is logged here would overwrite what lies there. A
    server of one's own, and addresses of other stores (s3://...), stay as they are.
    """
    if not _is_local() or not layout.TRACKING_FILE.exists():
        return
    with closing(sqlite3.connect(layout.TRACKING_FILE, timeout=60)) as database, database:
        database.create_function("relative", 1, _relative)
        for table, column in ADDRESSES:
            database.execute(
                f"UPDATE {table} SET {column} = relative({column})"
                f" WHERE {column} LIKE '/%/{ARTIFACT_FOLDER}/%'"
                f" OR {column} LIKE 'file:/%/{ARTIFACT_FOLDER}/%'"
            )


def _relative(address: str) -> str:
    """An address in a folder of artifacts, as seen from the folder of its database."""
    return ARTIFACT_FOLDER + "/" + address.rpartition(f"/{ARTIFACT_FOLDER}/")[2]


def start(experiment: Experiment, lineage: Mapping[str, Any], run_id: str | None) -> str:
    """Go on with a child run, or begin one; returns its id.

    Either way its tags tell the present lineage. A run keeps the params it began with: other
    params, even those of post-processing alone, begin another run.

    Args:
        run_id: the run, where it is known. One that was begun for the same token (`lineage`), by a
            process that was killed before it could tell anybody the id, is gone on with, too.
    """
    client = open_store()
    # two seeds that start together must not both make their row's run
    with FileLock(LOCK):
        if run_id is None:
            run_id = _begun(client, lineage.get(TOKEN))
        if run_id is None or _tag(client, run_id, "params") != lineage["params"]:
            run_id = _create(client, experiment, lineage)
    client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    if _tag(client, run_id, DESCRIBED) is None:
        _describe(client, run_id, experiment, lineage)
    tag(run_id, experiment, lineage)
    return run_id


def _begun(client: MlflowClient, token: str | None) -> str | None:
    """The run that was created for a token."""
    if token is None:
        return None
    tables = [table.experiment_id for table in client.search_experiments()]
    found = client.search_runs(tables, _filter({TOKEN: token}), max_results=1)
    return str(found[0].info.run_id) if found else None


def _create(client: MlflowClient, experiment: Experiment, lineage: Mapping[str, Any]) -> str:
    """A new child run, which can be found by its token from its first moment."""
    experiment_id = _experiment(client, experiment)
    # MLflow knows a child run by this tag alone
    tags = {"mlflow.parentRunId": _parent(client, experiment, experiment_id)}
    if TOKEN in lineage:
        tags[TOKEN] = lineage[TOKEN]
    tags |= _tags(experiment, lineage)
    run = client.create_run(experiment_id, run_name=_name(experiment, lineage), tags=tags)
    return str(run.info.run_id)


def _describe(
    client: MlflowClient, run_id: str, experiment: Experiment, lineage: Mapping[str, Any]
) -> None:
    """Give a new run its params and data."""
    params = []
    for key, value in _flat(_resolved(experiment)):
        params.append(Param(key, str(value)[:LONGEST_PARAM]))
    if lineage["seed"] is not None:
        params.append(Param("seed", str(lineage["seed"])))
    for first in range(0, len(params), PARAMS_AT_ONCE):
        client.log_batch(run_id, params=params[first : first + PARAMS_AT_ONCE])
    client.log_inputs(run_id, datasets=_datasets(experiment, lineage))
    if lineage.get("kind") != "actions":
        # MLflow's comparison opens on the metric that was logged first; its value is not known yet
        client.log_batch(run_id, metrics=_metrics({SCORE: math.nan}, step=0))
    client.set_tag(run_id, DESCRIBED, "true")


def _datasets(experiment: Experiment, lineage: Mapping[str, Any]) -> list[DatasetInput]:
    """What a run reads, for MLflow's column of data sets: by its version, with every file's md5."""
    dataset = experiment.dataset
    # MLflow's limit; a version is an md5 and ".dir"
    version = str(lineage["data_version"])[:LONGEST_DIGEST]
    # MLflow keeps one data set per name and version: what it says must not depend on the run that
    # comes first. A published checkpoint is no data.
    checkpoint = layout.released_checkpoint_of(experiment)
    files = {name: md5 for name, md5 in lineage["files"].items() if name != str(checkpoint)}
    source = {"homepage": dataset.homepage, "files": files}
    found = []
    for context, subset in (("train", dataset.train_subset), ("eval", dataset.eval_subset)):
        if context == "train" and lineage["seed"] is None:
            continue  # nothing was trained here
        known = Dataset(
            name=f"{dataset.name}, {experiment.data.features}, {subset}",
            digest=version,
            source_type="dvc",
            source=json.dumps(source),
            profile=json.dumps({"features": experiment.data.features, "subset": subset}),
        )
        found.append(DatasetInput(known, [InputTag("mlflow.data.context", context)]))
    return found


def _name(experiment: Experiment, lineage: Mapping[str, Any]) -> str:
    """What a run is called."""
    kind = lineage.get("kind", "")
    return layout.run_name(experiment.name, lineage["seed"], lineage["identity"], kind)


def tag(run_id: str, experiment: Experiment, lineage: Mapping[str, Any]) -> None:
    """Let a run's tags tell this lineage."""
    tags = [RunTag(key, value) for key, value in _tags(experiment, lineage).items()]
    _client().log_batch(run_id, tags=tags)


def rename(experiment: Experiment, before: Mapping[str, Any], lineage: Mapping[str, Any]) -> None:
    """Let the run of an earlier lineage, if there is one, go by its present names."""
    client = open_store()
    run_id = _find(client, experiment, before)
    if run_id is not None:
        client.update_run(run_id, name=_name(experiment, lineage))
        tag(run_id, experiment, lineage)


def _tags(experiment: Experiment, lineage: Mapping[str, Any]) -> dict[str, str]:
    """Where a run's numbers come from."""
    dataset, loading = experiment.dataset, experiment.data.loading_text
    kind = lineage.get("kind") or ("released" if lineage["seed"] is None else "seed")
    sessions = provenance.trained_by(lineage, experiment.training.epochs)
    computed_by = sessions or [provenance.evaluated_by(lineage)]
    commits = _each(computed_by, "git", "commit")
    dirty = any(part["git"]["dirty"] for part in computed_by)
    pinned = "" if lineage["pinned"] else ", not as pinned"
    note = (
        f"**{dataset.name}, {experiment.row}**: {_what(experiment, lineage, kind)}, "
        f"{experiment.edition} edition.\n\n"
        f"Data `{lineage['data_version'][:12]}`{pinned}, commit {commits}. "
        f"Evaluated: {dataset.protocol}. Loading: {loading}."
    )
    return {
        "mlflow.note.content": note,
        "kind": kind,
        "edition": experiment.edition,
        "row": experiment.name,
        "seed": str(lineage["seed"]),
        "protocol": dataset.protocol,
        "loading": loading,
        "remark": dataset.remark or "",
        "departs": "; ".join(experiment.departs),
        "identity": lineage["identity"],
        "params": lineage["params"],
        "trained": provenance.history_text(sessions) or "not here",
        "git.commit": commits,
        "git.dirty": str(dirty).lower(),
        "data.version": lineage["data_version"],
        "data.files": json.dumps(lineage["files"]),
        "data.pinned": str(lineage["pinned"]).lower(),
        "lock": _each(computed_by, "environment", "lock"),
        "processor": _each(computed_by, "environment", "processor"),
        "torch": _each(computed_by, "environment", "torch"),
    }


def _what(experiment: Experiment, lineage: Mapping[str, Any], kind: str) -> str:
    """What was evaluated, in words."""
    if kind == "released":
        return "the published checkpoint, not trained here"
    if kind == "actions":
        return f"seed {lineage['seed']}, fused with {experiment.actions_with} into actions"
    return f"seed {lineage['seed']}"


def _each(sessions: Sequence[Mapping[str, Any]], part: str, key: str) -> str:
    """What the sessions that computed a run say of themselves, each once, in their order."""
    return ", ".join(dict.fromkeys(str(session[part][key]) for session in sessions))


def log_epochs(run_id: str, epochs: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
    """Metrics of some epochs, in their order: (epoch, its end in milliseconds, record) of each."""
    metrics = []
    for epoch, ended, record in epochs:
        metrics += [Metric(key, value, ended, epoch) for key, value in record.items()]
    for first in range(0, len(metrics), METRICS_AT_ONCE):
        some = metrics[first : first + METRICS_AT_ONCE]
        _client().log_batch(run_id, metrics=some)


def log_history(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    """Metrics of all epochs so far, where the run lacks them.

    MLflow would keep a second value of the same step.
    """
    known = {metric.step for metric in _client().get_metric_history(run_id, "loss/total")}
    now = milliseconds()
    lacking = [(e, now, record) for e, record in enumerate(history) if e not in known]
    log_epochs(run_id, lacking)


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
    run_id = start(experiment, lineage, _find(client, experiment, lineage))
    if (run / "history.csv").exists():
        log_history(run_id, read_history(run / "history.csv"))
    _log_new(client, run_id, metrics["percent"], step=experiment.training.epochs)
    _log_artifacts(client, run_id, run, experiment)
    earlier = run.parent.name == layout.EARLIER
    # the newest version of a registered model must be the one that counts
    if not earlier:
        _log_model(client, run_id, run, experiment)
    # a run that was moved aside must not count in its row's mean
    client.set_tag(run_id, "evaluated", "earlier" if earlier else "true")
    client.set_terminated(run_id, "FINISHED")
    if not earlier:
        with FileLock(LOCK):
            _summarise(client, run_id, experiment)
    # last: a run without it is brought in again
    client.set_tag(run_id, WHOLE, "true")
    (run / layout.UNTRACKED).unlink(missing_ok=True)
    return run_id


def _log_artifacts(client: MlflowClient, run_id: str, run: Path, experiment: Experiment) -> None:
    """The files of a run folder and its params; of those the run has, what has changed since."""
    _upload(client, run_id, [run / name for name in ARTIFACTS])
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "params.yaml"
        params.write_text(as_yaml(experiment), encoding="utf-8")
        _upload(client, run_id, [params])


def _upload(client: MlflowClient, run_id: str, files: Sequence[Path], folder: str = "") -> None:
    """Those of these files that are there, into a folder of a run's artifacts.

    Of those that the run has, as a tag of it tells, what has changed since.
    """
    known = json.loads(_tag(client, run_id, "artifacts") or "{}")
    found = dict(known)
    for path in files:
        if path.exists():
            name = f"{folder}/{path.name}" if folder else path.name
            found[name] = file_md5(path)
            if known.get(name) != found[name]:
                _log_file(client, run_id, path, folder)
    if found != known:
        client.set_tag(run_id, "artifacts", json.dumps(found))


def _log_file(client: MlflowClient, run_id: str, path: Path, folder: str) -> None:
    """A file as an artifact; where the store lies here a large one is a second name of the file.

    Nothing writes into a large file of a run: a new one takes its place. What a person may edit is
    small, and copied.
    """
    address = urlparse(client.get_run(run_id).info.artifact_uri)
    if path.stat().st_size >= LINKED_FROM and address.scheme in ("", "file"):
        target = Path(address.path) / folder / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if _linked(path, target):
            return
    client.log_artifact(run_id, str(path), folder or None)


def _linked(path: Path, target: Path) -> bool:
    """Give a file a second name, in the place of what lies there; not across disks."""
    beside = target.with_name(f".{target.name}.link")
    try:
        beside.unlink(missing_ok=True)
        # a rename of a second name onto the first would do nothing, and leave both
        if target.exists() and target.samefile(path):
            return True
        beside.hardlink_to(path)
        beside.replace(target)
    except OSError:
        return False
    return True


def _log_model(client: MlflowClient, run_id: str, run: Path, experiment: Experiment) -> None:
    """The trained network as a model that MLflow loads and serves, registered for its row.

    Its weights are a link to the run's model.pt where the store lies here.
    """
    weights = run / "model.pt"
    if not weights.exists():
        return  # a published checkpoint, or actions fused from two runs
    md5 = file_md5(weights)
    if _tag(client, run_id, "model") == md5:
        return
    made = client.get_run(run_id)
    _remove_unfinished(client, made)
    model = client.create_logged_model(
        made.info.experiment_id,
        name=_model_name(experiment.name),
        source_run_id=run_id,
        model_type="actionformer",
        tags={"row": experiment.name, "edition": experiment.edition, "weights": md5},
    )
    make_addresses_relative()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        with warnings.catch_warnings():
            # MLflow would run the network on an example it is given; the file is written below.
            # In a terminal it says so in colour.
            warnings.filterwarnings("ignore", ".*An input example was not provided")
            pyfunc.save_model(
                path,
                loader_module="actionformer.serving",
                data_path=str(weights),
                signature=_signature(experiment),
                # none that could be installed from an index: this project is no package there
                pip_requirements=[],
                metadata={"row": experiment.name, "edition": experiment.edition},
            )
        example = {"inputs": np.zeros((4, experiment.features.dim)).tolist()}
        (path / "serving_input_example.json").write_text(json.dumps(example))
        client.log_model_artifacts(model.model_id, str(path))
    _link_weights(client.get_logged_model(model.model_id).artifact_location, weights)
    client.finalize_logged_model(model.model_id, "READY")
    name = registered_name(experiment)
    with FileLock(LOCK), suppress(MlflowException):
        client.create_registered_model(name)  # unless it is there
    with _as_default_store():
        client.create_model_version(
            name,
            f"models:/{model.model_id}",
            run_id=run_id,
            model_id=model.model_id,
            tags={"seed": made.data.tags["seed"]},
        )
    make_addresses_relative()
    client.set_tag(run_id, "model", md5)


def _remove_unfinished(client: MlflowClient, made: Run) -> None:
    """Take away models of a run that a killed process has begun: no version leads to them.

    Of this folder's store alone: on a server another machine may be logging one.
    """
    if not _is_local():
        return
    versions = client.search_model_versions(f"run_id = '{made.info.run_id}'")
    # a version that is searched for has no model_id
    finished = {version.source.removeprefix("models:/") for version in versions}
    begun = client.search_logged_models(
        [made.info.experiment_id], f"source_run_id = '{made.info.run_id}'"
    )
    for model in begun:
        if model.model_id not in finished:
            client.delete_logged_model(model.model_id)
            shutil.rmtree(_local_path(model.artifact_location), ignore_errors=True)


def _local_path(address: str) -> Path:
    """Where artifacts lie whose address leads into this machine's file system."""
    return Path(address.removeprefix("file://"))


def _link_weights(address: str, weights: Path) -> None:
    """Let a stored model's weights be the run's own file, where both lie on one disk."""
    stored = _local_path(address) / "data" / weights.name
    if "://" in address.removeprefix("file://") or not stored.exists():
        return
    _linked(weights, stored)  # on another disk it stays a copy


def _signature(experiment: Experiment) -> ModelSignature:
    """Features of one video and its timing in; a table of detections out."""
    timing = [ParamSpec(name, "double", AS_TRAINED) for name in OF_A_VIDEO]
    columns = [ColSpec("string", "label")]
    columns += [ColSpec("double", name) for name in ("start", "end", "score")]
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, experiment.features.dim))]),
        outputs=Schema(columns),
        params=ParamSchema(timing),
    )


def registered_name(experiment: Experiment) -> str:
    """What a row's models are registered as."""
    return _model_name(f"{experiment.edition}-{experiment.name}")


def _model_name(name: str) -> str:
    """A name without what MLflow forbids in names of models."""
    return re.sub(r"[/:.%\"']", "_", name)


def _summarise(client: MlflowClient, run_id: str, experiment: Experiment) -> None:
    """Give a row's run the mean over seeds of the runs with the same kind and params as this one.

    The published checkpoint's metrics stand beside them, under released/, those of fused actions
    under actions/.
    """
    child = client.get_run(run_id)
    tags = child.data.tags
    parent, kind = tags["mlflow.parentRunId"], tags["kind"]
    latest = _of_seeds(client, child)
    means = means_of_row(kind, list(latest.values()))
    _log_new(client, parent, means, step=experiment.training.epochs)
    client.set_terminated(parent, "FINISHED")
    if kind != "seed":
        return
    client.set_tag(parent, "seeds", " ".join(sorted(latest, key=int)))
    for key, judged in verdicts_of_row(experiment, list(latest.values())).items():
        client.set_tag(parent, f"verdict.{key}", judged)
    for name in OF_A_ROW:
        client.set_tag(parent, name, tags[name])


def _of_seeds(client: MlflowClient, child: Run) -> dict[str, dict[str, float]]:
    """Seed -> metrics of the runs with the same row, kind and params as this one."""
    return {seed: run.data.metrics for seed, run in _runs_of_seeds(client, child).items()}


def _runs_of_seeds(client: MlflowClient, child: Run) -> dict[str, Run]:
    """Seed -> the run with the same row, kind and params as this one."""
    tags = child.data.tags
    wanted = {
        "`mlflow.parentRunId`": tags["mlflow.parentRunId"],
        "kind": tags["kind"],
        "params": tags["params"],
        "evaluated": "true",
    }
    children = client.search_runs(
        [child.info.experiment_id], _filter(wanted), order_by=["attributes.start_time DESC"]
    )
    # of a seed that was trained twice the latest run counts
    latest: dict[str, Run] = {}
    for run in children:
        latest.setdefault(run.data.tags["seed"], run)
    return latest


def means_of_row(kind: str, metrics_of_seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What the run of a row has of the metrics of its seeds, by MLflow's names."""
    prefix = "" if kind == "seed" else f"{kind}/"
    means = {}
    for key in metrics_of_seeds[0]:
        if "mAP/" in key or key.startswith("recall_"):
            mean = statistics.fmean(metrics[key] for metrics in metrics_of_seeds)
            means[f"{prefix}{key}"] = mean
    return means


def verdicts_of_row(
    experiment: Experiment, metrics_of_seeds: Sequence[Mapping[str, float]]
) -> dict[str, str]:
    """Whether each published number is reproduced; none where there is nothing to compare with."""
    if not experiment.comparable:
        return {}
    judged = {}
    for key, published in experiment.expect.published.items():
        values = [metrics[f"mAP/{key}"] for metrics in metrics_of_seeds]
        judged[f"mAP/{key}"] = verdict(published, values)
    return judged


def _log_new(client: MlflowClient, run_id: str, metrics: Mapping[str, float], *, step: int) -> None:
    """Log what differs from the run's latest values, so that evaluating again adds nothing."""
    known = client.get_run(run_id).data.metrics
    new = {key: value for key, value in metrics.items() if known.get(key) != value}
    if new:
        client.log_batch(run_id, metrics=_metrics(new, step=step))


def _metrics(values: Mapping[str, float], *, step: int) -> list[Metric]:
    now = milliseconds()
    return [Metric(key, value, now, step) for key, value in values.items()]


def milliseconds() -> int:
    """Now, as MLflow counts."""
    return int(time.time() * 1000)


def end(run_id: str, status: str) -> None:
    """Set a run's status: FINISHED, FAILED or KILLED."""
    _client().set_terminated(run_id, status)


def finish(run_id: str) -> None:
    """End a run that was trained to its end, if nobody has ended it yet."""
    if _is_local() and not layout.TRACKING_FILE.exists():
        return  # `track` makes it, with all runs
    if open_store().get_run(run_id).info.status == RunStatus.to_string(RunStatus.RUNNING):
        end(run_id, "FINISHED")


def _monitor(run_id: str) -> SystemMetricsMonitor:
    """Begins to log CPU, memory, disk and GPU use of this machine, until it is told to finish."""
    seconds = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SAMPLE_SECONDS
    monitor = SystemMetricsMonitor(
        run_id,
        sampling_interval=seconds,
        samples_before_logging=1,
        resume_logging=True,
        tracking_uri=_store_address(),
    )
    monitor.start()
    return monitor


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
            _log_drawn(client, row)
        except (InputError, MlflowException) as error:
            print(f"{row}: left out: {error}", file=sys.stderr)
    return count


def _restored(client: MlflowClient, run: Path) -> bool:
    """Bring a run folder into the store, if that lacks it; says whether it did."""
    evaluated = _evaluated(run)
    if evaluated is None:
        return False
    # eight that restore at once bring each run in once
    with FileLock(layout.tracking_lock(run)):
        found = _find(client, *evaluated)
        is_whole = found is not None and _tag(client, found, WHOLE) is not None
        if is_whole and not (run / layout.UNTRACKED).exists():
            return False
        _log_result(client, run)
    return True


def _end_orphans(client: MlflowClient, results: Path) -> None:
    """End the runs of this folder's own store that are said to run while nobody trains them."""
    if not _is_local():
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


def folder_of(run_id: str) -> Path:
    """The run folder that a child run in MLflow stands for.

    Raises:
        InputError: no such run here, or one of no folder.
    """
    tags = {}
    if not _is_local() or layout.TRACKING_FILE.exists():
        with suppress(MlflowException):
            tags = open_store().get_run(run_id).data.tags
    if not {"kind", "edition", "row", "seed"} <= set(tags):
        raise InputError(f"{run_id}: no run in MLflow that stands for a run's folder")
    row = layout.results(tags["edition"]) / tags["row"]
    if tags["kind"] == "actions":
        row = row.with_name(f"{row.name}_actions")
    name = "released" if tags["kind"] == "released" else f"seed{tags['seed']}"
    # a run that another one has taken the place of lies under earlier/
    for run in (row / name, *sorted((row / layout.EARLIER).glob(f"{name}-*"))):
        evaluated = _evaluated(run) if (run / "metrics.json").exists() else None
        if evaluated is not None and evaluated[1]["identity"] == tags.get("identity"):
            return run
    raise InputError(f"{run_id}: its run folder is not in {row} any more")


def logged_metrics(runs: Sequence[Path]) -> dict[Path, dict[str, float]]:
    """Run folder -> the metrics that MLflow has of it; without those of which it has none."""
    if _is_local() and not layout.TRACKING_FILE.exists():
        return {}
    client = open_store()
    found = {}
    for run in runs:
        evaluated = _evaluated(run)
        run_id = None if evaluated is None else _find(client, *evaluated)
        if run_id is not None:
            found[run] = dict(client.get_run(run_id).data.metrics)
    return found


@dataclass(frozen=True)
class Summary:
    """The run of a row in MLflow."""

    kind: str
    # of the runs whose mean it has; none before it has one
    identities: Sequence[str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def logged_rows(runs: Sequence[Path]) -> dict[Path, Summary]:
    """Run folder -> the run of its row in MLflow; without those of which MLflow has no run."""
    client = open_store()
    found = {}
    for folder in runs:
        evaluated = _evaluated(folder)
        run_id = None if evaluated is None else _find(client, *evaluated)
        if run_id is not None:
            found[folder] = _summary(client, client.get_run(run_id))
    return found


def _summary(client: MlflowClient, child: Run) -> Summary:
    """What the run of a row says of its seeds."""
    parent = client.get_run(child.data.tags["mlflow.parentRunId"]).data
    identities = [run.data.tags["identity"] for run in _runs_of_seeds(client, child).values()]
    if not any("mAP/" in key for key in parent.metrics):
        identities = []
    kind = child.data.tags["kind"]
    return Summary(kind, sorted(identities), dict(parent.metrics), dict(parent.tags))


def _evaluated(run: Path) -> tuple[Experiment, dict[str, Any]] | None:
    """Experiment and lineage of a run folder; None where there are no numbers to log.

    As of a row whose published checkpoint is another row's.
    """
    metrics = read_object(run / "metrics.json")
    if "percent" not in metrics or not (run / "lineage.json").exists():
        return None
    lineage = read_object(run / "lineage.json") | metrics["lineage"]
    return evaluated_experiment(metrics, str(run / "metrics.json")), lineage


def _log_drawn(client: MlflowClient, row: Path) -> None:
    """What was drawn of the runs in a row's folder: figures, tables, the model card."""
    experiment = None
    for path in sorted(row.glob("seed*/metrics.json")):
        evaluated = _evaluated(path.parent)
        if evaluated is None:
            continue
        experiment, lineage = evaluated
        run_id = _find(client, experiment, lineage)
        if run_id is not None:
            drawn = sorted(layout.figures_of_run(path.parent).glob("*.svg"))
            _upload(client, run_id, drawn, "figures")
    # actions, fused from nouns and verbs, have runs alone: what is drawn is drawn of the nouns
    if experiment is None or experiment.name != row.name:
        return
    with FileLock(LOCK):
        parent = _parent(client, experiment, _experiment(client, experiment))
    _log_new(client, parent, beside_means(row), step=experiment.training.epochs)
    figures = row / layout.figures(experiment).name
    tables = row.parent / layout.tables(experiment.edition).name
    card = row / layout.model_card(experiment).name
    _upload(client, parent, sorted(figures.glob("*.svg")), "figures")
    forms = [tables / f"{experiment.table}.{form}" for form in layout.TABLE_FORMS]
    _upload(client, parent, forms, "tables")
    if card.exists():
        _describe_model(client, experiment, card.read_text(encoding="utf-8"))


def beside_means(row: Path) -> dict[str, float]:
    """What tables have of a row beside its mean, by the names of the csv's columns.

    The bootstrap's intervals, where there are any, and what the best epochs score.
    """
    runs = sorted(path.parent for path in row.glob("seed*/metrics.json"))
    bootstrap = row / "bootstrap.json"
    chance = None
    if bootstrap.exists():
        told = read_object(bootstrap, "seeds", "mAP", "less_released_checkpoint")
        # of some of the seeds, it says nothing of their mean
        if {f"seed{seed}" for seed in told["seeds"]} == {run.name for run in runs}:
            chance = told
    best = [_best_epoch(run / "history.csv") for run in runs]
    percents = [read_object(run / "metrics.json").get("percent", {}) for run in runs]
    found = {}
    for key in percents[0]:
        columns = intervals(chance, key) | {"best_epoch_oracle": best_of_seeds(best, key)}
        for column, value in columns.items():
            if value is not None:
                found[f"{column}/{key}"] = value
    return found


def _best_epoch(history: Path) -> Record | None:
    return best_epoch(read_history(history)) if history.exists() else None


def _describe_model(client: MlflowClient, experiment: Experiment, card: str) -> None:
    """Let a row's card be the description of its registered model."""
    name = registered_name(experiment)
    description = card.split("---\n", 2)[-1].strip()[:LONGEST_DESCRIPTION]
    for model in client.search_registered_models(f"name = '{name}'"):
        if model.description != description:
            client.update_registered_model(name, description=description)


def addresses(edition: str, base: str) -> list[str]:
    """Per results table the addresses under which `mlflow ui` lists and compares its runs."""
    client = open_store()
    lines = []
    best_first = f"orderByKey={quote('metrics.`mAP/average`')}&orderByAsc=false"
    listed = f"searchFilter={quote(EVALUATED)}&{best_first}"
    for found in sorted(client.search_experiments(), key=lambda table: int(table.experiment_id)):
        if not found.name.startswith(f"{edition}/"):
            continue
        runs = client.search_runs([found.experiment_id], EVALUATED)
        ids = quote(json.dumps([run.info.run_id for run in runs]))
        experiments = quote(json.dumps([found.experiment_id]))
        compared = f"runs={ids}&experiments={experiments}&numRequestedRuns={len(runs)}"
        lines += [
            f"{found.name}: {len(runs)} runs",
            f"  list     {base}/#/experiments/{found.experiment_id}/runs?{listed}",
            f"  compare  {base}/#/compare-runs?{compared}",
        ]
    return lines


# --------------------------------------------------------------------------------------- internals


def _experiment(client: MlflowClient, experiment: Experiment) -> str:
    name = f"{experiment.edition}/{experiment.table}"
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    created = client.create_experiment(name)
    make_addresses_relative()
    return str(created)


def _parent(client: MlflowClient, experiment: Experiment, experiment_id: str) -> str:
    wanted = {"kind": "row", "row": experiment.name}
    found = client.search_runs([experiment_id], _filter(wanted), max_results=1)
    if found:
        return str(found[0].info.run_id)
    title = f"{experiment.dataset.name}, {experiment.row}"
    tags = {
        "kind": "row",
        "row": experiment.name,
        "edition": experiment.edition,
        "mlflow.note.content": f"{title}; a child run per seed and checkpoint",
    }
    return str(client.create_run(experiment_id, run_name=experiment.name, tags=tags).info.run_id)


def _find(client: MlflowClient, experiment: Experiment, lineage: Mapping[str, Any]) -> str | None:
    """The child run of these params and data: the one that trained, or one of this identity."""
    trained = lineage.get("mlflow_run")  # none trained the published checkpoint
    if trained is not None and _tag(client, trained, "identity") == lineage["identity"]:
        return str(trained)
    wanted = {
        "identity": lineage["identity"],
        "edition": experiment.edition,
        "row": experiment.name,
        "seed": str(lineage["seed"]),
    }
    tables = [table.experiment_id for table in client.search_experiments()]
    found = client.search_runs(tables, _filter(wanted), max_results=1)
    return str(found[0].info.run_id) if found else None


def _filter(tags: Mapping[str, str]) -> str:
    """What MLflow searches runs with."""
    return " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())


def _tag(client: MlflowClient, run_id: str, name: str) -> str | None:
    """A tag of a run; None where there is no such run, or it was deleted."""
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    return run.data.tags.get(name) if run.info.lifecycle_stage == "active" else None


def _resolved(experiment: Experiment) -> dict[str, Any]:
    content = experiment.model_dump(
        mode="json", include={"data", "model", "training", "inference", "evaluation"}
    )
    content["features"] = experiment.features.model_dump(mode="json")
    return content


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
