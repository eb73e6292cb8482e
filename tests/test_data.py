"""Views against the published loaders, converters, the store, and the demo edition's bytes."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import random
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from actionformer import load_experiment, provenance
from actionformer.data import views
from actionformer.data.annotations import load_database
from actionformer.data.features import FeatureStore, pack
from actionformer.data.publishers import convert
from actionformer.data.view import resized, windows
from actionformer.errors import InputError
from actionformer.files.reading import read_json
from actionformer.params.files import load_dataset, names, published_rows
from actionformer.params.stored import stored_experiment
from conftest import CHECKOUT, REAL, contents


@given(st.integers(1, 3000), st.integers(8, 512), st.sampled_from([0.0, 0.25, 0.5]))
def test_covering_windows_cover_every_step(total, size, overlap):
    seen = np.zeros(total, bool)
    found = windows(total, size, overlap, "corrected")
    for window in found:
        assert window.stop - window.start == min(size, total)
        seen[window.start : window.stop] = True
    assert seen.all()
    assert len(set(found)) == len(found)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 64), st.booleans())
def test_resizing_a_constant_gives_the_constant(length, target, half_precision):
    found = resized(np.full((length, 2), 0.5, np.float32), target, half_precision=half_precision)
    np.testing.assert_array_equal(found, np.full((target, 2), 0.5))


def one_video(loading, steps, **data):
    """Views of a demo THUMOS-like row on one video of 1,000 frames at 30 per second.

    Its features have `steps` steps.
    """
    experiment = load_experiment("thumos14_i3d", "demo")
    data = experiment.data.model_copy(update={"loading": loading, **data})
    video = {
        "duration": 1000 / 30,
        "frame": 1000,
        "annotations": [{"segment": [2.31, 9.99], "label": "a"}],
    }
    database = {
        "database": {"v": video | {"subset": "training"}, "w": video | {"subset": "validation"}}
    }
    features = {name: np.arange(steps, dtype=np.float32)[:, None] for name in "vw"}
    experiment = experiment.model_copy(update={"data": data})
    return {split: views(database, features, experiment, split) for split in ("train", "test")}


@given(st.lists(st.floats()))
def test_numbers_are_read_as_json_reads_them(numbers):
    """Files hold scores and times in json's shortest form; NaN is for the reader to name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(numbers))
        found = read_json(path)
        expected = json.loads(path.read_text())
    np.testing.assert_array_equal(np.float64(found).view("u8"), np.float64(expected).view("u8"))


def test_corrected_loading_keeps_fractions_of_a_frame():
    """Offset 8, stride 4: 2.31 s is frame 69.3."""
    (published,) = one_video("published", 250)["train"]
    (corrected,) = one_video("corrected", 250)["train"]
    np.testing.assert_array_equal(published.segments_G2, [[(69 - 8) / 4, (299 - 8) / 4]])
    expected = [[(69.3 - 8) / 4, (299.7 - 8) / 4]]
    np.testing.assert_allclose(corrected.segments_G2, expected, rtol=1e-6)


def test_published_windows_follow_the_annotated_frames_and_corrected_ones_the_features():
    sliding = {"loader": "sliding", "window_size": 100, "window_overlap_ratio": 0.0}
    published, corrected = (
        one_video(loading, 260, **sliding)["test"] for loading in ("published", "corrected")
    )
    assert [(v.window.start, v.window.stop) for v in published] == [
        (0, 100),
        (100, 200),
    ]  # 50 steps go unseen
    assert [(v.window.start, v.window.stop) for v in corrected] == [
        (0, 100),
        (100, 200),
        (160, 260),
    ]
    short = one_video("published", 260, **sliding | {"window_size": 300})["test"][0].load(
        random.Random(0)
    )
    # cut where the annotation ends
    assert (short.features_CT.shape[1], int(short.mask_T.sum())) == (300, 250)


@pytest.mark.parametrize(
    ("total", "size", "overlap", "starts"),
    [
        (1500, 1024, 0.0, [0]),  # 476 steps go unseen
        (2366, 1024, 0.0, [0, 1024]),
        (768, 512, 0.5, [0, 256, 256]),  # the last comes twice
        (900, 512, 0.5, [0, 256, 388]),
        (300, 512, 0.5, [0]),
    ],
)
def test_published_windows_keep_their_faults(total, size, overlap, starts):
    assert [window.start for window in windows(total, size, overlap, "published")] == starts


def test_windows_of_a_fixed_rate_are_counted_from_the_duration():
    """Charades-VideoMAE: int(duration * 30) frames, not the features' length."""
    experiment = load_experiment("charades_videomae_l", "paper")
    database = {"database": {"v": {"subset": "testing", "duration": 70.99, "annotations": []}}}
    found = views(database, {"v": np.zeros((1000, 1024), np.float32)}, experiment, "test")
    steps = -(-int(70.99 * 30) // 4)
    assert [(v.window.start, v.window.stop) for v in found] == [(0, 512), (steps - 512, steps)]


@pytest.mark.parametrize("steps", [70_000])
def test_features_that_half_precision_cannot_hold_are_refused(steps):
    view = one_video("published", steps, loader="resize", resize_length=4)["test"][0]
    with pytest.raises(
        InputError, match=r"video 'w': .*half precision; set data.loading to corrected"
    ):
        view.load(random.Random(0))


def test_corrected_loading_resamples_in_full_precision():
    resize = {"loader": "resize", "resize_length": 4}

    def features(loading):
        (view,) = one_video(loading, 4095, **resize)["test"]
        return view.load(random.Random(0)).features_CT[0]

    expected = (np.arange(4) + 0.5) * 4095 / 4 - 0.5
    np.testing.assert_allclose(features("corrected"), expected, rtol=1e-6)
    assert (features("published") != features("corrected")).all()


def test_hacs_ground_truth_is_put_on_the_grid_in_float32():
    """s * fps in double, then (frame - offset) / stride in single precision; frames are not cut."""
    experiment = load_experiment("hacs_slowfast", "paper")
    times = [[68.6715, 123.4567], [1.0, 1.05], [200.0, 300.0]]
    annotations = [{"segment": segment, "label": "a"} for segment in times]
    database = {
        "database": {"v": {"subset": "training", "duration": 150.0, "annotations": annotations}}
    }
    view = views(database, {"v": np.zeros((300, 2304), np.float32)}, experiment, "train")[0]
    frames = np.array([[second * 15.0 for second in times[0]]]).astype(np.float32)
    expected = (frames - np.float32(16)) / np.float32(8)
    assert view.segments_G2.dtype == np.float32
    # the second ends before the first feature's centre, the third starts after the video's end
    np.testing.assert_array_equal(view.segments_G2, expected)


# ------------------------------------------------------------------------------------------ params


def test_the_tables_hold_every_row():
    assert sorted(published_rows()) == names("experiments") == sorted(yaml_rows())


def yaml_rows():
    return yaml.safe_load((oracle.ORACLES / "rows.yaml").read_text())


LOADERS = {"resize": "resize", "pad": "pad", "sliding": "pad_train/sliding_test"}
CLASSIFIERS = {
    "cuhk": "CUHKANETClassifier",
    "tcanet": "TCANetHACSClassifier",
    "standard": "StandardClassifier",
}
# params that rows.yaml has no name for; the test below says what they are in the published rows
OURS_ALONE = {
    "data": {
        "dataset",
        "features",
        "label_field",
        "loading",
        "truncate_to_frames",
        "drop_outside_gt_in_training",
        "videos",
    },
    "model": {"conv_norm_eps", "mask_after_norm"},
    "training": {"threads", "precision", "compile", "cuda_graphs"},
    "inference": set(),
    "evaluation": set(),
}


def as_published(ours):
    """A resolved row under the names of rows.yaml, all of them and no others."""
    features, data, classifier = ours.features, ours.data, None
    if ours.inference.use_classifier:
        file = ours.dataset.classifier.file.rpartition("/")[2]
        classifier = {
            "kind": CLASSIFIERS[ours.dataset.classifier.kind],
            "topk": ours.dataset.classifier.top_k,
            "file": file,
        }
    sliding = data.loader == "sliding"
    told = data.model_dump(
        mode="json", exclude={*OURS_ALONE["data"], "loader", "window_overlap_ratio"}
    )
    return {
        "data": told
        | {
            "loader": LOADERS[data.loader],
            "train_subset": ours.dataset.train_subset,
            "eval_subset": ours.dataset.eval_subset,
            "feature_stride_frames": features.stride_frames,
            "offset_frames": features.offset_frames,
            "fixed_fps": features.fps,
            "file_prefix": features.prefix,
            "window_overlap_ratio": data.window_overlap_ratio if sliding else None,
        },
        "model": ours.model.model_dump(mode="json", exclude=OURS_ALONE["model"])
        | {"strides": list(ours.model.strides)},
        "training": ours.training.model_dump(mode="json", exclude=OURS_ALONE["training"]),
        "inference": ours.inference.model_dump(mode="json", exclude={"use_classifier"})
        | {"external_classifier": classifier},
        "evaluation": {
            "subset": ours.dataset.eval_subset,
            "tiou": list(ours.evaluation.tiou),
            "recall_topk": list(ours.evaluation.recall_top_k) or None,
            "blocked_videos": ours.evaluation.use_blocked_list,
        },
    }


@pytest.mark.parametrize("row", names("experiments"))
def test_paper_rows_are_the_published_hyperparameters_no_field_more_and_none_less(row):
    """Every field of rows.yaml against the resolved row, and every param against rows.yaml."""
    published = yaml_rows()[row]
    # a list of videos without features: ours leaves out every video that has none, whatever is
    # listed
    published["data"].pop("has_missing_files_list")
    experiment = load_experiment(row, "paper")
    assert as_published(experiment) == published
    assert experiment.data.videos is None
    assert (experiment.training.precision, experiment.training.compile) == ("published", False)
    assert experiment.departs == ()


@pytest.mark.parametrize("row", names("experiments"))
def test_what_rows_yaml_has_no_name_for_is_as_the_method_says(row):
    """METHOD section 4: HACS alone is not cut to whole frames and drops what lies outside."""
    ours = load_experiment(row, "paper")
    hacs, resized_rows = ours.data.dataset == "hacs", ours.data.loader == "resize"
    assert ours.data.loading == "published"
    assert ours.data.drop_outside_gt_in_training == hacs
    assert resized_rows or ours.data.truncate_to_frames != hacs
    assert ours.data.label_field == {
        "epic_noun_slowfast": "noun",
        "epic_verb_slowfast": "verb",
    }.get(row, "label")
    assert (ours.model.conv_norm_eps, ours.model.mask_after_norm) == (1e-6, True)
    assert ours.training.threads == 2


# -------------------------------------------------------------------------------------- publishers

REAL_COUNTS = {
    "thumos14": (
        [
            "official_zips/TH14_Temporal_annotations_validation.zip",
            "official_zips/TH14_Temporal_annotations_test.zip",
            "video_info.csv",
        ],
        "thumos14",
        "label",
        20,
        {"training": (200, 3003), "validation": (211, 3325)},
    ),
    "multithumos": (
        ["multithumos/annotations_txt", "thumos14/video_info.csv"],
        ".",
        "label",
        65,
        {"training": (200, 18482), "validation": (213, 20208)},
    ),
    "activitynet": (
        ["activity_net.v1-3.min.json"],
        "activitynet",
        "label",
        200,
        {"training": (10024, 15410), "validation": (4926, 7654), "testing": (5044, 0)},
    ),
    "epic": (
        ["EPIC_100_train.csv", "EPIC_100_validation.csv", "EPIC_100_video_info.csv"],
        "epic",
        "noun",
        293,
        {"train": (495, 67217), "val": (138, 9668)},
    ),
}


@pytest.mark.skipif(
    not REAL.exists(), reason="the real annotation files lie beside the checkout, in ../shared/real"
)
@pytest.mark.parametrize("name", REAL_COUNTS)
def test_real_annotation_files_give_the_published_counts(name):
    files, folder, field, classes, expected = REAL_COUNTS[name]
    dataset = load_dataset(name).model_copy(
        update={"annotations": files, "blocked": None, "class_lists": {}}
    )
    database = load_database(convert(dataset, REAL / folder), field)
    assert len(database.classes) == classes
    for subset, (videos, instances) in expected.items():
        found = database.subset(subset)
        assert (len(found), sum(len(video.labels) for video in found)) == (videos, instances)


@pytest.mark.parametrize("row", names("experiments"))
def test_demo_files_have_the_odd_cases_of_the_real_ones(row, demo_data, tmp_path):
    """What converters and loaders must cope with is there, in the published proportions."""
    experiment = load_experiment(row, "demo")
    database = load_database(
        convert(experiment.dataset, demo_data / experiment.data.dataset),
        experiment.data.label_field,
    )
    sizes = experiment.dataset.num_classes
    assert len(database.classes) == (
        sizes if isinstance(sizes, int) else sizes[experiment.data.label_field]
    )
    assert "Ambiguous" not in database.classes
    features = experiment.features
    manifest = pack(
        demo_data / experiment.feature_owner / features.file,
        tmp_path / "f.h5",
        dim=features.dim,
        prefix=features.prefix,
    )
    lengths = FeatureStore(tmp_path / "f.h5").lengths
    used = set()
    for subset in (experiment.dataset.train_subset, experiment.dataset.eval_subset):
        used |= {video.name for video in database.subset(subset)}
    assert used - set(lengths)  # videos without features
    if manifest["missing"]:
        assert not set(manifest["missing"]) & set(lengths)
    longest = max(lengths.values())
    assert longest > experiment.model.max_seq_len  # longer than the window
    mean = sum(lengths.values()) / len(lengths) / experiment.model.max_seq_len
    assert 0.1 < mean < 1.3
    if experiment.evaluation.use_blocked_list:
        assert database.blocked


def test_demo_data_is_the_pinned_version_byte_for_byte(demo_data):
    found = {}
    for name, content in contents(demo_data).items():
        found[f"data/demo/{name}"] = hashlib.md5(content).hexdigest()
    pinned = {}
    for path, md5 in provenance.pinned_md5s(CHECKOUT).items():
        if path.startswith("data/demo/"):
            pinned[path] = md5
    assert pinned
    assert found == pinned


# ------------------------------------------------------------------------------------------- store


def test_the_store_holds_the_archive_and_its_md5_does_not_depend_on_the_order(tmp_path):
    arrays = {}
    for i in range(4):
        array = np.random.default_rng(i).standard_normal((i + 2, 3))
        arrays[f"v{i}"] = array.astype(np.float16)
    manifests = []
    for order in (list(arrays), list(arrays)[::-1]):
        archive = tmp_path / "f.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for name in order:
                np.save(tmp_path / "a.npy", arrays[name])
                file.write(tmp_path / "a.npy", f"folder/p_{name}.npy")
        manifests.append(pack(archive, tmp_path / "f.h5", dim=3, prefix="p_"))
    assert manifests[0] == manifests[1]
    store = FeatureStore(tmp_path / "f.h5")
    assert set(store) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(store[name][:], array)
    assert json.loads((tmp_path / "f.json").read_text())["videos"] == 4


def test_a_database_keeps_annotation_order_and_drops_ambiguous():
    content = {
        "database": {
            "v": {
                "subset": "training",
                "duration": 10,
                "annotations": [
                    {"segment": [5, 6], "label": "b"},
                    {"segment": [1, 2], "label": "Ambiguous"},
                    {"segment": [0, 1], "label": "a"},
                ],
            }
        }
    }
    database = load_database(content)
    assert database.classes == ("a", "b")
    assert database.videos["v"].labels == ("b", "a")
    assert dataclasses.asdict(database.videos["v"])["frame"] is None


@pytest.mark.parametrize(
    "loader", [{}, {"loader": "resize", "resize_length": 16}, {"test_pad_length": 32}]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_channels_are_cut_once_wherever_they_begin(loader, split):
    """Flow alone, the second half of a two-stream feature."""
    experiment = load_experiment("thumos14_i3d", "demo")
    data = experiment.data.model_copy(update={"channels_used": (2, 5), **loader})
    video = {"subset": "training", "duration": 10.0, "frame": 300}
    video["annotations"] = [{"segment": [1, 9], "label": "a"}]
    database = {"database": {"v": video, "w": video | {"subset": "validation"}}}
    features = {name: np.tile(np.arange(8, dtype=np.float32), (40, 1)) for name in "vw"}
    view = views(database, features, experiment.model_copy(update={"data": data}), split)[0]
    sample = view.load(random.Random(0))
    np.testing.assert_array_equal(sample.features_CT[:, 3], [2, 3, 4])


def test_params_of_earlier_versions_are_read_as_what_they_were():
    """`data.loading` was `data.protocol`, and before that there was `window_protocol` alone."""
    now = load_experiment("ego4d_slowfast", "demo")
    stored = now.model_dump(mode="json")
    assert stored_experiment(stored, "metrics.json") == now
    renamed = copy.deepcopy(stored)
    renamed["data"]["protocol"] = renamed["data"].pop("loading")
    renamed["dataset"]["protocol"] = renamed["dataset"].pop("remark")
    assert stored_experiment(renamed, "metrics.json") == now
    oldest = copy.deepcopy(stored)
    oldest["data"]["window_protocol"] = oldest["data"].pop("loading")
    assert stored_experiment(oldest, "metrics.json") == now
    assert "protocol" in renamed["data"]  # what was handed in is left as it was


def test_an_old_name_in_params_is_refused_with_the_new_one(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "data: {dataset: thumos14, features: i3d, protocol: published}\n"
    )
    with pytest.raises(InputError, match=r"protocol: unknown key \(called loading now\)"):
        load_experiment(str(tmp_path / "mine.yaml"))
