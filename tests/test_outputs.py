"""What goes out to others: predictions, subtitles, submissions, ONNX, fused actions, progress."""

from __future__ import annotations

import copy
import itertools
import json
import re
import sys
import zipfile
from dataclasses import replace

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer import (
    layout,
    load_experiment,
    predict,
    progress,
)
from actionformer.commands import main as main_module
from actionformer.commands.main import COMMANDS
from actionformer.data.features import pack
from actionformer.detection.actions import BEST_PER_POINT, fuse
from actionformer.detection.timing import Timing, timed_as
from actionformer.errors import InputError
from actionformer.files import writing
from actionformer.params import keys
from actionformer.params.experiment import InferenceParams
from actionformer.params.files import as_yaml
from actionformer.reporting import submissions, subtitles
from actionformer.run_log import RunLog
from actionformer.stages import export as outputs
from actionformer.stages import predict as prediction
from actionformer.stages import status
from actionformer.training import checkpoint
from conftest import run_command
from weights_files import weights_file

NO_MPS = pytest.mark.skipif(torch.backends.mps.is_available(), reason="has a GPU of Apple's")


def each(detections, key):
    """One value of every detection, in their order."""
    return [detection[key] for detection in detections]


def last_end(detections):
    return max(end for _, end in each(detections, "segment"))


@pytest.fixture(scope="module")
def thumos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thumos")
    path, experiment, _ = weights_file(folder)
    rng = np.random.default_rng(0)
    arrays = {}
    (folder / "features").mkdir()
    for i in range(3):
        array = rng.normal(size=(40 + i, experiment.features.dim)).astype(np.float32)
        np.save(folder / "features" / f"v{i}.npy", array)
        arrays[f"v{i}"] = array
    pack(folder / "features", folder / "store.h5", dim=experiment.features.dim)
    return folder, path, arrays


def test_a_file_a_folder_and_a_store_say_the_same(thumos):
    folder, path, arrays = thumos
    options = {"fps": 30, "stride": 4, "device": "cpu"}
    expected = predict(path, folder / "features", **options)
    assert set(expected) == set(arrays)
    assert all(expected.values())
    assert predict(path, folder / "store.h5", **options) == expected
    with zipfile.ZipFile(folder / "one.zip", "w") as archive:
        archive.write(folder / "features/v1.npy", "v1.npy")
    (alone,) = predict(path, folder / "one.zip", **options, duration=9.0).values()
    assert each(alone, "label") == each(expected["v1"], "label")
    one_by_one = sorted((folder / "features").iterdir())
    assert predict(path, one_by_one, **options) == expected
    assert predict(str(path), str(one_by_one[1]), **options) == {"v1": expected["v1"]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": None, "offset": None}, "step t lies at frame 8 + 4 t, 30 frames/s"),
        ({"stride": 4, "offset": None}, "step t lies at frame 8 + 4 t, 30 frames/s"),
        ({"stride": 2, "offset": None}, "step t lies at frame 1 + 2 t, 30 frames/s"),
        ({"stride": 16, "offset": None}, "step t lies at frame 8 + 16 t, 30 frames/s"),
        ({"stride": 4, "offset": 0}, "step t lies at frame 0 + 4 t, 30 frames/s"),
    ],
)
def test_the_offset_of_the_training_features_goes_with_their_stride_alone(options, words):
    assert timed_as(load_experiment("thumos14_i3d", "demo"), Timing(fps=30, **options)) == words


def test_features_that_span_a_video_need_its_duration_or_their_stride():
    spanning = load_experiment("activitynet_tsp", "demo")
    with pytest.raises(InputError, match="don't fix the frames per second"):
        timed_as(spanning, Timing())
    assert timed_as(spanning, Timing(duration=1.0)) == "features span their videos"
    pinned = load_experiment("thumos14_i3d", "demo")
    # a duration places no steps
    with pytest.raises(InputError, match="don't fix the frames per second"):
        timed_as(pinned, Timing(duration=1.0))


def test_a_video_lasts_as_long_as_its_features_if_nobody_says_how_long(thumos):
    """The last step reaches as far beyond its centre as the first one before its own."""
    folder, path, arrays = thumos
    for name, found in predict(path, folder / "features", fps=30, stride=4, device="cpu").items():
        seconds = ((len(arrays[name]) - 1) * 4 + 2 * 8) / 30
        assert last_end(found) == pytest.approx(seconds, abs=0.006)


def test_features_that_span_a_video_last_as_long_as_their_frames(tmp_path):
    """300 steps of 16 frames at 30 frames per second, where nobody says how long they last."""
    path, experiment, _ = weights_file(tmp_path, "activitynet_tsp")
    array = np.random.default_rng(0).normal(size=(300, experiment.features.dim))
    np.save(tmp_path / "x.npy", array.astype(np.float32))
    by_rate = predict(path, tmp_path / "x.npy", fps=30, stride=16, device="cpu")
    assert by_rate == predict(path, tmp_path / "x.npy", duration=300 * 16 / 30, device="cpu")


def test_a_duration_may_be_short(thumos):
    folder, path, _ = thumos
    options = {"fps": 30, "stride": 4, "device": "cpu"}
    (found,) = predict(path, folder / "features/v0.npy", duration=0.5, **options).values()
    assert last_end(found) == 0.5


def test_predict_changes_nothing_outside_itself(thumos):
    """Threads and random numbers of the process are the caller's: only commands set them."""
    folder, path, _ = thumos
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    try:
        predict(path, folder / "features", fps=30, stride=4, device="cpu")
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.rand(2), expected)
    finally:
        torch.set_num_threads(threads)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([15.0, 60.0]), st.sampled_from([2.0, 8.0]))
def test_times_scale_with_stride_and_frame_rate(thumos, fps, stride):
    """The network sees steps: twice the stride doubles all times, twice the rate halves them."""
    folder, path, _ = thumos
    video = folder / "features/v0.npy"
    one = predict(path, video, fps=30, stride=4, offset=8, device="cpu")["v0"]
    other = predict(path, video, fps=fps, stride=stride, offset=2 * stride, device="cpu")["v0"]
    factor = (stride / 4) / (fps / 30)
    # times are rounded to 0.01 s, so NMS of a whole video, which comes before, sees the same
    expected = factor * np.array(each(one, "segment"))
    atol = 0.006 * (1 + factor)
    np.testing.assert_allclose(each(other, "segment"), expected, atol=atol)
    assert each(other, "score") == each(one, "score")


@pytest.mark.parametrize(
    "row", ["activitynet_tsp", "ego4d_slowfast", "hacs_slowfast", "charades_i3d_rgb"]
)
def test_every_way_of_seeing_a_video_predicts(tmp_path, row):
    """Resized, in windows, padded to a length or not; class-agnostic weights say 'action'."""
    path, experiment, _ = weights_file(tmp_path, row)
    array = np.random.default_rng(0).normal(size=(300, experiment.features.dim)).astype(np.float32)
    np.save(tmp_path / "long.npy", array)
    options = {"fps": 30, "stride": 8, "duration": 80.0, "device": "cpu"}
    (found,) = predict(path, tmp_path / "long.npy", **options).values()
    assert found
    for start, end in each(found, "segment"):
        assert 0 <= start <= end <= 80.0
    assert {d["label"] == "action" for d in found} == {experiment.data.class_agnostic}
    # the tail of a long video is seen, too
    assert last_end(found) > 70


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "the weights of thumos14_i3d don't fix the frames per second"),
        ({"fps": 0}, "fps 0, stride 4: expected numbers above 0"),
        ({"fps": 30, "duration": 9.0}, "a duration goes with one video"),
        ({"fps": 30, "duration": -9.0}, "duration -9: expected seconds above 0"),
        ({"fps": float("nan")}, "fps nan, stride 4: expected numbers above 0"),
        ({"fps": 30, "offset": -8}, "offset -8: expected a frame from 0 on"),
    ],
)
def test_what_weights_do_not_know_has_to_be_given(thumos, options, words):
    folder, path, _ = thumos
    with pytest.raises(InputError, match=words):
        predict(path, folder / "features", device="cpu", **options)


def test_features_of_another_kind_are_refused(thumos, tmp_path):
    _, path, _ = thumos
    np.save(tmp_path / "x.npy", np.zeros((10, 7), np.float32))
    with pytest.raises(InputError, match=r"video 'x' .*shape \(10, 7\), expected \(steps, 48\)"):
        predict(path, tmp_path / "x.npy", fps=30)
    with h5py.File(tmp_path / "store.h5", "w") as file:
        file["videos/x"], file["index"] = np.zeros((10, 7), np.float32), json.dumps({"x": 10})
    with pytest.raises(InputError, match=r"video 'x': shape \(10, 7\), expected \(steps, 48\)"):
        predict(path, tmp_path / "store.h5", fps=30)
    with pytest.raises(InputError, match="no such file"):
        predict(path, tmp_path / "absent.npy", fps=30)


def test_class_agnostic_weights_take_their_classes_from_a_classifier(tmp_path):
    """Two of three classes for every segment, score * class score, as in ActivityNet's rows.

    No time grid is needed.
    """
    path, experiment, _ = weights_file(tmp_path, "activitynet_tsp")
    array = np.random.default_rng(0).normal(size=(60, experiment.features.dim))
    np.save(tmp_path / "x.npy", array.astype(np.float32))
    scores = {"results": {"x": [0.5, 0.1, 0.4]}, "class": ["jump", "fall", "throw"]}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    options = {"duration": 80.0, "device": "cpu"}
    plain = predict(path, tmp_path / "x.npy", **options)["x"]
    classifier = tmp_path / "scores.json"
    named = predict(path, tmp_path / "x.npy", classifier=classifier, **options)["x"]
    assert set(each(named, "label")) == {"jump", "throw"}
    assert len(named) == 2 * len(plain)
    clip = {"subset": "testing", "duration": 80.0}
    database = {"database": {"x": clip, "y": clip | {"subset": "training"}}}
    (tmp_path / "database.json").write_text(json.dumps(database))
    np.save(tmp_path / "y.npy", np.load(tmp_path / "x.npy"))
    known = {"annotations": tmp_path / "database.json", "subset": "testing", "device": "cpu"}
    assert predict(path, tmp_path, **known) == {"x": plain}
    surest = max(each(plain, "score"))
    assert max(each(named, "score")) == pytest.approx(0.5 * surest, abs=1e-4)


def test_predictions_come_as_json_csv_subtitles_and_pictures(thumos, tmp_path):
    folder, path, arrays = thumos
    said = prediction.predict(
        prediction.load_detector(path, Timing(fps=30, stride=4), None),
        [folder / "features"],
        machine=prediction.Machine("cpu"),
        wanted=prediction.Wanted(min_score=0.0, pictures=True),
        out=tmp_path / "out",
    )
    assert said[0] == "step t lies at frame 8 + 4 t, 30 frames/s"
    results = json.loads((tmp_path / "out/predictions.json").read_text())["results"]
    lines = (tmp_path / "out/predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(map(len, results.values()))
    for name in arrays:
        assert (tmp_path / f"out/{name}.vtt").read_text().startswith("WEBVTT\n\n00:00:")
        assert (tmp_path / f"out/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_video_in_which_nothing_is_sure_enough_says_so_and_has_a_picture(thumos, tmp_path):
    folder, path, _ = thumos
    said = prediction.predict(
        prediction.load_detector(path, Timing(fps=30, stride=4), None),
        [folder / "features/v0.npy"],
        machine=prediction.Machine("cpu"),
        wanted=prediction.Wanted(min_score=1.1, pictures=True),
        out=tmp_path / "out",
    )
    assert said[1].startswith("v0: none reaches --min-score 1.1 (")
    assert (tmp_path / "out/v0.vtt").read_text() == "WEBVTT\n"
    assert (tmp_path / "out/v0.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "expected auto, cpu, cuda, cuda:N or mps"),
        ("meta", "expected auto, cpu, cuda, cuda:N or mps"),
        ("cpu:1", "expected auto, cpu, cuda, cuda:N or mps"),
        ("cuda:99", "torch sees"),
        pytest.param("mps", "torch sees no GPU", marks=NO_MPS),
    ],
)
def test_a_device_that_is_not_there_is_one_line(thumos, device, words):
    folder, path, _ = thumos
    with pytest.raises(InputError, match=f"device '{device}': {words}"):
        predict(path, folder / "features/v0.npy", fps=30, device=device)


def test_subtitles_are_in_order_of_time_and_escape_what_webvtt_reads():
    found = [
        {"segment": [3661.5, 3662.0], "label": "a & <b>", "score": 0.9},
        {"segment": [1.0, 2.004], "label": "c", "score": 0.5},
        {"segment": [1.0, 2.0], "label": "unsure", "score": 0.1},
        {"segment": [5.0, 5.0], "label": "empty", "score": 0.9},
    ]
    expected = "WEBVTT\n\n00:00:01.000 --> 00:00:02.004\nc (0.50)\n\n"
    expected += "01:01:01.500 --> 01:01:02.000\na &amp; &lt;b&gt; (0.90)\n"
    assert subtitles.as_webvtt(found, min_score=0.2) == expected


# ----------------------------------------------------------------------------------- fused actions


def test_a_point_fused_by_hand():
    """Segments 2..6 and 4..8 meet at 3..7; scores 0.9 and 0.4 give sqrt(0.36) = 0.6."""
    noun = torch.tensor([[4.0, 8.0]]), torch.tensor([[0.1, 0.4, 0.0]])
    verb = torch.tensor([[2.0, 6.0]]), torch.tensor([[0.9, 0.0]])
    segments, scores, labels = fuse(noun, verb, InferenceParams())
    # verb 0 with noun 1, then with noun 0; what scores 0 is no candidate
    assert labels.tolist() == [1, 0]
    torch.testing.assert_close(scores, torch.tensor([0.6, 0.3]))
    assert segments.tolist() == [[3.0, 7.0]] * 2


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 15),
    st.integers(1, 15),
    st.integers(1, 400),
    st.integers(0, 99),
)
def test_fused_are_the_best_pairs_of_the_ten_best_of_each(points, nouns, verbs, top_k, seed):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.rand(*shape, generator=generator)

    noun = drawn(points, 2), drawn(points, nouns)
    verb = drawn(points, 2), drawn(points, verbs)
    params = InferenceParams(pre_nms_topk=top_k)
    segments, scores, labels = fuse(noun, verb, params)
    expected = []
    for p in range(points):
        best_nouns = noun[1][p].argsort(descending=True)[:BEST_PER_POINT].tolist()
        best_verbs = verb[1][p].argsort(descending=True)[:BEST_PER_POINT].tolist()
        for v, n in itertools.product(best_verbs, best_nouns):
            score = (verb[1][p, v] * noun[1][p, n]).sqrt().item()
            expected.append((score, v * nouns + n, ((noun[0][p] + verb[0][p]) / 2).tolist()))
    expected.sort(key=lambda e: -e[0])
    expected = [e for e in expected if e[0] > params.pre_nms_threshold][:top_k]
    expected_scores, expected_labels, expected_segments = zip(*expected, strict=True)
    np.testing.assert_allclose(scores.tolist(), expected_scores, rtol=1e-6)
    assert labels.tolist() == list(expected_labels)
    np.testing.assert_allclose(segments, expected_segments, rtol=1e-6)


def test_the_ten_best_verbs_of_a_point_meet_its_ten_best_nouns():
    """METHOD's fusion: of 12 verbs and 11 nouns 100 pairs of a point are left."""
    rising = torch.linspace(0.1, 0.9, 12)
    point = torch.tensor([[0.0, 1.0]])
    nouns, verbs = (point, rising[None, :11]), (point, rising[None])
    _, scores, labels = fuse(nouns, verbs, InferenceParams(pre_nms_topk=1000))
    assert len(scores) == 100
    assert labels.div(11, rounding_mode="floor").unique().tolist() == list(range(2, 12))
    assert (labels % 11).unique().tolist() == list(range(1, 11))


# ------------------------------------------------------------------------------------- submissions

DURATIONS = {"v": 10.0, "w": 20.0}
LABELLED = {"v": [{"label": "jump", "score": 0.5, "segment": [1.0, 2.5]}], "w": []}
PAIRED = {"v": [{"verb": "id_006", "noun": "id_012", "score": 0.5, "segment": [1.0, 2.5]}], "w": []}
VALID = {
    "activitynet": submissions.activitynet(
        LABELLED, external_data="features of a network trained on it"
    ),
    "epic": submissions.epic(PAIRED, levels=(2, 3, 3)),
    "ego4d": submissions.ego4d(LABELLED),
}


def problems(challenge, content):
    return submissions.problems(challenge, content, durations=DURATIONS, classes=["jump"])


def test_what_the_challenges_take():
    """The keys and values that their pages name."""
    assert VALID["activitynet"] == {
        "version": "VERSION 1.3",
        "results": LABELLED,
        "external_data": {"used": True, "details": "features of a network trained on it"},
    }
    assert VALID["epic"] == {
        "version": "0.2",
        "challenge": "action_detection",
        "sls_pt": 2,
        "sls_tl": 3,
        "sls_td": 3,
        "results": {
            "v": [{"verb": 6, "noun": 12, "action": "6,12", "score": 0.5, "segment": [1.0, 2.5]}],
            "w": [],
        },
    }
    assert VALID["ego4d"] == {
        "version": "1.0",
        "challenge": "ego4d_moment_queries",
        "detect_results": LABELLED,
        "retrieve_results": LABELLED,
    }
    assert set(VALID) == set(submissions.CHALLENGES)
    for challenge, content in VALID.items():
        assert problems(challenge, content) == []


ABSENT = object()


def changed(challenge, place, value):
    """A valid submission with another value at one place, or without what is there."""
    content = copy.deepcopy(VALID[challenge])
    *folders, name = place
    there = content
    for folder in folders:
        there = there[folder]
    if value is ABSENT:
        del there[name]
    else:
        there[name] = value
    return content


# the only detection of a submission
DETECTION = ("results", "v", 0)


@pytest.mark.parametrize(
    ("challenge", "place", "value", "words"),
    [
        ("activitynet", ["version"], ABSENT, "version is None, expected 'VERSION 1.3'"),
        ("activitynet", ["external_data"], {}, "external_data: expected 'used'"),
        ("activitynet", ["results", "w"], ABSENT, "results lacks videos: 'w'"),
        ("activitynet", ["results", "x"], [], "results has unknown videos: 'x'"),
        ("activitynet", [*DETECTION, "label"], "Jump", "the label 'Jump', which is none"),
        ("activitynet", [*DETECTION, "score"], float("nan"), "score that is no finite number"),
        ("activitynet", [*DETECTION, "segment"], [2.0, 1.0], "lie within its video"),
        ("activitynet", [*DETECTION, "segment"], [2.0, 11.0], "lie within its video"),
        ("activitynet", [*DETECTION, "segment"], [2.0], r"not \[start, end\]"),
        ("epic", ["sls_pt"], 6, "sls_pt is 6, expected 0 to 5"),
        ("epic", [*DETECTION, "verb"], 97, "verb that is no number from 0 to 96"),
        ("epic", [*DETECTION, "noun"], "12", "noun that is no number from 0 to 299"),
        ("epic", [*DETECTION, "action"], "12,6", "not 'verb,noun'"),
        ("ego4d", ["challenge"], "ego4d_nlq", "challenge is 'ego4d_nlq'"),
        ("ego4d", ["retrieve_results"], ABSENT, "retrieve_results: expected an object"),
        ("activitynet", ["results", "v"], [], "results: no detection at all"),
        ("activitynet", [*DETECTION, "label"], ["jump"], "none of the classes"),
        ("activitynet", ["results", "v"], ["x"], "a detection that is no object"),
        ("activitynet", ["results", "w"], None, "no list of detections: 'w'"),
        ("epic", ["sls_td"], True, "sls_td is True, expected 0 to 5"),
    ],
)
def test_what_a_challenge_would_refuse_is_said_in_one_line(challenge, place, value, words):
    (problem,) = problems(challenge, changed(challenge, place, value))
    assert re.search(words, problem)


def test_many_like_problems_are_one_line():
    wrong = [{"label": "fall", "score": 0.5, "segment": [1.0, 2.5]}] * 5
    (problem,) = problems("ego4d", VALID["ego4d"] | {"detect_results": {"v": wrong, "w": []}})
    what = "detect_results has the label 'fall', which is none of the classes"
    assert problem == f"{what}: 'v', detection 0 and 4 more"


@pytest.fixture
def ego4d(tmp_path, monkeypatch):
    """A working folder in which the demo's Ego4D row has detected in one of two clips."""
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment("ego4d_slowfast", "demo")
    clip = {
        "subset": "val",
        "duration": 20.0,
        "annotations": [{"segment": [1.0, 2.0], "label": "jump"}],
    }
    content = {"database": {"v": clip, "w": clip, "t": clip | {"subset": "test"}}}
    writing.write_json(layout.database_of(experiment), content)
    found = [
        {"label": "jump", "score": 0.5, "segment": [1.0, 2.5]},
        {"label": "jump", "score": 0.4, "segment": [1.0, 1.0]},
    ]
    run = layout.run("demo", experiment.name, 0)
    writing.write_json(run / "detections.json", {"results": {"v": found}})
    return experiment


def options(**changes):
    return {
        "subset": None,
        "detections": None,
        "external_data": None,
        "levels": (2, 3, 3),
    } | changes


def test_a_row_is_exported_with_every_evaluated_video_and_without_what_has_no_extent(
    ego4d, tmp_path
):
    said = outputs.export("ego4d", ego4d, 0, **options(), out=tmp_path / "out.json")
    assert said.endswith("out.json: 1 detections in 2 videos, valid for ego4d")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["detect_results"] == {
        "v": [{"label": "jump", "score": 0.5, "segment": [1.0, 2.5]}],
        "w": [],
    }
    assert "valid" in outputs.check_submission("ego4d", ego4d, tmp_path / "out.json", subset=None)


@pytest.mark.parametrize(
    ("challenge", "changes", "words"),
    [
        ("activitynet", {}, "Ego4D-MQ is not what the challenge 'activitynet' is about"),
        ("ego4d", {"subset": "test"}, "detections are of subset 'val'; for 'test' give those"),
        ("ego4d", {"subset": "exam"}, "no video of subset 'exam'; there are test, val"),
    ],
)
def test_what_cannot_be_submitted_is_not_written(ego4d, tmp_path, challenge, changes, words):
    with pytest.raises(InputError, match=words):
        outputs.export(challenge, ego4d, 0, **options(**changes), out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


# -------------------------------------------------------------------------------------------- ONNX


# a network of two levels
SHORT = {"branch_blocks": 1, "regression_range": ((0.0, 4.0), (4.0, 10000.0))}


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        ("thumos14_i3d", {}),
        ("ego4d_slowfast", SHORT | {"attention_window": (9, -1)}),
        ("multithumos_i3d", SHORT),
    ],
)
def test_the_onnx_file_computes_what_the_network_computes(tmp_path, row, changes):
    """Windowed attention, full attention, no stem; all levels, or two.

    The export itself compares, and says how far apart they are.
    """
    path, experiment, _ = weights_file(tmp_path, row, **changes)
    said = outputs.export_onnx(path, length=64, out=tmp_path / "model.onnx", say=print)
    assert "for videos of up to 64 steps" in said
    facts = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert facts["classes"][0] == "class 0"
    assert facts["experiment"]["name"] == experiment.name


SMALL = {**SHORT, "stem_blocks": 0, "embed_convs": 1, "head_convs": 1}


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch, wrong):
    """One wrong score, of a video that fills the file only half."""
    path, _, _ = weights_file(tmp_path, **SMALL)
    run = onnxruntime.InferenceSession.run

    def disturbed(session, names, feed):
        segments, scores, valid = run(session, names, feed)
        scores[0, 0, 0] += wrong if feed["mask"].sum() == 17 else 0
        return segments, scores, valid

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", disturbed)
    words = r"differs from the network by (1\.0e-03|nan), more than 0\.0001"
    with pytest.raises(InputError, match=words):
        outputs.export_onnx(path, length=32, out=tmp_path / "model.onnx", say=print)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt"]


# ----------------------------------------------------------------------------------------- console


def test_a_log_gets_a_plain_line_now_and_then(monkeypatch, capsys):
    """Of ten steps of 12 s each: after every 30 s, how far it is and how long it will take."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    for _ in progress.progress(range(10), "pack", unit="file"):
        now += 12
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pack: 3 of 10 (file), 0:00:36 so far, 0:01:24 left"
    assert len(lines) == 3
    assert "\r" not in "".join(lines)


def test_the_screen_hears_now_and_then_of_a_training_whose_log_hears_of_every_epoch(
    tmp_path, monkeypatch, capsys
):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    said = []
    log = RunLog(load_experiment("thumos14_i3d", "demo"), tmp_path, {"seed": 3}, {}, said.append)
    for epoch in range(4):
        now += 12
        log.epoch_finished(
            epoch,
            {"loss/total": 1.0, "learning_rate": 0.1, "videos_per_second": 2.0, "seconds": 12.0},
        )
    assert len(said) == 4
    epochs = log._experiment.training.epochs
    left = progress.clock(12.0 * (epochs - 3))
    assert capsys.readouterr().err == f"thumos14_i3d, seed 3: epoch 3/{epochs}, {left} left\n"


def test_status_tells_missing_running_stopped_trained_done_and_outdated_apart(ego4d):
    run = layout.run("demo", ego4d.name, 0)
    (run / "detections.json").unlink()

    def state():
        found = status.run_status(ego4d, 0)
        return found.state, found.epoch, found.next_stage

    assert state() == ("missing", 0, "fetch")
    for path in [*layout.annotation_files_of(ego4d), layout.features_of(ego4d)]:
        writing.write_text(path, "")
    assert state() == ("missing", 0, "pack ego4d slowfast")
    writing.write_json(run / layout.PROGRESS, {"epoch": 3, "epochs": 14, "seconds": 30.0})
    with FileLock(run / ".lock"):
        assert state() == ("running", 3, "train")
        assert status.run_status(ego4d, 0).seconds_left == pytest.approx(110)
    other = ego4d.model_copy(update={"training": ego4d.training.model_copy(update={"lr": 0.5})})
    begun = {"made_with": keys.record("train", other, {"seed": 0})}
    checkpoint.save(run / "checkpoint.pt", begun)
    assert state()[:2] == ("outdated", 3)  # it would not be gone on with
    assert status.run_status(ego4d, 0).why == ["training.lr: 0.5 -> 0.002"]
    checkpoint.save(run / "checkpoint.pt", {"made_with": keys.record("train", ego4d, {"seed": 0})})
    assert state()[:2] == ("stopped", 3)
    writing.write_text(layout.store_of(ego4d), "")
    writing.write_json(layout.audit(ego4d), {})
    writing.write_text(run / "model.pt", "")
    rows = [f"{epoch},10\n" for epoch in range(14)]
    writing.write_text(run / "history.csv", "epoch,seconds\n" + "".join(rows))
    assert state() == ("trained", 14, "detect")
    writing.write_json(run / "detections.json", {"results": {}})
    assert state() == ("trained", 14, "evaluate")

    def made(stage, experiment=ego4d, **inputs):
        return {"md5": stage, "made_with": keys.record(stage, experiment, inputs)}

    writing.write_json(run / "metrics.json", {"percent": {"mAP/average": 50.0}})
    assert state() == ("outdated", 14, "train")  # it does not say what it was made with
    writing.write_json(run / "model.manifest.json", made("train", seed=0))
    writing.write_json(run / "detections.manifest.json", made("detect", model="train"))
    metrics = {"percent": {"mAP/average": 50.0}}
    writing.write_json(run / "metrics.json", metrics | made("evaluate", detections="detect"))
    assert state() == ("done", 14, "")
    writing.write_json(run / "model.manifest.json", made("train", other, seed=0))
    assert state() == ("outdated", 14, "train")
    assert status.run_status(ego4d, 0).why == ["training.lr: 0.5 -> 0.002"]
    writing.write_json(run / "model.manifest.json", made("train", seed=0) | {"md5": "another"})
    assert state() == ("outdated", 14, "detect")


def test_a_missing_frame_rate_is_said_before_torch_is_imported(tmp_path):
    experiment = load_experiment("thumos14_i3d", "demo")
    (tmp_path / "params.yaml").write_text(as_yaml(experiment))
    (tmp_path / "video.npy").touch()
    code = (
        "import sys; from actionformer.commands.main import main;"
        "code = main(['predict', '--weights', 'model.pt', '--features', 'video.npy']);"
        "print(code, 'torch' in sys.modules)"
    )
    done = run_command(tmp_path, sys.executable, "-c", code)
    assert done.stdout.split() == ["1", "False"]
    assert "frames per second (fps)" in done.stderr


@pytest.mark.parametrize(("command", "words"), [("export", "begins anew"), ("train", "goes on")])
def test_a_stopped_command_says_what_the_same_command_will_do(monkeypatch, capsys, command, words):
    def stopped(args):
        raise KeyboardInterrupt

    chosen = {found.name: found for found in COMMANDS}[command]
    monkeypatch.setattr(main_module, "COMMANDS", [replace(chosen, run=stopped)])
    arguments = ["onnx", "thumos14_i3d"] if command == "export" else ["thumos14_i3d"]
    assert main_module.main([command, *arguments]) == 130
    assert f"interrupted; the same command {words}" in capsys.readouterr().err
