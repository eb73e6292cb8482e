"""A data set of one's own: two YAML files, no code, and nothing shared by chance."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from actionformer import layout
from actionformer.commands.main import main
from actionformer.params.dataset import folder_name
from actionformer.params.files import load_experiment
from conftest import CHECKOUT, run_command


def test_an_own_data_set_needs_two_yaml_files_and_no_code(tmp_path):
    """docs/own-dataset.md, with its own example files, on synthetic recordings in SBHAR's form."""
    own = tmp_path / "sbhar"
    (own / "features").mkdir(parents=True)
    for path in (CHECKOUT / "docs/own-dataset").glob("*.yaml"):
        shutil.copy(path, own)
    experiment = own / "sbhar.yaml"
    short = experiment.read_text().replace(
        "schedule_epochs: 40", "threads: 1\n  schedule_epochs: 6"
    )
    short = short.replace("channels: 128", "channels: 16")
    experiment.write_text(
        short.replace("first_eval_epoch: 39", "first_eval_epoch: 5\n  warmup_epochs: 1")
    )
    rng = np.random.default_rng(0)
    database = {}
    for i in range(6):
        annotations = []
        for k in range(12):
            segment = [8.0 + 12 * k, 14.0 + 12 * k]
            annotations.append({"segment": segment, "label": f"activity {(i + k) % 12}"})
        subset = "training" if i < 4 else "validation"
        database[f"r{i}"] = {
            "subset": subset,
            "duration": 160.0,
            "frame": 8000,
            "annotations": annotations,
        }
        np.save(own / f"features/r{i}.npy", rng.standard_normal((319, 150)).astype(np.float32))
    (own / "annotations.json").write_text(json.dumps({"database": database}))
    named = experiment.read_text()
    # --config has the last word
    experiment.write_text(named.replace("dataset: sbhar-dataset.yaml", "dataset: thumos14"))
    command = ["snakemake", "--snakefile", f"{CHECKOUT}/Snakefile", "--cores", "2", "--config"]
    config = ["experiment=sbhar/sbhar.yaml", "dataset=sbhar/sbhar-dataset.yaml", "seeds=[0,1]"]
    run_command(tmp_path, *command, *config)
    table = (tmp_path / "results/own/tables/sbhar.md").read_text()
    assert "± " in table  # two seeds
    report = (tmp_path / "results/own/report.html").read_text()
    assert "0 1; timelines are of the first, all else means" in report
    for seed in (0, 1):
        assert (tmp_path / f"results/own/sbhar/seed{seed}/figures/loss.svg").exists()
    assert "| published |" not in table
    assert "Nothing to be done" in run_command(tmp_path, *command, *config, "-n").stdout
    experiment.write_text(named)
    # by the path in the file
    run_command(tmp_path, "actionformer", "train", "sbhar/sbhar.yaml", "--seed", "2")
    assert (tmp_path / "results/own/sbhar/seed2/model.pt").exists()
    # what is next of another seed is a call that trains it, and nothing else
    rows = ["--rows", "sbhar/sbhar.yaml", "--seeds", "5"]
    said = run_command(tmp_path, "actionformer", "status", *rows).stdout
    (call,) = re.findall(r"^next: train sbhar, seed 5 \((.*)\)$", said, re.M)
    assert call == "snakemake --cores all --config experiment=sbhar/sbhar.yaml seeds=5"
    snakefile = ["--snakefile", f"{CHECKOUT}/Snakefile", "-n"]
    dry = run_command(tmp_path, *shlex.split(call), *snakefile).stdout
    assert re.findall(r"^Job \d+: Train (.*)$", dry, re.M) == ["sbhar, seed 5"]


def write_own(folder: Path, label: str) -> None:
    """A data set with one video per subset, and an experiment on it."""
    (folder / "features").mkdir(parents=True)
    database = {}
    for subset in ("training", "validation"):
        annotations = [{"segment": [1.0, 4.0], "label": label}]
        database[subset] = {"subset": subset, "duration": 9.0, "frame": 90}
        database[subset]["annotations"] = annotations
        np.save(folder / f"features/{subset}.npy", np.ones((8, 4), np.float32))
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    (folder / "dataset.yaml").write_text(
        "name: Own\nannotations: [annotations.json]\nnum_classes: 1\nfeatures:\n"
        "  some: {file: features, dim: 4, stride_frames: 10, offset_frames: 5}\n"
    )
    (folder / "own.yaml").write_text("data: {dataset: dataset.yaml, features: some}\n")


def test_two_data_sets_whose_files_are_called_alike_share_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = {}
    for name in ("first", "second"):
        write_own(tmp_path / name, label=f"of the {name}")
        assert main(["convert", f"{name}/dataset.yaml"]) == 0
        assert main(["pack", f"{name}/dataset.yaml", "some"]) == 0
    for name in ("first", "second"):
        experiment = load_experiment(f"{name}/own.yaml")
        database = json.loads(layout.database_of(experiment).read_text())["database"]
        labels[name] = database["training"]["annotations"][0]["label"]
        assert layout.store_of(experiment).exists()
    assert labels == {"first": "of the first", "second": "of the second"}


@pytest.mark.parametrize(
    "spelling", ["own/d.yaml", "./own/d.yaml", "own/../own/d.yaml", "{here}/own/d.yaml"]
)
def test_the_folder_of_a_data_set_depends_on_no_spelling_of_its_path(
    tmp_path, monkeypatch, spelling
):
    monkeypatch.chdir(tmp_path)
    assert folder_name(spelling.format(here=tmp_path)) == folder_name("own/d.yaml")


def test_the_folder_of_a_data_set_moves_with_the_checkout(tmp_path, monkeypatch):
    names = set()
    for checkout in ("here", "there"):
        (tmp_path / checkout).mkdir()
        monkeypatch.chdir(tmp_path / checkout)
        names.add(folder_name("own/d.yaml"))
    assert len(names) == 1
