"""A rehearsal writes what is published, at its size: counts, lengths, formats, and what is real."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from actionformer import load_experiment
from actionformer.commands.main import main
from actionformer.data.features import FeatureStore
from actionformer.files.md5 import file_md5
from actionformer.params.files import published_rows
from actionformer.synthetic import rehearsal
from actionformer.synthetic.statistics import STATISTICS, at
from conftest import CHECKOUT, REAL

VIDEOS = 3


@pytest.mark.parametrize("name", STATISTICS)
def test_drawn_recordings_are_as_many_and_as_long_as_the_published_ones(name):
    statistics = STATISTICS[name]
    annotated = rehearsal.drawn(name, None)
    videos, actions, names = Counter(), Counter(), set()
    for recording in annotated.recordings:
        videos[recording.subset] += 1
        actions[recording.subset] += len(recording.actions)
        names.add(recording.name)
        for action in recording.actions:
            assert 0 <= action.start < action.end <= recording.duration
            assert action.label in annotated.classes or name == "epic"
    assert videos == Counter(statistics.videos)
    assert actions == Counter(statistics.actions)
    assert len(names) == len(annotated.recordings)
    durations = [one.duration for one in annotated.recordings if one.subset == statistics.train]
    for place in (0.1, 0.5, 0.9):
        expected = at(statistics.durations, place)
        assert np.quantile(durations, place) == pytest.approx(expected, rel=0.05)


def test_fewer_videos_are_as_long_on_average_as_all():
    whole, few = rehearsal.drawn("thumos14", None), rehearsal.drawn("thumos14", 12)
    means = []
    for annotated in (whole, few):
        durations = [one.duration for one in annotated.recordings if one.subset == "validation"]
        means.append(np.mean(durations))
    assert means[1] == pytest.approx(means[0], rel=0.2)
    assert Counter(one.subset for one in few.recordings) == {"validation": 12, "test": 12}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A params folder whose edition `small` is the rehearsal with narrow features and networks."""
    folder = tmp_path_factory.mktemp("rehearsal")
    shutil.copytree(CHECKOUT / "params", folder / "params")
    demo = yaml.safe_load((CHECKOUT / "params/editions/demo.yaml").read_text())
    edition = yaml.safe_load((CHECKOUT / "params/editions/rehearsal.yaml").read_text())
    edition["all_experiments"] = {"model": {"channels": 32}}
    edition["datasets"] = {}
    for name, facts in demo["datasets"].items():
        edition["datasets"][name] = {"features": facts["features"]}
    edition["experiments"] = {"multithumos_i3d_rgb": {"data": {"channels_used": [0, 24]}}}
    (folder / "params/editions/small.yaml").write_text(yaml.safe_dump(edition))
    return folder


OPTIONS = ["--edition", "small", "--params", "params"]


def rehearse(folder: Path, *arguments: str) -> None:
    assert main(["rehearse", "--out", str(folder), *OPTIONS, *arguments]) == 0


def test_every_row_is_converted_packed_and_audited_from_its_rehearsed_files(small, monkeypatch):
    monkeypatch.chdir(small)
    rehearse(small / "mirror", "--videos", str(VIDEOS))
    rows = [load_experiment(row, "small", params=Path("params")) for row in published_rows()]
    for dataset in dict.fromkeys(row.data.dataset for row in rows):
        fetched = ["fetch", dataset, *OPTIONS, "--mirror", "mirror", "--link"]
        assert main(fetched) == 0
        assert main(["convert", dataset, *OPTIONS]) == 0
    for row in rows:
        assert main(["pack", row.feature_owner, row.data.features, *OPTIONS]) == 0
        assert main(["audit", row.name, *OPTIONS]) == 0
        database = json.loads(Path(f"build/small/{row.data.dataset}/annotations.json").read_text())
        subsets = Counter(entry["subset"] for entry in database["database"].values())
        # one of THUMOS-14's is excluded by the protocol, of one nothing is annotated
        assert VIDEOS - 2 <= subsets[row.dataset.eval_subset] <= VIDEOS
        assert subsets[row.dataset.train_subset] == VIDEOS
        store = FeatureStore(Path(f"build/small/{row.feature_owner}/{row.data.features}.h5"))
        assert len(store) == 2 * VIDEOS
        (video, *_) = store
        assert store[video].dtype == np.float32
        assert store[video].shape[1] == row.features.dim
        assert (Path("data/small") / row.data.dataset / row.released.file).exists()


def test_the_same_rehearsal_gives_the_same_bytes(small, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    for folder in ("one", "other"):
        rehearse(tmp_path / folder, "fineaction_videomaev2_g", "--videos", "2")
    assert file_md5(tmp_path / "one") == file_md5(tmp_path / "other")


@pytest.mark.skipif(not REAL.exists(), reason="the real annotations lie beside the checkout")
def test_real_annotations_are_taken_where_they_are_there(small, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(small)
    real = ["--annotations", str(REAL), "--videos", str(VIDEOS)]
    rehearse(tmp_path, "thumos14_i3d", "multithumos_i3d", "epic_noun_slowfast", *real)
    database = json.loads((tmp_path / "thumos14/annotations/thumos_14_anno.json").read_text())
    known = json.loads((REAL / "thumos14/actionformer_thumos14.json").read_text())["database"]
    assert len(database["database"]) == 2 * VIDEOS
    for video, entry in database["database"].items():
        assert entry["duration"] == known[video]["duration"]
        found = {(*a["segment"], a["label"]) for a in entry["annotations"]}
        assert found == {(*a["segment"], a["label"]) for a in known[video]["annotations"]}
    assert "drawn" not in capfd.readouterr().out
    rehearse(tmp_path, "ego4d_slowfast", *real)  # of which there is a list of classes alone
    assert "ego4d: drawn, since" in capfd.readouterr().out


def test_features_that_do_not_fit_the_disk_are_refused_before_they_begin(
    small, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(small)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    arguments = ["rehearse", "charades_i3d_rgb", "--out", str(tmp_path), *OPTIONS]
    assert main(arguments) == 1
    assert "take fewer videos with --videos" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
