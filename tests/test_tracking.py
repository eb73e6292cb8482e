"""MLflow's store: a view that can be copied and moved with its checkout."""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow.store.tracking.dbmodels.models import SqlDataset, SqlExperiment
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.orm import Session

from actionformer import layout, load_experiment
from actionformer.errors import InputError
from actionformer.files.writing import write_bytes, write_text
from actionformer.run_log import RunLog
from actionformer.tracking import artifacts
from actionformer.tracking.artifacts import upload
from actionformer.tracking.models import log_model
from actionformer.tracking.results import restore
from actionformer.tracking.rows import summarise
from actionformer.tracking.runs import DESCRIBED, TOKEN, _datasets, end, experiment_of, start
from actionformer.tracking.store import ADDRESSES, BESIDE, LOCK, open_store

LINEAGE = {
    "seed": 0,
    "identity": "i" * 32,
    "params": "p" * 32,
    "data_version": "d" * 32,
    "pinned": True,
    "files": {},
    "trained_by": [],
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A client of the default store of a new folder, which is the current one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return open_store()


def test_in_a_folder_with_a_space_in_its_name_the_store_is_the_one_that_mlflow_ui_shows(
    tmp_path, monkeypatch
):
    # MLflow's default would be a database in a folder "my%20project" beside this one
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "my project, it's"
    folder.mkdir()
    monkeypatch.chdir(folder)
    open_store().create_experiment("some")
    experiment = load_experiment("thumos14_i3d", "demo")
    run_id = start(experiment, LINEAGE, None)
    end(run_id, "FINISHED")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    shown = MlflowClient("sqlite:///mlflow.db")
    assert shown.get_run(run_id).info.status == "FINISHED"


def addresses(table: str, column: str) -> list[str]:
    with closing(sqlite3.connect(layout.TRACKING_FILE)) as database:
        return [address for (address,) in database.execute(f"SELECT {column} FROM {table}")]


def write(statement: str, *values: str) -> None:
    with closing(sqlite3.connect(layout.TRACKING_FILE)) as database, database:
        database.execute(statement, values)


def fill(client, address: str) -> None:
    """Let every table that holds addresses hold this one."""
    experiment = client.create_experiment("some")
    client.create_run(experiment)
    client.create_registered_model("model")
    write("UPDATE experiments SET artifact_location = ?", address)
    write("UPDATE runs SET artifact_uri = ?", address)
    model = client.create_logged_model(experiment, "network")
    write("UPDATE logged_models SET artifact_location = ?", address)
    client.create_model_version("model", f"models:/{model.model_id}")
    write("UPDATE model_versions SET source = ?, storage_location = ?", address, address)


@pytest.mark.parametrize(("table", "column"), ADDRESSES)
@pytest.mark.parametrize("start", ["/somewhere/mlruns/else", "file:///somewhere/mlruns/else"])
def test_an_address_of_another_folder_is_read_as_one_beside_the_database(
    store, table, column, start
):
    fill(store, f"{start}/mlruns/1/2/artifacts")
    open_store()
    assert set(addresses(table, column)) == {"mlruns/1/2/artifacts"}


@pytest.mark.parametrize(("table", "column"), ADDRESSES)
def test_an_address_of_a_store_elsewhere_stays(store, table, column):
    fill(store, "s3://bucket/mlruns/1/2/artifacts")
    open_store()
    assert set(addresses(table, column)) == {"s3://bucket/mlruns/1/2/artifacts"}


def test_no_column_that_holds_an_address_is_left_out(store):
    """After a run, a logged model and a version of it, no absolute address stands anywhere."""
    experiment = open_store().create_experiment("some")
    store.create_run(experiment)
    store.create_registered_model("model")
    model = store.create_logged_model(experiment, "network")
    store.create_model_version("model", f"models:/{model.model_id}")
    open_store()
    here = str(Path.cwd())
    with closing(sqlite3.connect(layout.TRACKING_FILE)) as database:
        assert here not in "\n".join(database.iterdump())


def test_what_is_logged_in_a_moved_folder_goes_there(store, tmp_path, monkeypatch):
    experiment = store.create_experiment("some")
    run = store.create_run(experiment)
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    monkeypatch.chdir(moved)
    Path("note.txt").write_text("here")
    client = open_store()
    client.log_artifact(run.info.run_id, "note.txt")
    assert not tmp_path.exists()
    assert [path.read_text() for path in moved.glob("mlruns/*/*/artifacts/note.txt")] == ["here"]
    assert [found.path for found in client.list_artifacts(run.info.run_id)] == ["note.txt"]


def test_epochs_that_follow_each_other_quickly_reach_mlflow_together_and_whole(store, tmp_path):
    """Every one of them, in their order, when training ends: at the latest."""
    experiment = load_experiment("thumos14_i3d", "demo")
    log = RunLog(experiment, tmp_path, {"seed": 0}, {}, print)
    log.run_id = store.create_run(store.create_experiment("some")).info.run_id
    record = {"loss/total": 0.0, "learning_rate": 0.1, "videos_per_second": 2.0, "seconds": 0.1}
    seen = []
    with log:
        for epoch in range(5):
            log.epoch_finished(epoch, record | {"loss/total": float(epoch)})
            seen.append(len(store.get_metric_history(log.run_id, "loss/total")))
    assert seen == [1, 1, 1, 1, 1]  # the first at once, the others would wait some seconds
    history = store.get_metric_history(log.run_id, "loss/total")
    assert [(metric.step, metric.value) for metric in history] == [(e, float(e)) for e in range(5)]
    assert store.get_run(log.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("content", ["", "[]", '{"epoch"'])
def test_a_damaged_note_of_progress_keeps_no_training_from_going_on(store, tmp_path, content):
    """It is a view of the checkpoint: what it tells is told anew."""
    (tmp_path / "progress.json").write_text(content)
    log = RunLog(load_experiment("thumos14_i3d", "demo"), tmp_path, {"seed": 0}, {}, print)
    log.started(None, [{"seconds": 2.0, "loss/total": 1.0}], [])
    assert json.loads((tmp_path / "progress.json").read_text())["epoch"] == 1


def test_a_file_is_uploaded_once_and_again_when_it_has_changed(store, tmp_path, monkeypatch):
    """What a run has already is known by a tag: nobody asks the store for its files."""
    run_id = store.create_run(store.create_experiment("some")).info.run_id
    picture, missing = tmp_path / "picture.svg", tmp_path / "missing.svg"
    log_artifact, uploads = store.log_artifact, []

    def counted(*given):
        uploads.append(given)
        log_artifact(*given)

    monkeypatch.setattr(store, "log_artifact", counted)
    for content, count in (("first", 1), ("first", 1), ("second", 2)):
        picture.write_text(content)
        upload(store, run_id, [picture, missing], "figures")
        assert len(uploads) == count
    assert [found.path for found in store.list_artifacts(run_id, "figures")] == [
        "figures/picture.svg"
    ]


def test_a_large_artifact_is_a_second_name_of_the_runs_file_and_never_written_to(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr(artifacts, "LINKED_FROM", 10)
    monkeypatch.setattr(store, "log_artifact", None)  # nothing is copied
    run_id = store.create_run(store.create_experiment("some")).info.run_id
    weights = tmp_path / "model.pt"
    for content in ("the first weights", "the second weights"):
        write_text(weights, content)
        for stored in tmp_path.glob("mlruns/*/*/artifacts/model.pt"):
            # a new file has taken the place of the run's, and not its content
            assert stored.read_text() == "the first weights"
        upload(store, run_id, [weights])
        (stored,) = tmp_path.glob("mlruns/*/*/artifacts/*")
        assert stored.samefile(weights)
    downloaded = store.download_artifacts(run_id, "model.pt", str(tmp_path / "build"))
    assert Path(downloaded).read_text() == "the second weights"


def test_a_run_folder_without_its_lineage_keeps_no_other_from_mlflow(store, tmp_path, capsys):
    run = tmp_path / "results/demo/thumos14_i3d/seed0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text('{"percent": {}}')
    assert restore(tmp_path / "results") == 0
    assert "left out" not in capsys.readouterr().err


def test_the_data_of_a_training_and_of_a_published_checkpoint_are_the_same():
    """MLflow keeps the first of equal name and version, whichever run that is."""
    experiment = load_experiment("thumos14_i3d", "demo")
    files = {"data/demo/thumos14/features/i3d.zip": "an md5"}
    checkpoint = {str(layout.released_checkpoint_of(experiment)): "another md5"}
    trained = {"seed": 0, "data_version": "some.dir", "files": files}
    released = {"seed": None, "data_version": "some.dir", "files": files | checkpoint}
    _, read_by_training = _datasets(experiment, trained)
    (read_by_checkpoint,) = _datasets(experiment, released)
    assert read_by_training.dataset == read_by_checkpoint.dataset


# ------------------------------------------------------------------------------- what a kill leaves


@pytest.mark.parametrize("damage", [b"no database" * 1000, None])
def test_a_damaged_database_is_one_line_that_says_what_to_do(store, damage):
    path = layout.TRACKING_FILE
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(InputError, match=r"mlflow\.db: damaged .*`actionformer track` brings"):
        open_store()


def test_an_empty_database_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    layout.TRACKING_FILE.write_bytes(b"")
    assert open_store().search_experiments()


def test_the_database_appears_whole(tmp_path, monkeypatch):
    """MLflow makes it table by table: nobody may see it half-way, or be left with half of it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        open_store()
    assert not layout.TRACKING_FILE.exists()


def test_a_run_is_found_again_that_nobody_heard_the_id_of(store):
    """The process was killed between its creation and the first checkpoint."""
    experiment = load_experiment("thumos14_i3d", "demo")
    lineage = LINEAGE | {TOKEN: "of this training"}
    first = start(experiment, lineage, None)
    store.delete_tag(first, DESCRIBED)  # nor were its params written
    assert start(experiment, lineage, None) == first
    assert start(experiment, LINEAGE | {TOKEN: "of another"}, None) != first
    assert store.get_run(first).data.params["training.lr"]


def at_the_same_moment(made, call) -> list[str]:
    """What two clients get that call at once, when each has found that there is no `made` yet."""
    both_have_looked = threading.Barrier(2)

    def before_flush(session, *_):
        if any(isinstance(row, made) for row in session.new):
            both_have_looked.wait(timeout=30)

    event.listen(Session, "before_flush", before_flush)
    try:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(call, range(2)))
    finally:
        event.remove(Session, "before_flush", before_flush)


def test_of_two_runs_that_name_the_same_data_first_at_once_both_have_it(store):
    """MLflow looks for a data set and makes it then: a database refuses it the second time."""
    experiment = load_experiment("thumos14_i3d", "demo")
    experiment_of(store, experiment)
    runs = at_the_same_moment(
        SqlDataset, lambda seed: start(experiment, LINEAGE | {"seed": seed}, None)
    )
    assert len(set(runs)) == 2
    for run_id in runs:
        inputs = store.get_run(run_id).inputs.dataset_inputs
        contexts = {given.tags[0].value for given in inputs}
        assert contexts == {"train", "eval"}
    with closing(sqlite3.connect(layout.TRACKING_FILE)) as database:
        assert database.execute("SELECT count(*) FROM datasets").fetchone() == (2,)


def test_of_two_clients_that_make_the_same_table_at_once_both_get_it(store):
    experiment = load_experiment("thumos14_i3d", "demo")
    first, second = at_the_same_moment(SqlExperiment, lambda _: experiment_of(store, experiment))
    assert first == second


def test_a_run_that_nobody_trains_any_more_is_ended(store, tmp_path):
    experiment = load_experiment("thumos14_i3d", "demo")
    left = start(experiment, LINEAGE | {TOKEN: "left"}, None)
    assert store.get_run(left).info.status == "RUNNING"
    lock = layout.run_lock(tmp_path / "results/demo/thumos14_i3d/seed0")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        restore(tmp_path / "results")
        assert store.get_run(left).info.status == "RUNNING"
    restore(tmp_path / "results")
    assert store.get_run(left).info.status == "KILLED"


def test_what_a_killed_maker_of_the_database_has_left_goes_though_another_has_made_it(store):
    left = LOCK.parent / f"{BESIDE}x" / "mlflow.db"
    left.parent.mkdir()
    left.write_bytes(b"half a database")
    open_store()
    assert not left.parent.exists()


def test_a_model_that_a_killed_process_has_begun_goes_with_the_next_that_is_logged(
    store, tmp_path, monkeypatch
):
    experiment = load_experiment("thumos14_i3d", "demo")
    run = tmp_path / "results/demo/thumos14_i3d/seed0"
    run.mkdir(parents=True)
    (run / "model.pt").write_bytes(b"weights")
    run_id = start(experiment, LINEAGE, None)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            log_model(store, run_id, run, experiment)
    assert list(tmp_path.rglob("*.link"))
    log_model(store, run_id, run, experiment)
    assert not list(tmp_path.rglob("*.link"))
    (model,) = store.search_logged_models([store.get_run(run_id).info.experiment_id])
    assert model.status == "READY"
    (stored,) = (tmp_path / "mlruns").rglob("model.pt")
    assert stored.samefile(run / "model.pt")


def test_a_model_that_a_version_names_stays_when_the_run_has_other_weights(store, tmp_path):
    experiment = load_experiment("thumos14_i3d", "demo")
    weights = tmp_path / "results/demo/thumos14_i3d/seed0/model.pt"
    run_id = start(experiment, LINEAGE, None)
    for content in (b"first", b"second"):
        write_bytes(weights, content)
        log_model(store, run_id, weights.parent, experiment)
    models = store.search_logged_models([store.get_run(run_id).info.experiment_id])
    versions = store.search_model_versions(f"run_id = '{run_id}'")
    named = {version.source.removeprefix("models:/") for version in versions}
    assert named == {model.model_id for model in models}
    assert len(named) == 2
    stored = (tmp_path / "mlruns").rglob("model.pt")
    assert {path.read_bytes() for path in stored} == {b"first", b"second"}


# ------------------------------------------------------------------------------------ what is shown


def test_a_rows_run_has_a_verdict_for_each_published_number_and_the_demos_has_none(store):
    paper = load_experiment("thumos14_i3d", "paper")
    published = {f"mAP/{key}": value for key, value in paper.expect.published.items()}
    for seed, distance in enumerate((-0.1, 0.0, 0.1)):
        for edition in ("paper", "demo"):
            experiment = load_experiment("thumos14_i3d", edition)
            lineage = LINEAGE | {"seed": seed, "identity": f"{seed}{edition}"}
            run_id = start(experiment, lineage, None)
            values = {key: value + distance for key, value in published.items()}
            values["mAP/0.7"] += 5
            for key, value in values.items():
                store.log_metric(run_id, key, value)
            store.set_tag(run_id, "evaluated", "true")
            summarise(store, run_id, experiment)
    tables = [table.experiment_id for table in store.search_experiments()]
    (paper_row,) = store.search_runs(tables, "tags.kind = 'row' and tags.edition = 'paper'")
    (demo_row,) = store.search_runs(tables, "tags.kind = 'row' and tags.edition = 'demo'")
    given = {key: tag for key, tag in paper_row.data.tags.items() if key.startswith("verdict")}
    expected = {f"verdict.{key}": "reproduced" for key in published}
    assert given == expected | {"verdict.mAP/0.7": "not reproduced"}
    assert not [key for key in demo_row.data.tags if key.startswith("verdict")]
