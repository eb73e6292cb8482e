"""The workflow on two rows of one epoch: what runs, what runs again, what MLflow knows."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import requests
import torch
import yaml
from mlflow.tracking import MlflowClient

from actionformer import ActionFormer, detections, layout
from actionformer.commands.main import parser
from browser import draw_everything, opened, without_ink
from conftest import CHECKOUT, assert_same_tensors, environment, run_command
from project import shorten

ROWS = ["hacs_slowfast", "thumos14_i3d"]
THUMOS_ARCHIVE = "data/demo/thumos14/features/i3d_actionformer_stride4_thumos.zip"
HACS_ARCHIVE = "data/demo/hacs/features/slowfast101_15fps_stride8_len32_hacs.zip"


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
    shutil.copytree(CHECKOUT / "params", workspace / "params")
    shorten(workspace / "params")
    snakemake(workspace)
    return workspace


def client(folder: Path) -> MlflowClient:
    """A client of the database as it is now: MLflow keeps a deleted one open."""
    copy = folder / f"mlflow-{time.time_ns()}.db"
    shutil.copy(folder / "mlflow.db", copy)
    return MlflowClient(f"sqlite:///{copy}")


def seeds_of(folder: Path) -> dict[str, Any]:
    """Row -> the run in MLflow that its run folder stands for."""
    found = client(folder)
    experiments = [e.experiment_id for e in found.search_experiments()]
    runs = {}
    for row in ROWS:
        metrics = json.loads((folder / f"results/demo/{row}/seed0/metrics.json").read_text())
        name = f"{row}-seed0-{metrics['lineage']['identity'][:8]}"
        (runs[row],) = found.search_runs(
            experiments, f"tags.row = '{row}' and attributes.run_name = '{name}'"
        )
    return runs


# The tests below share one workspace and run in order: each leaves it up to date.


def test_a_second_call_does_nothing(done):
    assert_nothing_planned(done)


def test_tables_say_that_these_are_demo_numbers_and_where_they_come_from(done):
    page = (done / "results/demo/tables/index.md").read_text()
    assert "These are demo numbers" in page
    assert page.count("| difference | n/a | n/a |") == len(ROWS)
    for row in ROWS:
        lineage = json.loads((done / f"results/demo/{row}/seed0/metrics.json").read_text())[
            "lineage"
        ]
        assert lineage["pinned"]
        assert f"{row}-seed0-{lineage['identity'][:8]}" in page
    assert f"`{yaml.safe_load((done / 'data.dvc').read_text())['outs'][0]['md5']}`" in page


def test_the_report_shows_tables_and_every_figure_of_every_row(done):
    """In a browser, without an error and without any request; each row on its own."""
    with opened(done / "results/demo/report.html") as page:
        assert page.locator("section.results").count() == 2
        assert "These are demo numbers" in page.locator("body").inner_text()
        for row in ROWS:
            page.select_option("#row", row)
            assert draw_everything(page) == len(layout.FIGURES)
            assert without_ink(page) == []


def test_every_row_has_figures_a_model_card_and_tables_in_four_forms(done):
    for row in ROWS:
        for name in layout.FIGURES:
            for folder in (f"results/demo/{row}", f"results/demo/{row}/seed0"):
                assert (done / folder / f"figures/{name}.svg").read_text().startswith("<svg")
        _, header, card = (done / f"results/demo/{row}/README.md").read_text().split("---\n", 2)
        metrics = json.loads((done / f"results/demo/{row}/seed0/metrics.json").read_text())
        (result,) = yaml.safe_load(header)["model-index"][0]["results"]
        assert result["metrics"][0]["value"] == round(metrics["percent"]["mAP/average"], 2)
        for word in (
            metrics["lineage"]["data_version"],
            "synthetic",
            "These are demo numbers",
            *metrics["classes"],
        ):
            assert word in card
    for table in ("hacs", "thumos14"):
        for form in ("md", "csv", "tex", "html"):
            assert (done / f"results/demo/tables/{table}.{form}").exists()


@pytest.mark.parametrize("row", ROWS)
def test_the_program_of_a_model_card_runs_and_its_header_says_what_it_says(done, row):
    folder = done / f"results/demo/{row}"
    card = (folder / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", card, re.S)
    (dim,) = re.findall(r"shape \(steps, (\d+)\)", card)
    rng = np.random.default_rng(0)
    np.save(folder / "video.npy", rng.standard_normal((90, int(dim)), np.float32))
    said = run_command(folder, sys.executable, "-c", f"{program}\nprint(list(detections))").stdout
    assert said.strip() == "['video']"
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "apache-2.0"
    assert "(`apache-2.0`)" in card.split("---", 2)[2]
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert (folder / picture).exists(), picture


@pytest.mark.long
def test_values_on_the_command_line_have_a_run_of_their_own_that_tables_and_mlflow_tell_of(done):
    row = done / "results/demo/thumos14_i3d"
    before = {path: path.read_bytes() for path in row.rglob("*.pt")}
    config = ["rows=thumos14_i3d", "set=training.lr=0.01,data.videos=6"]
    command = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "--cores", "2", "--config"]
    said = run_command(done, *command, "params=params", *config)
    assert "Pack" not in said.stderr
    assert {path: path.read_bytes() for path in row.rglob("*.pt")} == before
    (other,) = row.parent.glob("thumos14_i3d-*")
    assert not (other / "seed0/mlflow-failed.txt").exists()
    departs = "training.lr: 0.002 -> 0.01"
    for form in ("md", "html", "csv"):
        table = (done / f"results/demo/tables/thumos14.{form}").read_text()
        assert departs in html.unescape(table)
        assert "data.videos: None -> 6" in html.unescape(table)
    assert departs in (other / "README.md").read_text()
    known = client(done)
    names = {model.name for model in known.search_registered_models()}
    assert f"demo-{other.name.replace('.', '_')}" in names
    assert (
        "Nothing to be done" in run_command(done, *command, "params=params", *config, "-n").stdout
    )
    snakemake(done)  # the tables are whole again
    assert_nothing_planned(done)


def test_snakemakes_own_report_has_captions_and_categories(done):
    snakemake(done, "--report", "report.zip")
    with zipfile.ZipFile(done / "report.zip") as archive:
        names = archive.namelist()
        shown = [name for name in names if "/raw/" not in name]
        text = " ".join(archive.read(name).decode(errors="replace") for name in shown)
    for category in ("Tables", "Figures", "Report"):
        assert f'"{category}"' in text
    # the caption of the false-positive profile
    assert text.count("as many as it has ground truth") == len(ROWS)
    pictures = [name for name in names if name.endswith(".svg") and "/raw/" in name]
    assert len(pictures) == len(ROWS) * len(layout.FIGURES)


def test_status_says_what_is_done_and_what_is_next(done):
    command = ["actionformer", "status", "--params", "params", "--rows", *ROWS]
    said = run_command(done, *command).stdout
    assert re.search(r"^hacs_slowfast +0  done +\d+\.\d\d +0:00:\d\d$", said, re.M)
    assert "2 done of 2" in said
    said = run_command(done, *command, "--seeds", "0", "1").stdout
    assert re.search(r"^thumos14_i3d +1  missing$", said, re.M)
    call = "snakemake --cores all --config rows=hacs_slowfast,thumos14_i3d seeds=0,1"
    assert f"next: train hacs_slowfast, seed 1 ({call})" in said
    paper = run_command(done, *command[:4], "--edition", "paper", "--rows", "thumos14_i3d").stdout
    assert re.search(r"thumos14_i3d +0  missing +\d\.\d h, by operations +at least 11.4 GB", paper)
    call = "snakemake --cores all --config edition=paper rows=thumos14_i3d"
    assert f"next: fetch for thumos14_i3d ({call})" in paper


def test_predicting_from_a_feature_file_is_detecting_without_a_database(done):
    """A test video by its frame rate and duration alone gives what `detect` wrote of it."""
    results = json.loads((done / "results/demo/thumos14_i3d/seed0/detections.json").read_text())[
        "results"
    ]
    video = max(results, key=lambda name: len(results[name]))
    facts = json.loads((done / "build/demo/thumos14/annotations.json").read_text())["database"][
        video
    ]
    with h5py.File(done / "build/demo/thumos14/i3d.h5") as store:
        np.save(done / f"{video}.npy", store["videos"][video][()])
    run_command(
        done,
        "actionformer",
        "predict",
        "--weights",
        "results/demo/thumos14_i3d/seed0/model.pt",
        "--features",
        f"{video}.npy",
        "--fps",
        str(facts["frame"] / facts["duration"]),
        "--stride",
        "4",
        "--duration",
        str(facts["duration"]),
        "--device",
        "cpu",
    )
    found = json.loads((done / "results/predictions/predictions.json").read_text())["results"][
        video
    ]
    best = min(50, len(found))
    # in another batch the last bits differ, and with them now and then a rounded digit
    assert abs(len(found) - len(results[video])) <= 0.02 * len(found)
    for ours, theirs in zip(found[:best], results[video][:best], strict=True):
        assert ours["label"] == theirs["label"]
        np.testing.assert_allclose(
            [*ours["segment"], ours["score"]], [*theirs["segment"], theirs["score"]], atol=0.011
        )


def test_mlflow_has_an_experiment_per_table_a_parent_per_row_and_a_child_per_seed(
    done, monkeypatch
):
    monkeypatch.chdir(done)  # addresses count from the folder of the project
    found = client(done)
    assert {e.name for e in found.search_experiments()} >= {"demo/hacs", "demo/thumos14"}
    for row, child in seeds_of(done).items():
        parent = found.get_run(child.data.tags["mlflow.parentRunId"])
        assert (parent.info.run_name, parent.data.tags["kind"]) == (row, "row")
        assert child.info.status == parent.info.status == "FINISHED"
        assert child.data.params["training.schedule_epochs"] == "1"
        for tag in (
            "git.commit",
            "git.dirty",
            "data.version",
            "data.files",
            "data.pinned",
            "lock",
            "edition",
        ):
            assert child.data.tags[tag]
        for metric in (
            "loss/total",
            "learning_rate",
            "gradient_norm",
            "videos_per_second",
            "mAP/average",
        ):
            assert metric in child.data.metrics
        assert any(metric.startswith("system/") for metric in child.data.metrics)

        def artifacts(run, folder=None):
            return {Path(item.path).name for item in found.list_artifacts(run.info.run_id, folder)}

        assert artifacts(child) >= {
            "model.pt",
            "params.yaml",
            "detections.json",
            "metrics.json",
            "figures",
        }
        assert artifacts(child, "figures") == {f"{name}.svg" for name in layout.FIGURES}
        assert artifacts(parent) == {"figures", "tables"}
        tables = {Path(name).suffix for name in artifacts(parent, "tables")}
        assert tables == {".md", ".csv", ".tex", ".html"}
        # which seed, which data, which commit: read where runs are compared
        for tag in ("data.version", "git.commit", "protocol", "loading"):
            assert parent.data.tags[tag] == child.data.tags[tag]
            assert child.data.tags[tag][:12] in child.data.tags["mlflow.note.content"]
        said = run_command(done, "actionformer", "runs").stdout
        assert f"/#/experiments/{child.info.experiment_id}/runs?searchFilter=tags.kind" in said
        assert child.info.run_id in said


def test_mlflows_comparison_opens_on_the_average_map(done):
    """It shows the metric that a run has logged first."""
    for run in seeds_of(done).values():
        assert next(iter(run.data.metrics)) == "mAP/average"
        assert run.data.metrics["mAP/average"] > 0


def test_mlflow_names_the_data_sets_that_a_run_has_read(done):
    run = seeds_of(done)["thumos14_i3d"]
    found = {(i.dataset.name, i.tags[0].value): i.dataset for i in run.inputs.dataset_inputs}
    assert set(found) == {
        ("THUMOS-14, i3d, training", "train"),
        ("THUMOS-14, i3d, validation", "eval"),
    }
    for dataset in found.values():
        assert dataset.digest == run.data.tags["data.version"]
        assert json.loads(dataset.source)["files"] == json.loads(run.data.tags["data.files"])


def test_the_trained_network_is_a_registered_model_whose_weights_are_the_runs(done):
    """Stored once: the model's file is a link to the run's; its description is the row's card."""
    known = client(done)
    for row, run in seeds_of(done).items():
        (version,) = known.search_model_versions(f"name = 'demo-{row}'")
        assert version.run_id == run.info.run_id
        model = known.get_logged_model(version.source.removeprefix("models:/"))
        assert model.artifact_location.startswith("mlruns/")
        weights = done / f"results/demo/{row}/seed0/model.pt"
        stored = done / model.artifact_location / "data/model.pt"
        assert stored.samefile(weights)
        described = known.get_registered_model(f"demo-{row}").description
        assert described.startswith("# ActionFormer on ")


def test_the_model_is_served_and_says_what_predict_says(done):
    """By `mlflow models serve`, from the folder of the project."""
    known = client(done)
    (version,) = known.search_model_versions("name = 'demo-thumos14_i3d'")
    model = f"models:/demo-thumos14_i3d/{version.version}"
    # the folder has a space in its name
    variables = environment(MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    port = str(free_port())
    served = subprocess.Popen(
        ["mlflow", "models", "serve", "-m", model, "-p", port, "--env-manager", "local"],
        cwd=done,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        features_TC = np.random.default_rng(0).standard_normal((60, 48), np.float32)
        question = {"inputs": features_TC.tolist(), "params": {"fps": 25.0}}
        answer = asked(f"http://127.0.0.1:{port}/invocations", question)
        unsaid = {"inputs": features_TC.tolist(), "params": {}}
        refused = asked(f"http://127.0.0.1:{port}/invocations", unsaid)
    finally:
        os.killpg(served.pid, signal.SIGKILL)
        served.wait(60)
    model = ActionFormer.from_pretrained(done / "results/demo/thumos14_i3d/seed0")
    expected = detections({"x": model.predict(features_TC, fps=25)}).drop(columns="video")
    assert len(expected)
    assert "frames per second" in refused["message"]
    found = pd.DataFrame(answer["predictions"])
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected, rtol=1e-5)


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def asked(address: str, question: dict[str, Any]) -> dict[str, Any]:
    """What a server answers, once it does."""
    for _ in range(120):
        try:
            return dict(requests.post(address, json=question, timeout=60).json())
        except requests.ConnectionError:
            time.sleep(1)
    raise AssertionError(f"{address}: no answer")


def test_every_filter_of_the_docs_is_one_that_mlflow_takes(done):
    found = client(done)
    experiments = [e.experiment_id for e in found.search_experiments()]
    cells = re.findall(
        r"\| `((?:tags|attributes|metrics)\..*)` \|$",
        (CHECKOUT / "docs/mlflow.md").read_text(),
        re.M,
    )
    assert len(cells) > 15
    counts = {text: len(found.search_runs(experiments, text)) for text in cells}
    assert counts["tags.kind = 'seed' and tags.evaluated = 'true'"] >= len(ROWS)
    assert counts["tags.row = 'hacs_slowfast' and tags.kind = 'seed'"] == 1


def test_a_published_checkpoint_is_a_line_of_the_table_and_a_run_of_its_own(done):
    """THUMOS has one in the demo, HACS has none."""
    page = (done / "results/demo/tables/index.md").read_text()
    assert page.count("| demo checkpoint |") == 1
    metrics = json.loads((done / "results/demo/thumos14_i3d/released/metrics.json").read_text())
    found = client(done)
    experiments = [e.experiment_id for e in found.search_experiments()]
    (run,) = found.search_runs(experiments, "tags.kind = 'released'")
    assert run.info.run_name == f"thumos14_i3d-released-{metrics['lineage']['identity'][:8]}"
    assert run.info.run_name in page
    assert run.data.metrics == metrics["percent"]
    parent = found.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.metrics["released/mAP/average"] == metrics["percent"]["mAP/average"]
    assert parent.data.metrics["mAP/average"] != metrics["percent"]["mAP/average"]
    without = run_command(
        done,
        "actionformer",
        "tabulate",
        "--params",
        "params",
        "--rows",
        "thumos14_i3d",
        "--no-released",
    )
    assert "checkpoint" not in without.stdout
    (done / "results/demo/tables/thumos14.md").unlink()
    snakemake(done)
    assert_nothing_planned(done)


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
    for name in (
        THUMOS_ARCHIVE,
        "build/demo/thumos14/i3d.h5",
        "build/demo/thumos14/i3d.json",
        "data.dvc",
    ):
        path = done / name
        os.utime(path)
        shutil.copy(path, f"{path}.copy")
        os.replace(f"{path}.copy", path)  # as `dvc checkout` does: same content, new inode
    assert (done / "build/demo/thumos14/i3d.h5").stat().st_size > 1_000_000
    for name in (
        "src/actionformer/stages/train.py",
        "src/actionformer/model/head.py",
        "environment.yml",
    ):
        os.utime(CHECKOUT / name)  # an edited library
    assert_nothing_planned(done)


def test_raw_files_may_go_once_they_are_packed(done):
    path = done / THUMOS_ARCHIVE
    shutil.move(path, done / "elsewhere.zip")
    assert not planned(done, "Train")
    shutil.move(done / "elsewhere.zip", path)
    assert_nothing_planned(done)


def test_one_learning_rate_replans_one_row(done):
    path = done / "params/editions/demo.yaml"
    before = path.read_text()
    edition = yaml.safe_load(before)
    edition["experiments"]["hacs_slowfast"]["training"] = {"lr": 0.001}
    path.write_text(yaml.safe_dump(edition))
    assert planned(done, "Train") == {"hacs_slowfast, seed 0"}
    assert not planned(done, "Pack")
    path.write_text(before)
    assert_nothing_planned(done)


def test_other_spellings_of_the_same_paths_plan_nothing(done):
    command = [
        "snakemake",
        "-n",
        "--snakefile",
        f"{CHECKOUT}/Snakefile",
        "--config",
        f"params={done}/params",
    ]
    said = run_command(done, *command, f"rows={','.join(ROWS)}").stdout
    assert "Nothing to be done" in said


@pytest.mark.long
def test_post_processing_params_replan_detection_and_become_a_run_of_their_own(done):
    path = done / "params/experiments/hacs_slowfast.yaml"
    before, first = path.read_text(), seeds_of(done)["hacs_slowfast"]
    path.write_text(before.replace("soft_nms_sigma: 0.75", "soft_nms_sigma: 0.5"))
    assert planned(done, "Train") == set()
    assert planned(done, "Detect with") == {"hacs_slowfast, seed 0"}
    snakemake(done)
    second = seeds_of(done)["hacs_slowfast"]
    assert second.info.run_id != first.info.run_id
    assert second.data.params["inference.soft_nms_sigma"] == "0.5"
    assert second.data.metrics["loss/total"] == first.data.metrics["loss/total"]
    assert second.info.run_name in (done / "results/demo/tables/hacs.md").read_text()
    path.write_text(before)
    snakemake(done)
    assert first.info.run_name in (done / "results/demo/tables/hacs.md").read_text()
    assert_nothing_planned(done)


@pytest.mark.long
def test_a_changed_classifier_replans_detection_and_its_row_is_tagged(done):
    path = done / "data/demo/hacs/classifiers/validation94.32.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"class"', b'"class" ', 1))
    assert planned(done, "Train") == set()
    snakemake(done)
    assert "**no**" in (done / "results/demo/tables/hacs.md").read_text()
    path.write_bytes(before)
    snakemake(done)
    assert "**no**" not in (done / "results/demo/tables/hacs.md").read_text()
    assert_nothing_planned(done)


def test_other_features_replan_exactly_the_rows_that_use_them(done):
    path = done / HACS_ARCHIVE
    before = path.read_bytes()
    path.write_bytes(before[:-2] + (3).to_bytes(2, "little") + b"abc")  # a zip's comment
    assert planned(done, "Pack") == {"the slowfast features of hacs"}
    assert planned(done, "Train") == {"hacs_slowfast, seed 0"}
    path.write_bytes(before)
    assert_nothing_planned(done)


@pytest.mark.long
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


def mark_as_unfinished(folder: Path, path: str, content: str = "") -> None:
    """What Snakemake leaves where it or its job was killed; of a job of a cluster, its number."""
    name = base64.urlsafe_b64encode(path.encode()).decode()
    mark = folder / ".snakemake/incomplete" / name
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(content)


def test_after_a_kill_the_next_call_makes_all_that_is_missing_and_refuses_nothing(done):
    """Files that others read as `ancient()`, too: with Snakemake's marks those alone were made."""
    audit = "build/demo/audit/thumos14_i3d.json"
    store = "build/demo/thumos14/i3d.h5"
    for path in (audit, store, "results/demo/thumos14_i3d/seed0/model.pt"):
        mark_as_unfinished(done, path)
    assert_nothing_planned(done)
    for path in (audit, store):
        mark_as_unfinished(done, path, '{"external_jobid": "4711"}')
    page = done / "results/demo/tables/index.md"
    page.rename(page.with_suffix(".away"))
    said = snakemake(done, "-n").stdout
    page.with_suffix(".away").rename(page)
    assert "Put all tables on one page" in said
    assert "Audit" not in said
    assert_nothing_planned(done)


@pytest.fixture(scope="module")
def undisturbed(done: Path) -> dict[str, torch.Tensor]:
    """Weights of eight epochs of THUMOS with seed 7, trained in one go."""
    path = done / "params/editions/demo.yaml"
    path.write_text(path.read_text().replace("schedule_epochs: 1", "schedule_epochs: 8"))
    run_command(done, "actionformer", "train", "thumos14_i3d", "--params", "params", "--seed", "7")
    run = done / "results/demo/thumos14_i3d/seed7"
    weights = torch.load(run / "model.pt", weights_only=True)["state_dict"]
    shutil.rmtree(run)
    return weights


def cut(
    folder: Path,
    command: list[str],
    log: Path | None,
    stop: signal.Signals,
    *,
    alone: bool = False,
) -> int:
    """Start a command in a process group of its own; signal the group after its second epoch.

    Args:
        alone: only the process itself, and not those that it has started.
    """
    with (folder / "cut.log").open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdout=out,
            stderr=out,
            start_new_session=True,
            text=True,
            # what a shell starts in the background ignores Ctrl-C, and so would its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        seen = log or folder / "cut.log"
        for _ in range(600):
            if seen.exists() and "epoch 2/8" in seen.read_text():
                break
            time.sleep(0.1)
        if alone:
            process.send_signal(stop)
            # some seconds until jobs are interrupted, too, and the time that they take to end
            return process.wait(30)
        os.killpg(process.pid, stop)
        return process.wait(60)


def assert_went_on(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    """Seed 7 of THUMOS has the expected weights, and one MLflow run with every epoch once."""
    run = folder / "results/demo/thumos14_i3d/seed7"
    weights = torch.load(run / "model.pt", weights_only=True)["state_dict"]
    assert_same_tensors(weights, expected)
    run_id = json.loads((run / "lineage.json").read_text())["mlflow_run"]
    history = client(folder).get_metric_history(run_id, "loss/total")
    assert [metric.step for metric in history] == list(range(8))
    shutil.rmtree(run)


@pytest.mark.long
def test_a_terminated_command_goes_on_in_the_same_run_to_the_same_weights(done, undisturbed):
    command = ["actionformer", "train", "thumos14_i3d", "--params", "params", "--seed", "7"]
    assert cut(done, command, None, signal.SIGTERM) == 143
    run_command(done, *command)
    assert_went_on(done, undisturbed)


@pytest.mark.parametrize(
    ("stop", "alone"),
    [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGKILL, False)],
    ids=["Ctrl-C", "SIGINT to Snakemake alone", "kill -9"],
)
@pytest.mark.long
def test_an_interrupted_workflow_goes_on_from_its_last_epoch(done, undisturbed, stop, alone):
    """After Ctrl-C the same command; after kill -9 what `make resume` runs."""
    command = [
        "snakemake",
        "--snakefile",
        f"{CHECKOUT}/Snakefile",
        "--cores",
        "2",
    ]
    target = "results/demo/thumos14_i3d/seed7/model.pt"
    config = [target, "--config", "params=params", "rows=thumos14_i3d", "seeds=7"]
    log = done / "results/demo/logs/train/thumos14_i3d-seed7.log"
    log.unlink(missing_ok=True)
    assert cut(done, [*command, *config], log, stop, alone=alone) != 0
    assert (done / "results/demo/thumos14_i3d/seed7/checkpoint.pt").exists()
    assert not (done / "results/demo/thumos14_i3d/seed7/model.pt").exists()
    if stop == signal.SIGKILL:
        run_command(
            done, "snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "--unlock", *config[1:]
        )
    run_command(done, *command, *config)
    assert_went_on(done, undisturbed)


def test_dvc_pull_restores_the_demo_data_on_a_fresh_clone(tmp_path):
    run_command(tmp_path, "git", "clone", "--quiet", str(CHECKOUT), "clone")
    clone = tmp_path / "clone"
    run_command(clone, "dvc", "pull", "--quiet")
    assert len([path for path in (clone / "data/demo").rglob("*") if path.is_file()]) == 45
    assert "up to date" in run_command(clone, "dvc", "status").stdout


@pytest.mark.long
def test_files_fetched_in_one_call_are_up_to_date_in_the_next(tmp_path, demo_data):
    """Files come from a lab's mirror, here a folder: their md5s are not known before."""
    shutil.copytree(CHECKOUT / "params", tmp_path / "params")
    shorten(tmp_path / "params")
    edition = yaml.safe_load((tmp_path / "params/editions/demo.yaml").read_text()) | {
        "origin": "publisher"
    }
    edition["datasets"]["thumos14"]["files"] = {"annotations/video_info.csv": {}}
    (tmp_path / "params/editions/mirrored.yaml").write_text(yaml.safe_dump(edition))
    command = [
        "snakemake",
        "--snakefile",
        f"{CHECKOUT}/Snakefile",
        "--cores",
        "2",
        "--config",
        "edition=mirrored",
    ]
    config = ["params=params", "rows=[thumos14_i3d]", f"mirror={demo_data}"]
    run_command(tmp_path, *command, *config)
    assert (tmp_path / "results/mirrored/tables/thumos14.md").exists()
    recorded = json.loads((tmp_path / "data/mirrored/thumos14/checksums.json").read_text())
    assert {entry["source"].split()[1] for entry in recorded.values()} == {str(demo_data)}
    assert "Nothing to be done" in run_command(tmp_path, *command, *config, "-n").stdout
    # where from is no matter
    assert "Nothing to be done" in run_command(tmp_path, *command, *config[:2], "-n").stdout
    (tmp_path / "data/mirrored/thumos14/annotations/video_info.csv").unlink()
    assert "Train" not in run_command(tmp_path, *command, *config, "-n").stdout


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
    assert len(set(re.findall(r"^Job \d+: Draw the videos of (.*) anew$", said, re.M))) == 14
    fetched = set(re.findall(r"^Job \d+: Fetch (.*)$", said, re.M))
    assert len({name for name in fetched if "/checkpoints/" in name}) == 13  # two rows share one
    assert len(fetched) > 30
    assert (
        len(set(re.findall(r"^Job \d+: Evaluate the released checkpoint of (.*)$", said, re.M)))
        == 14
    )


def test_an_own_experiment_on_a_published_data_set_fetches_the_publishers_files(tmp_path):
    (tmp_path / "wider.yaml").write_text(
        "data: {dataset: thumos14, features: i3d}\nmodel: {channels: 768}\n"
    )
    command = [
        "snakemake",
        "--snakefile",
        f"{CHECKOUT}/Snakefile",
        "-n",
        "--config",
        "experiment=wider.yaml",
    ]
    said = run_command(tmp_path, *command).stdout
    assert "Fetch thumos14/features/i3d_actionformer_stride4_thumos.zip" in said
    assert "Train wider, seed 0" in said


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("row=thumos14_i3d", "unknown key row; there are edition"),
        ("seeds=abc", "seeds=abc: expected numbers"),
        ("seeds=²", "seeds=²: expected numbers"),
        ("rows=5", "no experiment '5'"),
        ("experiment=5", "experiment=5 is no YAML file"),
        ("experiment=a;touch.yaml", "expected letters, digits"),
        ("edition=../x", "expected letters, digits"),
        ("released=no way", "released=no way: expected true or false"),
        ("gpu_slots=0", "gpu_slots=0: expected a whole number from 1 on"),
        ("rows=thumos15", "no experiment 'thumos15'"),
        ("dataset=thumos14", "dataset= goes with experiment="),
        ("experiment=thumos14_i3d", "is no YAML file"),
    ],
)
def test_a_mistyped_config_is_said_in_one_clear_line(tmp_path, config, words):
    command = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "-n", "--config", config]
    done = run_command(tmp_path, *command, check=False)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize("given", ["rows=thumos14_i3d", "edition=paper"])
def test_a_row_of_ours_beside_an_experiment_of_ones_own_is_refused(tmp_path, given):
    """It would be left out without a word."""
    config = ["experiment=my.yaml", given]
    command = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "-n", "--config", *config]
    done = run_command(tmp_path, *command, check=False)
    assert done.returncode != 0
    key = given.partition("=")[0]
    assert f"{key}= and experiment= exclude each other" in done.stdout + done.stderr


def test_every_command_of_a_rule_is_one_that_the_program_takes(tmp_path):
    """With options that a call hands on to jobs: no rule gives a command what it does not know."""
    config = ["rows=[thumos14_i3d,epic_noun_slowfast,epic_verb_slowfast]", "gpu_slots=2"]
    command = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "-n", "-p", "--config", *config]
    said = run_command(tmp_path, *command).stdout
    called = re.findall(r"&& (?:\{ )?actionformer (.*?) (?:\|\||>>)", said)
    for arguments in called:
        parser().parse_args(shlex.split(arguments))
    names = {arguments.split()[0] for arguments in called}
    assert {"train", "detect", "evaluate", "actions", "evaluate-released", "tabulate"} <= names
    on_gpu = {arguments.split()[0] for arguments in called if "--gpu-slots 2" in arguments}
    assert on_gpu == {"train", "detect", "actions", "evaluate-released"}


def test_help_of_every_command(tmp_path, capsys):
    said = run_command(tmp_path, sys.executable, "-m", "actionformer", "--help").stdout
    commands = ["demo-data", *re.findall(r"^    ([a-z-]+) ", said, re.M)]
    assert {"fetch", "convert", "pack", "audit", "train", "detect", "evaluate", "tabulate"} <= set(
        commands
    )
    for name in commands:
        with pytest.raises(SystemExit, match="0"):
            parser().parse_args([name, "--help"])
        assert f"usage: actionformer {name} " in capsys.readouterr().out


def test_jobs_that_wait_are_looked_at_only_when_one_ends(tree):
    """Snakemake alone looks at them once more a second with every look."""
    looks, jobs = looks_at_jobs(tree)
    assert jobs <= looks <= jobs + 1


def test_a_limit_of_jobs_a_second_that_was_asked_for_is_kept(tree):
    looks, jobs = looks_at_jobs(tree, "--max-jobs-per-timespan", "1/1s")
    assert looks > jobs + 1


def looks_at_jobs(tree: Path, *options: str) -> tuple[int, int]:
    """How often Snakemake looked for a job to start, and how many it started, one at a time."""
    shutil.copy(CHECKOUT / "data.dvc", tree)
    rows = "rows=[activitynet_tsp,thumos14_i3d,hacs_slowfast,multithumos_i3d]"
    said = run_command(
        tree,
        *("snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "--cores", "1", "--verbose"),
        *("--until", "convert", "pack", *options, "--config", rows),
    ).stderr
    return said.count("Ready jobs: "), len(re.findall(r"Finished jobid: ", said))


def test_sigterm_while_jobs_are_chosen_ends_the_call(tree):
    """Snakemake alone would wait for itself: its answer takes a lock that is held meanwhile."""
    shutil.copy(CHECKOUT / "data.dvc", tree)
    solver, asked, answer = slow_solver(tree / "solver")
    variables = environment()
    variables["PATH"] = f"{solver.parent}:{variables['PATH']}"
    process = subprocess.Popen(
        [
            *("snakemake", "--snakefile", CHECKOUT / "Snakefile", "--cores", "1"),
            *("--scheduler-ilp-solver", "COIN_CMD", "build/demo/thumos14/annotations.json"),
        ],
        cwd=tree,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not asked.exists():
            assert process.poll() is None, "the solver was never asked"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        answer.touch()
        process.wait(timeout=60)
    finally:
        answer.touch()
        process.kill()
    assert process.returncode != 0


def slow_solver(folder: Path) -> tuple[Path, Path, Path]:
    """A solver that writes one file when it is asked, and answers once another is there."""
    solver, asked, answer = folder / "cbc", folder / "asked", folder / "answer"
    folder.mkdir()
    solver.write_text(f"""#!/bin/sh
touch "{asked}"
while [ ! -e "{answer}" ]; do sleep 0.1; done
exit 1
""")
    solver.chmod(0o755)
    return solver, asked, answer


def test_a_call_that_fails_brings_what_it_has_computed_to_a_server_all_the_same(tree):
    shutil.copy(CHECKOUT / "data.dvc", tree)
    (tree / THUMOS_ARCHIVE).write_bytes(b"no archive")
    variables = environment(MLFLOW_TRACKING_URI=f"sqlite:///{tree}/elsewhere.db")
    done = subprocess.run(
        [
            *("snakemake", "--snakefile", CHECKOUT / "Snakefile", "--cores", "2"),
            *("--config", "rows=thumos14_i3d", "released=false"),
        ],
        cwd=tree,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "0 runs brought into MLflow" in done.stdout
