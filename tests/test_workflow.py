"""The workflow on two rows of one epoch: what runs, what runs again and what doesn't, and what MLflow then knows."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient

from conftest import CHECKOUT, run_command

ROWS = ["hacs_slowfast", "thumos14_i3d"]
THUMOS_ARCHIVE = "data/demo/thumos14/features/i3d_actionformer_stride4_thumos.zip"
HACS_ARCHIVE = "data/demo/hacs/features/slowfast101_15fps_stride8_len32_hacs.zip"


def shorten(folder: Path) -> None:
    """A params folder of one-epoch rows."""
    shutil.copytree(CHECKOUT / "params", folder / "params")
    path = folder / "params/editions/demo.yaml"
    edition = yaml.safe_load(path.read_text())
    edition["all_experiments"]["training"] |= {"schedule_epochs": 1, "warmup_epochs": 1, "first_eval_epoch": 0}
    for row in edition["experiments"].values():
        row.pop("training", None)
    path.write_text(yaml.safe_dump(edition))


def snakemake(folder: Path, *extra: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "--cores", "2", *extra]
    config = ["--config", "params=params", f"rows=[{','.join(ROWS)}]"]
    return run_command(folder, *command, *config, check=check)


def planned(folder: Path, rule: str) -> set[str]:
    """What the rule's message names, for every job that Snakemake would run now."""
    said = snakemake(folder, "-n").stdout
    return set(re.findall(rf"^Job \d+: {rule} (.*)$", said, re.M))


def assert_nothing_planned(folder: Path) -> None:
    assert "Nothing to be done" in snakemake(folder, "-n").stdout


@pytest.fixture(scope="module")
def done(workspace: Path) -> Path:
    """The workspace after one call of `snakemake --cores 2`."""
    shorten(workspace)
    snakemake(workspace)
    return workspace


def client(folder: Path) -> MlflowClient:
    """A client of the database as it is now: MLflow keeps one that it has opened open, even if it is deleted."""
    copy = folder / f"mlflow-{time.time_ns()}.db"
    shutil.copy(folder / "mlflow.db", copy)
    return MlflowClient(f"sqlite:///{copy}")


def seeds_of(folder: Path) -> dict[str, object]:
    """Row -> its seed's run in MLflow."""
    found = client(folder)
    runs = found.search_runs([e.experiment_id for e in found.search_experiments()], "tags.kind = 'seed'")
    return {run.data.tags["row"]: run for run in runs}


# The tests below share one workspace and run in order: each leaves it up to date.


def test_a_second_call_does_nothing(done):
    assert_nothing_planned(done)


def test_tables_say_that_these_are_demo_numbers_and_where_they_come_from(done):
    page = (done / "results/demo/tables/index.md").read_text()
    assert "These are demo numbers" in page
    assert page.count("| difference | n/a | n/a |") == len(ROWS)
    for row in ROWS:
        lineage = json.loads((done / f"results/demo/{row}/seed0/lineage.json").read_text())
        assert lineage["pinned"]
        assert f"seed0-{lineage['identity'][:8]}" in page
    assert f"`{yaml.safe_load((done / 'data.dvc').read_text())['outs'][0]['md5']}`" in page


def test_mlflow_has_an_experiment_per_table_a_parent_per_row_and_a_child_per_seed(done):
    found = client(done)
    assert {e.name for e in found.search_experiments()} >= {"demo/hacs", "demo/thumos14"}
    for row, child in seeds_of(done).items():
        parent = found.get_run(child.data.tags["mlflow.parentRunId"])
        assert (parent.info.run_name, parent.data.tags["kind"]) == (row, "row")
        assert child.info.status == parent.info.status == "FINISHED"
        assert child.data.params["training.schedule_epochs"] == "1"
        for tag in ("git.commit", "git.dirty", "data.version", "data.files", "data.pinned", "lock", "edition"):
            assert child.data.tags[tag]
        for metric in ("loss/total", "learning_rate", "gradient_norm", "videos_per_second", "mAP/average"):
            assert metric in child.data.metrics
        assert any(metric.startswith("system/") for metric in child.data.metrics)
        artifacts = {item.path for item in found.list_artifacts(child.info.run_id)}
        assert artifacts >= {"checkpoint.pt", "model.pt", "params.yaml", "detections.json", "metrics.json"}


def test_page_and_mlflow_agree_to_the_last_digit(done):
    page = (done / "results/demo/tables/index.md").read_text()
    tables = {path.stem: path.read_text() for path in (done / "results/demo/tables").glob("*.csv")}
    for row, run in seeds_of(done).items():
        experiment = yaml.safe_load((CHECKOUT / f"params/experiments/{row}.yaml").read_text())
        for key in experiment["expect"]["published"]:
            value = run.data.metrics[f"mAP/{key}"]
            assert f"{value:.2f}" in page
            assert f",{value!r}," in tables[experiment["table"]]


def test_touching_and_rewriting_files_plans_nothing(done):
    for name in (THUMOS_ARCHIVE, "build/demo/thumos14/i3d.h5", "build/demo/thumos14/i3d.json", "data.dvc"):
        path = done / name
        os.utime(path)
        shutil.copy(path, f"{path}.copy")
        os.replace(f"{path}.copy", path)  # as `dvc checkout` does: same content, new inode
    assert (done / "build/demo/thumos14/i3d.h5").stat().st_size > 1_000_000
    assert_nothing_planned(done)


def test_raw_files_may_go_once_they_are_packed(done):
    path = done / THUMOS_ARCHIVE
    shutil.move(path, done / "elsewhere.zip")
    assert not planned(done, "Train")
    shutil.move(done / "elsewhere.zip", path)
    assert_nothing_planned(done)


def test_one_learning_rate_replans_one_row(done):
    path = done / "params/experiments/hacs_slowfast.yaml"
    before = path.read_text()
    path.write_text(before.replace("weight_decay: 0.03", "weight_decay: 0.02"))
    assert planned(done, "Train") == {"hacs_slowfast, seed 0"}
    assert not planned(done, "Pack")
    path.write_text(before)
    assert_nothing_planned(done)


def test_post_processing_params_replan_detection_but_not_training(done):
    path = done / "params/experiments/hacs_slowfast.yaml"
    before = path.read_text()
    path.write_text(before.replace("soft_nms_sigma: 0.75", "soft_nms_sigma: 0.7"))
    assert planned(done, "Train") == set()
    assert planned(done, "Detect with") == {"hacs_slowfast, seed 0"}
    path.write_text(before)
    assert_nothing_planned(done)


def test_other_features_replan_exactly_the_rows_that_use_them(done):
    path = done / HACS_ARCHIVE
    before = path.read_bytes()
    path.write_bytes(before[:-2] + (3).to_bytes(2, "little") + b"abc")  # a zip's comment
    assert planned(done, "Pack") == {"the slowfast features of hacs"}
    assert planned(done, "Train") == {"hacs_slowfast, seed 0"}
    path.write_bytes(before)
    assert_nothing_planned(done)


def test_a_flipped_byte_tags_exactly_the_rows_that_use_the_file(done):
    path = done / "data/demo/hacs/annotations/HACS_segments_v1.1.1.json"
    path.write_bytes(path.read_bytes().replace(b'"1.1.1"', b'"1.1.2"'))
    assert planned(done, "Train") == {"hacs_slowfast, seed 0"}
    snakemake(done)
    assert_nothing_planned(done)
    tags = {row: run.data.tags["data.pinned"] for row, run in seeds_of(done).items()}
    assert tags == {"hacs_slowfast": "false", "thumos14_i3d": "true"}
    assert "**no**" in (done / "results/demo/tables/hacs.md").read_text()
    assert "**no**" not in (done / "results/demo/tables/thumos14.md").read_text()


def test_a_deleted_mlflow_database_is_made_anew_from_the_run_folders(done):
    before = seeds_of(done)
    (done / "mlflow.db").unlink()
    assert planned(done, "Train") == set()
    snakemake(done)
    after = seeds_of(done)
    assert set(after) == set(before)
    for row in before:
        assert after[row].info.run_name == before[row].info.run_name
        assert after[row].data.metrics["mAP/average"] == before[row].data.metrics["mAP/average"]
        assert after[row].data.tags["data.files"] == before[row].data.tags["data.files"]
    assert_nothing_planned(done)


def test_a_terminated_training_goes_on_in_the_same_run(done):
    """SIGTERM in the middle; the next call gives the weights of an undisturbed run, and one MLflow run."""
    path = done / "params/editions/demo.yaml"
    path.write_text(path.read_text().replace("schedule_epochs: 1", "schedule_epochs: 6"))
    command = [f"{Path(sys.executable).parent}/actionformer", "train", "thumos14_i3d", "--params", "params"]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen([*command, "--seed", "7"], cwd=done, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/6"):
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    run_command(done, *command, "--seed", "7")
    run_command(done, "cp", "-r", "results/demo/thumos14_i3d/seed7", "resumed")
    shutil.rmtree(done / "results/demo/thumos14_i3d/seed7")
    run_command(done, *command, "--seed", "7")
    weights = [
        torch.load(folder / "model.pt", weights_only=True)["state_dict"]
        for folder in (done / "resumed", done / "results/demo/thumos14_i3d/seed7")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    run_id = json.loads((done / "resumed/lineage.json").read_text())["mlflow_run"]
    history = client(done).get_metric_history(run_id, "loss/total")
    assert [metric.step for metric in history] == list(range(6))


def test_the_paper_edition_plans_fourteen_rows_and_three_seeds(tmp_path):
    said = run_command(
        tmp_path,
        "snakemake",
        "--snakefile",
        f"{CHECKOUT}/Snakefile",
        "-n",
        "--cores",
        "all",
        "--config",
        "edition=paper",
    ).stdout
    assert len(set(re.findall(r"^Job \d+: Train (.*)$", said, re.M))) == 42
    assert len(set(re.findall(r"^Job \d+: Fetch (.*)$", said, re.M))) > 20


def test_help_of_every_command(tmp_path):
    said = run_command(tmp_path, sys.executable, "-m", "actionformer", "--help").stdout
    commands = ["demo-data", *re.findall(r"^    ([a-z-]+) ", said, re.M)]
    assert {"fetch", "convert", "pack", "audit", "train", "detect", "evaluate", "tabulate"} <= set(commands)
    for name in commands:
        assert "usage" in run_command(tmp_path, "actionformer", name, "--help").stdout


def test_an_own_data_set_needs_two_yaml_files_and_no_code(tmp_path):
    """docs/own-dataset.md, with its own example files, on synthetic recordings in SBHAR's form."""
    own = tmp_path / "sbhar"
    (own / "features").mkdir(parents=True)
    for path in (CHECKOUT / "docs/own-dataset").glob("*.yaml"):
        shutil.copy(path, own)
    experiment = own / "sbhar.yaml"
    short = experiment.read_text().replace("schedule_epochs: 40", "schedule_epochs: 6")
    experiment.write_text(short.replace("first_eval_epoch: 39", "first_eval_epoch: 5\n  warmup_epochs: 1"))
    rng = np.random.default_rng(0)
    database = {}
    for i in range(6):
        annotations = [
            {"segment": [8.0 + 12 * k, 14.0 + 12 * k], "label": f"activity {(i + k) % 12}"} for k in range(12)
        ]
        subset = "training" if i < 4 else "validation"
        database[f"r{i}"] = {"subset": subset, "duration": 160.0, "frame": 8000, "annotations": annotations}
        np.save(own / f"features/r{i}.npy", rng.standard_normal((319, 150)).astype(np.float32))
    (own / "annotations.json").write_text(json.dumps({"database": database}))
    command = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "--cores", "2", "--config"]
    config = ["experiment=sbhar/sbhar.yaml", "dataset=sbhar/sbhar-dataset.yaml", "seeds=[0,1]"]
    run_command(tmp_path, *command, *config)
    table = (tmp_path / "results/own/tables/sbhar.md").read_text()
    assert "± " in table  # two seeds
    assert "published" not in table
    assert "Nothing to be done" in run_command(tmp_path, *command, *config, "-n").stdout
    run_command(tmp_path, "actionformer", "train", "sbhar/sbhar.yaml", "--seed", "2")  # by the path in the file
    assert (tmp_path / "results/own/sbhar/seed2/model.pt").exists()
