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
from actionformer.data.features import FeatureStore
from actionformer.params.dataset import folder_name
from actionformer.params.files import load_experiment
from conftest import CHECKOUT, contents, run_command


@pytest.mark.long
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
    # nothing is reproduced, and the files are in no version of data/
    assert "| here |" in table
    assert "| `own files` | – |" in table
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


# ----------------------------------------------------------------- what is wrong, and what mends it


def audited(folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """What an audit of the data set in a folder says on stderr; nothing if all is well."""
    assert main(["convert", f"{folder.name}/dataset.yaml"]) == 0
    code = main(["pack", f"{folder.name}/dataset.yaml", "some"])
    code = code or main(["audit", f"{folder.name}/own.yaml"])
    said = capfd.readouterr().err
    assert bool(code) == bool(said)
    assert said.count("\n") <= 1
    return said


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a data set of one's own; the current folder is the one that holds it."""
    monkeypatch.chdir(tmp_path)
    write_own(tmp_path / "own", "run")
    return tmp_path / "own"


def set_in(folder: Path, value: str) -> None:
    """Set a value of the feature set in the data set's YAML."""
    path = folder / "dataset.yaml"
    path.write_text(path.read_text().replace("{file: features", f"{{{value}, file: features"))


def test_names_that_do_not_fit_are_shown_with_what_would_make_them_fit(own, capfd):
    for path in (own / "features").glob("*.npy"):
        path.rename(path.with_name(f"v_{path.stem}_rgb.npy"))
    said = audited(own, capfd)
    assert "videos are called training, validation" in said
    assert "features v_training_rgb, v_validation_rgb" in said
    assert "`prefix: v_, suffix: _rgb` in the params of the feature set would fit 2" in said
    set_in(own, "prefix: v_, suffix: _rgb")
    assert audited(own, capfd) == ""


def test_a_misspelt_label_is_named_where_there_are_too_many(own, capfd):
    path = own / "annotations.json"
    content = json.loads(path.read_text())
    training = content["database"]["training"]["annotations"]
    training += [{"segment": [5.0, 6.0], "label": "rnu"}, {"segment": [7.0, 8.0], "label": "run"}]
    path.write_text(json.dumps(content))
    said = audited(own, capfd)
    assert "2 classes, params say 1; the labels with the fewest instances: 'rnu' (1)" in said


def test_arrays_of_channels_and_steps_name_the_param_that_reads_them(own, capfd):
    for path in (own / "features").glob("*.npy"):
        np.save(path, np.load(path).T)
    said = audited(own, capfd)
    assert "shape (4, 8), expected (steps, 4): `transposed: true` in the params" in said
    set_in(own, "transposed: true")
    assert audited(own, capfd) == ""


def test_arrays_of_a_batch_of_one_are_read(own, capfd):
    for path in (own / "features").glob("*.npy"):
        np.save(path, np.load(path)[None])
    assert audited(own, capfd) == ""


@pytest.mark.parametrize("transposed", [False, True])
def test_several_arrays_name_the_param_that_puts_them_side_by_side(own, capfd, transposed):
    expected = {}
    for path in (own / "features").glob("*.npy"):
        rgb, flow = np.full((8, 3), 1.0, np.float32), np.full((8, 1), 2.0, np.float32)
        expected[path.stem] = np.concatenate([rgb, flow], axis=1)
        arrays = {"rgb": rgb.T if transposed else rgb, "flow": flow.T if transposed else flow}
        path.unlink()
        np.savez(path.with_suffix(".npz"), **arrays)
    said = audited(own, capfd)
    assert "`arrays: [flow, rgb]` in the params of the feature set puts them side by side" in said
    set_in(own, f"arrays: [rgb, flow], transposed: {str(transposed).lower()}")
    assert audited(own, capfd) == ""
    store = FeatureStore(layout.store_of(load_experiment("own/own.yaml")))
    for video, array_TC in expected.items():
        np.testing.assert_array_equal(store[video], array_TC)


def test_a_path_that_is_wrong_is_not_something_to_pull(own, capfd):
    (own / "features").rename(own / "elsewhere")
    said = audited(own, capfd)
    assert "features: no such file; check the path" in said
    assert "dvc" not in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clip.mp4", "a video; what is read are features"),
        ("p.pkl", "pickled, which can run code and is not read"),
        ("notes.docx", "not features that are read here; expected npy, npz, pt or h5"),
        ("cut.zip", "corrupt or truncated archive"),
    ],
)
def test_what_is_no_feature_file_is_called_by_what_it_is(own, capfd, name, words):
    (own / name).write_bytes(b"\x00\x01" * 600)
    text = (own / "dataset.yaml").read_text()
    (own / "dataset.yaml").write_text(text.replace("file: features", f"file: {name}"))
    assert words in audited(own, capfd)


# ------------------------------------------------------------------------------------------- init


def test_init_writes_two_files_that_are_read_and_run(tmp_path, monkeypatch, capsys):
    """A prefix, several arrays per video, no frames: all of it is seen."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    write_own(folder, "run")
    for path in ("dataset.yaml", "own.yaml"):
        (folder / path).unlink()
    annotations = folder / "annotations.json"
    content = json.loads(annotations.read_text())
    for video in content["database"].values():
        del video["frame"]
    annotations.write_text(json.dumps(content))
    for path in (folder / "features").glob("*.npy"):
        steps = 9 if path.stem == "training" else 12
        arrays = {"rgb": np.ones((steps, 4), np.float32), "flow": np.ones((steps, 2), np.float32)}
        np.savez(path.with_name(f"v_{path.stem}.npz"), **arrays)
        path.unlink()
    content["database"]["validation"]["duration"] = 12.0
    annotations.write_text(json.dumps(content))
    assert main(["init", "mine"]) == 0
    assert "snakemake --cores all --config experiment=mine/mine.yaml" in capsys.readouterr().out
    features = load_experiment("mine/mine.yaml").features
    assert (features.dim, features.prefix, features.arrays) == (6, "v_", ("flow", "rgb"))
    assert (features.stride_frames, features.fps) == (1, 1)
    assert main(["convert", "mine/mine-dataset.yaml"]) == 0
    assert main(["pack", "mine/mine-dataset.yaml", "features"]) == 0
    assert main(["audit", "mine/mine.yaml"]) == 0


def test_init_sees_features_that_span_their_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_own(tmp_path / "own", "run")
    for path in ("dataset.yaml", "own.yaml"):
        (tmp_path / "own" / path).unlink()
    annotations = tmp_path / "own/annotations.json"
    content = json.loads(annotations.read_text())
    content["database"]["validation"]["duration"] = 20.0
    annotations.write_text(json.dumps(content))
    assert main(["init", "own"]) == 0
    experiment = load_experiment("own/own.yaml")
    assert experiment.features.stride_frames is None
    assert experiment.data.loader == "resize"


def test_init_sees_arrays_of_channels_and_steps_and_the_frames_between_them(own):
    for path in ("dataset.yaml", "own.yaml"):
        (own / path).unlink()
    for path in (own / "features").glob("*.npy"):
        steps = 9 if path.stem == "training" else 10
        np.save(path, np.ones((4, steps), np.float32))
    assert main(["init", "own"]) == 0
    features = load_experiment("own/own.yaml").features
    assert (features.dim, features.transposed, features.stride_frames) == (4, True, 10)


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ("annotations.json", "expected one JSON file"),
        ("features", "no features beside annotations.json"),
        (None, "is there already; move it away, or edit it"),
    ],
)
def test_init_says_what_it_lacks_and_writes_nothing(own, capsys, removed, words):
    (own / "dataset.yaml").rename(own / "own-dataset.yaml")
    if removed is not None:
        (own / "own-dataset.yaml").unlink()
        (own / "own.yaml").unlink()
        path = own / removed
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(own)
    assert main(["init", "own"]) == 1
    assert words in capsys.readouterr().err
    assert contents(own) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"database": {"a": ', "annotations.json: not readable as JSON"),
        ('{"videos": {}}', "found none (annotations.json holds videos)"),
    ],
)
def test_init_names_a_file_that_holds_no_annotations(own, capsys, text, words):
    for path in ("dataset.yaml", "own.yaml"):
        (own / path).unlink()
    (own / "annotations.json").write_text(text)
    assert main(["init", "own"]) == 1
    assert words in capsys.readouterr().err


def test_init_names_an_array_that_has_other_channels_than_the_rest(own, capsys):
    for path in ("dataset.yaml", "own.yaml"):
        (own / path).unlink()
    for i in range(3):
        np.save(own / f"features/more{i}.npy", np.ones((10 + i, 4), np.float32))
    np.save(own / "features/training.npy", np.ones((9, 2), np.float32))
    assert main(["init", "own"]) == 1
    assert "'training' has the shape (9, 2), 4 of 5 arrays 4 channels" in capsys.readouterr().err


def test_times_in_frames_fail_the_audit(own, capsys):
    path = own / "annotations.json"
    content = json.loads(path.read_text())
    for video in content["database"].values():
        video["annotations"][0]["segment"] = [10.0, 40.0]  # of 9 seconds
    path.write_text(json.dumps(content))
    assert main(["convert", "own/dataset.yaml"]) == 0
    assert main(["pack", "own/dataset.yaml", "some"]) == 0
    assert main(["audit", "own/own.yaml"]) == 1
    said = (
        "2 of 2 segments start after their video's end: times are in seconds; are these in frames?"
    )
    assert said in capsys.readouterr().err


def test_a_stage_without_what_it_reads_names_the_command_that_makes_it(own, capsys):
    for command, makers in (
        (["train"], ["convert own/dataset.yaml", "pack own/dataset.yaml some"]),
        (["evaluate"], ["detect own/own.yaml --seed 0"]),
    ):
        for maker in makers:
            assert main([*command, "own/own.yaml"]) == 1
            assert f"not there yet; `actionformer {maker}` makes it" in capsys.readouterr().err
            if command == ["train"]:
                assert main(maker.split()) == 0


def test_status_of_own_experiments_shows_those_that_have_runs(own, capsys):
    assert main(["status", "--edition", "own"]) == 1
    assert "no run of an experiment of your own; --rows FILE.yaml" in capsys.readouterr().err
    folder = layout.run("own", "own", 0)
    folder.mkdir(parents=True)
    record = {"row": "own/own.yaml", "epoch": 1, "epochs": 35, "seconds": 4.0}
    (folder / layout.PROGRESS).write_text(json.dumps(record))
    assert main(["status", "--edition", "own"]) == 0
    said = capsys.readouterr().out
    assert "thumos14" not in said
    assert "(snakemake --cores all --config experiment=own/own.yaml)" in said


def test_a_short_training_says_that_its_average_is_mostly_initial_weights(own, capsys):
    """Three epochs of one step: of a decay of 0.999 nothing is left but the beginning."""
    path = own / "own.yaml"
    short = "training: {schedule_epochs: 3, warmup_epochs: 1, first_eval_epoch: 3"
    path.write_text(path.read_text() + f"model: {{channels: 16}}\n{short}}}\n")
    for command in (["convert", "own/dataset.yaml"], ["pack", "own/dataset.yaml", "some"]):
        assert main(command) == 0
    assert main(["train", "own/own.yaml"]) == 0
    said = "after 3 steps the averaged weights are still 100% the initial ones"
    told = capsys.readouterr()
    assert said in told.out
    assert said in told.err  # of a job, stdout is a log
    path.write_text(
        path.read_text().replace("first_eval_epoch: 3", "first_eval_epoch: 3, ema_decay: 0.3")
    )
    assert main(["train", "own/own.yaml"]) == 0
    told = capsys.readouterr()
    assert "averaged weights" not in told.out + told.err


def test_init_chooses_an_average_that_forgets_the_initial_weights(own):
    for path in ("dataset.yaml", "own.yaml"):
        (own / path).unlink()
    np.save(own / "features/training.npy", np.ones((9, 4), np.float32))
    assert main(["init", "own"]) == 0
    training = load_experiment("own/own.yaml").training
    assert training.ema_decay**training.epochs == pytest.approx(0.05, rel=0.1)  # one step each
