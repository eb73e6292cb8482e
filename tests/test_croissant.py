"""Croissant metadata of a data set; `make croissant` has mlcroissant read the same."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from actionformer.commands.main import main
from actionformer.files.md5 import file_md5

DATASETS = {
    "activitynet": "activitynet_tsp",
    "charades": "charades_i3d_rgb",
    "ego4d": "ego4d_slowfast",
    "epic": "epic_noun_slowfast",
    "fineaction": "fineaction_videomae_h",
    "hacs": "hacs_slowfast",
    "multithumos": "multithumos_i3d",
    "thumos14": "thumos14_i3d",
}


def exported(row: str, *arguments: str) -> dict:
    """croissant.json of a row's data set, in folder `out`."""
    assert main(["export", "croissant", row, "--out", "out", *arguments]) == 0
    return json.loads(Path("out/croissant.json").read_text())


def lines(name: str) -> list[dict[str, str]]:
    """Of a csv file beside it."""
    with Path("out", name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_listed_file_is_where_it_says_with_its_md5(tree, dataset):
    main(["convert", dataset])
    content = exported(DATASETS[dataset])
    assert content["citeAs"]
    assert content["license"] == "Apache-2.0 (synthetic)"
    listed = {file["name"]: file for file in content["distribution"]}
    for file in listed.values():
        assert file_md5(Path("out", file["contentUrl"])) == file["md5"]
    raw = {path.as_posix() for path in Path("data/demo", dataset).rglob("*") if path.is_file()}
    assert {path for path in raw if not path.endswith("/checksums.json")} <= set(listed)


@pytest.mark.parametrize("dataset", DATASETS)
def test_its_records_are_the_database(tree, dataset):
    main(["convert", dataset])
    content = exported(DATASETS[dataset])
    assert [records["name"] for records in content["recordSet"]] == ["videos", "instances"]
    built = json.loads(Path(f"build/demo/{dataset}/annotations.json").read_text())
    videos, instances = [], []
    for name, entry in built["database"].items():
        videos.append((name, entry["subset"], entry["duration"]))
        for annotation in entry["annotations"]:
            labels = {key: text for key, text in annotation.items() if key != "segment"}
            if labels.get("label") != "Ambiguous":
                instances.append((name, *annotation["segment"], labels))
    told = [
        (line["video"], line["subset"], float(line["duration"])) for line in lines("videos.csv")
    ]
    assert told == videos
    read = []
    for line in lines("instances.csv"):
        name, start, end = line.pop("video"), line.pop("start"), line.pop("end")
        read.append((name, float(start), float(end), line))
    assert read == instances
    blocked = {line["video"] for line in lines("videos.csv") if line["blocked"] == "true"}
    assert blocked == set(built.get("blocked", []))


def test_a_file_that_nobody_has_fetched_is_named_with_its_address_and_not_listed(tree):
    content = exported("ego4d_internvideo", "--edition", "paper")
    assert content["distribution"] == []
    assert content["recordSet"] == []
    assert "features/mq_slowfast.zip of https://drive.google.com/file/d/" in content["description"]


def test_a_publishers_file_has_his_address_and_that_of_the_archive(tree):
    features = "features/videomae_large_internvideo_img256_stride8_len16_interval1_ego4d.zip"
    path = Path("data/paper/ego4d", features)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"features")
    (file,) = exported("ego4d_internvideo", "--edition", "paper")["distribution"]
    assert file["name"] == path.as_posix()
    assert file["md5"] == file_md5(path)
    assert file["contentUrl"].startswith("https://drive.google.com/file/d/")
    assert file["description"].startswith("also archived at https://zenodo.org/record/7340838")


def test_a_data_set_of_ones_own_is_described_by_what_lies_there(tree):
    folder = Path("mine")
    folder.mkdir()
    annotations = {"database": {"a": {"subset": "training", "duration": 2.0, "annotations": []}}}
    (folder / "annotations.json").write_text(json.dumps(annotations))
    (folder / "features").mkdir()
    Path("mine.yaml").write_text(
        "name: Mine\nroot: mine\nannotations: [annotations.json]\nnum_classes: 1\n"
        "features: {own: {file: features, dim: 4, stride_frames: 4, offset_frames: 2, fps: 25}}\n"
    )
    Path("row.yaml").write_text(
        "row: own\ndata: {dataset: mine.yaml, features: own}\nmodel: {max_seq_len: 2304}\n"
    )
    content = exported("row.yaml")
    (file,) = content["distribution"]
    assert file["contentUrl"] == "../mine/annotations.json"
    assert "/mine/features of ../mine/features" in content["description"]
