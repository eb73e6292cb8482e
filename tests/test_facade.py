"""What Python programs use: trained weights on arrays, scores, tables, pictures; and the tour."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import actionformer
from actionformer import (
    ActionFormer,
    detections,
    evaluate,
    layout,
    load_experiment,
    plot_timeline,
    predict,
)
from actionformer.errors import InputError
from actionformer.files.writing import write_text
from actionformer.serving import Served
from actionformer.stages import export
from actionformer.training import weights
from conftest import assert_same_tensors, contents, run_command
from weights_files import weights_file

RNG = np.random.default_rng(0)
VIDEO_TC = RNG.standard_normal((90, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with weights that detect something, and features of one video."""
    folder = tmp_path_factory.mktemp("weights")
    weights_file(folder)
    np.save(folder / "features.npy", VIDEO_TC)
    return folder


def test_an_array_in_memory_gives_what_its_file_gives(trained):
    expected = predict(trained / "model.pt", trained / "features.npy", fps=25, device="cpu")
    model = ActionFormer.from_pretrained(trained)
    assert expected["features"]
    assert model.predict(VIDEO_TC, fps=25) == expected["features"]
    # the model is kept: a second call says the same
    assert model.predict(VIDEO_TC, fps=25) == expected["features"]


def test_a_row_is_named_by_its_name(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = layout.run("demo", "thumos14_i3d", 0)
    run.mkdir(parents=True)
    shutil.copy(trained / "model.pt", run)
    by_name = ActionFormer.from_pretrained("thumos14_i3d")
    assert_same_tensors(
        by_name.state_dict(), ActionFormer.from_pretrained(trained / "model.pt").state_dict()
    )
    assert by_name.experiment.name == "thumos14_i3d"
    assert by_name.classes == [f"class {k}" for k in range(7)]
    assert not by_name.training


@pytest.mark.parametrize("path", ["no_such_row", "nowhere/model.pt"])
def test_weights_that_are_not_there_are_one_line(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such file") as caught:
        ActionFormer.from_pretrained(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array_TC", "words"),
    [
        (VIDEO_TC.T, "expected (steps, 48)"),
        (np.full((5, 48), np.nan), "NaN"),
        (np.zeros((5, 48), np.int64), "expected floats"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(trained, array_TC, words):
    model = ActionFormer.from_pretrained(trained)
    with pytest.raises(InputError, match=re.escape(words)):
        model.predict(array_TC, fps=25)


def test_what_mlflow_serves_takes_an_offset_of_0_and_what_is_below_0_as_trained(trained):
    model = ActionFormer.from_pretrained(trained)
    served = Served(model)
    for offset, given in ((0.0, 0.0), (-1.0, None)):
        expected = model.predict(VIDEO_TC, fps=25, stride=8, offset=given)
        params = {"fps": 25.0, "stride": 8.0, "offset": offset, "duration": -1.0}
        found = served.predict(VIDEO_TC, params)
        assert found["start"].tolist() == [one["segment"][0] for one in expected]
    assert model.predict(VIDEO_TC, fps=25, stride=8, offset=0) != expected


def test_arrays_look_as_the_files_of_training_do(trained):
    """Weights trained on (channels, steps) take that from files and from memory alike."""
    model = ActionFormer.from_pretrained(trained)
    expected = model.predict(VIDEO_TC, fps=25)
    features = model.experiment.features.model_copy(update={"transposed": True})
    dataset = model.experiment.dataset.model_copy(update={"features": {"i3d": features}})
    model.experiment = model.experiment.model_copy(update={"dataset": dataset})
    assert model.predict(VIDEO_TC.T, fps=25) == expected


def test_drawn_weights_detect_nothing_and_say_so():
    network = ActionFormer(load_experiment("thumos14_i3d", "demo").model)
    with pytest.raises(InputError, match="from_pretrained"):
        network.predict(VIDEO_TC, fps=25)


@pytest.fixture
def files(tmp_path):
    """A database and detections: one right, one too long, one of a video without ground truth."""
    annotations = [{"segment": [1.0, 3.0], "label": "run"}, {"segment": [5.0, 8.0], "label": "sit"}]
    database = {"a": {"subset": "test", "duration": 9.0, "annotations": annotations}}
    (tmp_path / "a.json").write_text(json.dumps({"database": database}))
    found = [
        {"segment": [1.0, 3.0], "label": "run", "score": 0.9},
        {"segment": [5.0, 9.0], "label": "sit", "score": 0.5},
    ]
    (tmp_path / "d.json").write_text(json.dumps({"results": {"a": found}}))
    return tmp_path


def test_scores_of_files_are_those_of_the_command(files):
    percent = evaluate(files / "a.json", files / "d.json", subset="test", tiou=[0.5, 0.8])
    assert percent == {"mAP/0.5": 100.0, "mAP/0.8": 50.0, "mAP/average": 75.0}
    options = ["--annotations", "a.json", "--detections", "d.json", "--subset", "test"]
    said = run_command(files, "actionformer", "evaluate", *options, "--tiou", "0.5", "0.8").stdout
    assert "75.00" in said


def test_detections_are_a_table(files):
    table = detections(files / "d.json")
    assert list(table.columns) == ["video", "label", "start", "end", "score"]
    assert table.loc[1].tolist() == ["a", "sit", 5.0, 9.0, 0.5]


def test_a_timeline_shows_in_a_notebook_and_is_saved(files):
    picture = plot_timeline(files / "a.json", files / "d.json", "a")
    assert picture._repr_mimebundle_()["image/svg+xml"].startswith("<svg")
    picture.save(files / "t.png")
    assert (files / "t.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="ends with"):
        picture.save(files / "t.gif")
    with pytest.raises(InputError, match="no video 'b'; there are a"):
        plot_timeline(files / "a.json", files / "d.json", "b")


# -------------------------------------------------------------------------------------------- Hub


@pytest.fixture
def row(trained, tmp_path, monkeypatch):
    """A row with weights, a card and figures, in the current folder."""
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment("thumos14_i3d", "demo")
    run = layout.run("demo", "thumos14_i3d", 0)
    run.mkdir(parents=True)
    shutil.copy(trained / "model.pt", run)
    program = 'from actionformer import predict\n\ndetections = predict("seed0/model.pt", '
    program += '"video.npy", fps=25, stride=4)\n'
    card = f"# A row\n\n![mAP](figures/map_tiou.svg)\n\n```python\n{program}```\n\nMore.\n"
    write_text(layout.model_card(experiment), card)
    write_text(layout.figures(experiment) / "map_tiou.svg", "<svg/>")
    write_text(layout.figures(experiment) / "unseen.svg", "<svg/>")
    return experiment


def test_a_folder_for_the_hub_holds_the_same_weights_card_and_params(row, trained, tmp_path):
    said = export.export_hub(row, 0, tmp_path / "hub")
    assert "nothing is uploaded" in said
    assert set(contents(tmp_path / "hub")) == {
        "README.md",
        "config.json",
        "figures/map_tiou.svg",
        "model.safetensors",
        "params.yaml",
    }
    ours = ActionFormer.from_pretrained(tmp_path / "hub")
    theirs = ActionFormer.from_pretrained(trained)
    assert_same_tensors(ours.state_dict(), theirs.state_dict())
    assert ours.classes == theirs.classes
    assert ours.predict(VIDEO_TC, fps=25) == theirs.predict(VIDEO_TC, fps=25)


def test_the_program_of_its_card_runs(row, tmp_path):
    export.export_hub(row, 0, tmp_path / "hub")
    np.save(tmp_path / "hub/video.npy", VIDEO_TC)
    card = (tmp_path / "hub/README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", card, re.S)
    run_command(tmp_path / "hub", sys.executable, "-c", program)


def test_a_folder_that_holds_something_is_not_written_over(row, tmp_path):
    write_text(tmp_path / "hub/notes.txt", "mine")
    with pytest.raises(InputError, match="is not empty"):
        export.export_hub(row, 0, tmp_path / "hub")
    assert set(contents(tmp_path / "hub")) == {"notes.txt"}


@pytest.mark.parametrize("damage", ["cut", "none", "other"])
def test_a_damaged_folder_of_the_hub_is_one_line(row, tmp_path, damage):
    export.export_hub(row, 0, tmp_path / "hub")
    path = tmp_path / "hub" / weights.WEIGHTS
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "none":
        path.unlink()
    else:
        save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=weights.WEIGHTS) as caught:
        ActionFormer.from_pretrained(tmp_path / "hub")
    assert "\n" not in str(caught.value)


def test_everything_that_is_public_is_there():
    for name in actionformer.__all__:
        assert getattr(actionformer, name) is not None
