"""MLflow's store: mlflow.db in the current folder, or what MLFLOW_TRACKING_URI says.

`mlflow ui` finds the first of the two.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow import set_tracking_uri
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from actionformer import disks, layout
from actionformer.errors import InputError
from actionformer.files.writing import atomic_path

LOCK = Path("build/mlflow.lock")
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
        if is_local():
            disks.refuse_database(layout.TRACKING_FILE)
            _make_database()
            _refuse_damaged_database()
        client = new_client()
        client.search_experiments(max_results=1)
        make_addresses_relative()
    return client


def is_local() -> bool:
    """Does the store lie in this folder, and not on a server or wherever its variable says?"""
    return os.environ.get("MLFLOW_TRACKING_URI", "") in ("", layout.TRACKING_ADDRESS)


def store_address() -> str | None:
    """Of the store in this folder; None leaves it to MLflow's variable.

    MLflow's own default, but for `mlflow ui`, quotes the folder's name: in "my project" it would
    make and fill a database in a folder "my%20project" beside it.
    """
    return f"sqlite:///{layout.TRACKING_FILE.absolute()}" if is_local() else None


@contextmanager
def as_default_store() -> Iterator[None]:
    """For what MLflow looks up in its default store alone: addresses such as models:/..."""
    if not is_local():
        yield
        return
    set_tracking_uri(store_address())
    try:
        yield
    finally:
        set_tracking_uri(None)


def new_client() -> MlflowClient:
    return MlflowClient(store_address())


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
        todo = "move it away, then `actionformer track` brings every evaluated run in again"
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
    if not is_local() or not layout.TRACKING_FILE.exists():
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


def filter_of(tags: Mapping[str, str]) -> str:
    """What MLflow searches runs with."""
    return " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())


def tag_of(client: MlflowClient, run_id: str, name: str) -> str | None:
    """A tag of a run; None where there is no such run, or it was deleted."""
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    return run.data.tags.get(name) if run.info.lifecycle_stage == "active" else None
