"""What a lab's machines share: MLflow's server on PostgreSQL with artifacts in a bucket."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
import requests
from mlflow.tracking import MlflowClient

import lab
from actionformer import load_experiment
from actionformer.commands.main import main
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.tracking.artifacts import upload
from actionformer.tracking.runs import end, log_epochs, start
from test_tracking import LINEAGE

PROCESSES, EPOCHS = 8, 50
LARGE = 500_000_000
# seconds that the server is gone, which MLflow's own patience outlasts
GONE = 60.0

pytestmark = pytest.mark.skipif(
    bool(lab.lacking("psycopg2", "boto3", "moto", programs=("initdb", "pg_ctl"))),
    reason=lab.lacking("psycopg2", "boto3", "moto", programs=("initdb", "pg_ctl")),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server of docs/mlflow.md, on this machine."""
    with lab.bucket() as keys, lab.postgres() as database:
        running = lab.MlflowServer(database, keys, tmp_path_factory.mktemp("server"))
        running.start()
        yield running
        running.stop()


@pytest.fixture
def client(server, monkeypatch, tmp_path):
    """A client of it, in a folder of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.chdir(tmp_path)
    return MlflowClient(server.address)


def log_a_run(seed: int) -> str:
    """A training as it is logged; the id of its run."""
    experiment = load_experiment("thumos14_i3d", "demo")
    lineage = LINEAGE | {"seed": seed, "identity": f"{seed:032d}"}
    run_id = start(experiment, lineage, None)
    for epoch in range(EPOCHS):
        log_epochs(run_id, [(epoch, 1000 * epoch, {"loss": seed + epoch / EPOCHS})])
    end(run_id, "FINISHED")
    return run_id


def losses(client: MlflowClient, run_id: str) -> list[float]:
    return [metric.value for metric in client.get_metric_history(run_id, "loss")]


def test_eight_processes_log_at_once_and_every_epoch_arrives(client):
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        runs = pool.map(log_a_run, range(PROCESSES))
    assert len(set(runs)) == PROCESSES
    for seed, run_id in enumerate(runs):
        assert losses(client, run_id) == [seed + epoch / EPOCHS for epoch in range(EPOCHS)]
        assert client.get_run(run_id).info.status == "FINISHED"
    parents = {client.get_run(run_id).data.tags["mlflow.parentRunId"] for run_id in runs}
    assert len(parents) == 1


def test_the_server_answers_to_the_name_that_it_was_given(server):
    address = f"{server.address}/api/2.0/mlflow/experiments/search?max_results=1"
    asked = {"Host": f"{lab.NAME}:{server.port}"}
    assert requests.get(address, headers=asked, timeout=10).ok
    assert requests.get(address, headers={"Host": "another.lab"}, timeout=10).status_code == 403


@pytest.mark.long
def test_an_artifact_of_500_megabytes_comes_back_whole(client, tmp_path):
    run_id = log_a_run(100)
    path = tmp_path / "model.pt"
    with path.open("wb") as file:
        for _ in range(LARGE // 1_000_000):
            file.write(os.urandom(1_000_000))
    upload(client, run_id, [path], "weights")
    assert not list(tmp_path.glob("mlruns*"))
    found = client.download_artifacts(run_id, "weights/model.pt", str(tmp_path))
    assert file_md5(Path(found)) == file_md5(path)


@pytest.mark.long
def test_a_server_that_is_gone_for_a_minute_loses_nothing(client, server):
    done: list[str] = []
    logging = threading.Thread(target=lambda: done.append(log_a_run(200)))
    logging.start()
    table = client.get_experiment_by_name("demo/thumos14").experiment_id
    while not client.search_runs([table], "tags.seed = '200' and metrics.loss > 200"):
        assert logging.is_alive()
    server.stop()
    try:
        assert logging.is_alive()
        time.sleep(GONE)
    finally:
        server.start()
    logging.join(timeout=240)
    assert losses(client, done[0]) == [200 + epoch / EPOCHS for epoch in range(EPOCHS)]


def test_what_was_computed_while_no_server_answered_is_brought_in_by_track(
    client, server, tree, monkeypatch, capfd, request
):
    """As with the jobs of a cluster whose nodes do not reach the server."""
    one_epoch = ("training.schedule_epochs=1", "training.warmup_epochs=1")
    row = ("thumos14_i3d", "--set", "data.videos=4", *one_epoch)
    server.stop()
    request.addfinalizer(server.start_again)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    for command in (("convert", "thumos14"), ("pack", "thumos14", "i3d")):
        assert main([*command]) == 0
    for stage in ("train", "detect", "evaluate"):
        assert main([stage, *row]) == 0
    (run,) = Path("results/demo").glob("*/seed0")
    assert "nothing else is lost" in (run / "mlflow-failed.txt").read_text()
    assert capfd.readouterr().err.count("MLflow failed") == 2  # in training, and in evaluation
    server.start()
    assert main(["track"]) == 0
    percent = read_object(run / "metrics.json")["percent"]
    (found,) = client.search_runs(
        [client.get_experiment_by_name("demo/thumos14").experiment_id],
        f"tags.kind = 'seed' and metrics.`mAP/average` = {percent['mAP/average']!r}",
    )
    assert {key: found.data.metrics[key] for key in percent} == percent
    assert not (run / "mlflow-failed.txt").exists()
