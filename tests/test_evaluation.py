"""mAP and recall@kx against the published evaluator's, and on real detections."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from actionformer import load_experiment
from actionformer.data.annotations import load_database
from actionformer.data.detections import DetectionArrays
from actionformer.data.publishers import convert
from actionformer.errors import InputError
from actionformer.evaluation import mean_average_precision, recall_at_kx
from actionformer.evaluation.average_precision import (
    interpolated_average_precision,
    interpolated_precision,
)
from actionformer.evaluation.summary import metrics_of
from actionformer.files import writing
from actionformer.params.experiment import EvaluationParams
from actionformer.params.files import names
from actionformer.stages.evaluate import evaluate_files
from actionformer.stages.figures import report_files
from conftest import REAL, run_command


@pytest.mark.skipif(
    not REAL.exists(), reason="the real detections lie beside the checkout, in ../shared/real"
)
def test_real_detections_score_what_was_published_of_them():
    folder = REAL / "autoloc_th14"
    tiou = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    result = mean_average_precision(
        folder / "annotations.json", folder / "detections.json", subset="test", tiou_thresholds=tiou
    )
    expected = [0.4667, 0.4171, 0.3577, 0.2902, 0.2121, 0.1340, 0.0580, 0.0156, 0.0021]
    np.testing.assert_array_equal(result.map_U.round(4), expected)


def annotated(segments):
    """Of (start, end, label)."""
    return [{"segment": [start, end], "label": label} for start, end, label in segments]


def database(videos):
    entries = {}
    for name, segments in videos.items():
        entries[name] = {
            "subset": "validation",
            "duration": 100.0,
            "annotations": annotated(segments),
        }
    return {"database": entries}


SEGMENTS = st.lists(
    st.tuples(st.integers(0, 80), st.integers(1, 19), st.sampled_from("ab")).map(
        lambda t: (t[0], t[0] + t[1], t[2])
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda t: (*t[2:], t[0] // 20),
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), SEGMENTS, min_size=1))
def test_the_ground_truth_itself_scores_100(videos):
    results = {}
    for name, segments in videos.items():
        results[name] = [annotation | {"score": 1.0} for annotation in annotated(segments)]
    result = mean_average_precision(
        database(videos), results, subset="validation", tiou_thresholds=[0.3, 0.95]
    )
    assert result.average == 1.0
    recall = recall_at_kx(database(videos), results, subset="validation", tiou_thresholds=[0.5])
    assert (recall.recall_UX == 1.0).all()


FOUND = st.lists(
    # few scores, so that there are ties; "c" is a class without ground truth
    st.tuples(
        st.floats(0, 90), st.floats(0, 90), st.sampled_from("abc"), st.sampled_from([0.1, 1])
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), FOUND, min_size=1))
def test_detections_score_the_same_as_arrays_and_as_the_list_that_a_file_holds(found):
    truth = database({"v1": [(1, 20, "a"), (30, 60, "b")], "v2": [(5, 50, "a")]})
    arrays = {}
    for video, detections in found.items():
        segments_N2 = np.array([[start, end] for start, end, _, _ in detections])
        labels = [label for _, _, label, _ in detections]
        scores_N = np.array([score for _, _, _, score in detections], np.float64)
        arrays[video] = DetectionArrays(segments_N2, scores_N, labels)
    lists = {video: list(detections) for video, detections in arrays.items()}

    def scored(results):
        try:
            params = EvaluationParams(recall_top_k=(1, 5))
            return metrics_of(load_database(truth), results, params, "validation")
        except InputError as error:
            return str(error)

    assert scored(arrays) == scored(lists)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=30))
def test_average_precision_is_the_area_under_the_precision_of_the_curves(found):
    """At three thresholds; digit by digit, as it is summed in the same order."""
    correct_NU = np.array(found)
    area_U = (interpolated_precision(correct_NU) * correct_NU).sum(0)
    assert interpolated_average_precision(correct_NU, 7).tolist() == (area_U / 7).tolist()


def test_a_second_detection_of_the_same_segment_is_a_false_positive():
    truth = database({"v": [(10, 20, "a"), (50, 60, "a")]})
    hits = [{"segment": [10, 20], "label": "a", "score": s} for s in (0.9, 0.8)]
    hits.append({"segment": [50, 60], "label": "a", "score": 0.7})
    result = mean_average_precision(truth, {"v": hits}, subset="validation", tiou_thresholds=[0.5])
    assert result.average == pytest.approx((1 + 2 / 3) / 2)


def test_subsets_are_compared_by_equality():
    with pytest.raises(
        InputError, match="subset 'val' has no ground truth; subsets of the database: validation"
    ):
        mean_average_precision(
            database({"v": [(1, 2, "a")]}), {}, subset="val", tiou_thresholds=[0.5]
        )


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (
            {"v.mp4": [{"segment": [10, 20], "label": "a", "score": 1.0}]},
            "no video of the detections .*v.mp4",
        ),
        (
            {"v": [{"segment": [10, 20], "label": "A", "score": 1.0}]},
            "no detection has a label .*'A'",
        ),
    ],
)
def test_detections_of_other_ground_truth_are_refused_and_not_scored_0(results, words):
    truth = database({"v": [(10, 20, "a")]})
    with pytest.raises(InputError, match=words):
        mean_average_precision(truth, results, subset="validation", tiou_thresholds=[0.5])
    with pytest.raises(InputError, match=r"\[50\]: expected numbers above 0, at most 1"):
        mean_average_precision(truth, results, subset="validation", tiou_thresholds=[50])


def test_the_order_of_equals_alone_moves_map_by_more_than_the_published_orders_difference():
    """The oracle made of ties: shuffled equals spread further than ours lies from its value."""
    case = oracle.read("eval/results.json")["ties"]
    truth, results = oracle.read("eval/ties_gt.json"), oracle.read("eval/ties_pred.json")["results"]
    options = {"subset": "validation", "tiou_thresholds": case["tiou"]}
    rng, averages = random.Random(0), []
    for _ in range(20):
        shuffled = {}
        for video in rng.sample(list(results), len(results)):
            shuffled[video] = rng.sample(results[video], len(results[video]))
        averages.append(mean_average_precision(truth, shuffled, **options).average)
    ours = mean_average_precision(truth, results, **options).average
    assert abs(ours - case["metrics"]["average_mAP"]) < (max(averages) - min(averages)) / 4
    assert min(averages) <= case["metrics"]["average_mAP"] <= max(averages)


@pytest.mark.parametrize(
    ("segment", "label", "counted"),
    [
        ([1.0, 5.0], "a", 1),  # the same again
        ([1.0009, 4.9991], "a", 1),  # both ends within a thousandth
        ([1.0011, 5.0], "a", 2),
        ([1.0, 5.0011], "a", 2),
        ([1.0, 5.0], "b", 2),  # of another class
        ([3.0, 3.0], "a", 1),  # no extent
    ],
)
def test_ground_truth_without_extent_or_said_twice_does_not_count(segment, label, counted):
    """METHOD section 5, item 6: the counts decide every recall."""
    annotations = [{"segment": [1.0, 5.0], "label": "a"}, {"segment": segment, "label": label}]
    content = {"database": {"v": {"subset": "test", "duration": 10.0, "annotations": annotations}}}
    found = {"v": [{"segment": [1.0, 5.0], "label": "a", "score": 0.9}]}
    result = mean_average_precision(content, found, subset="test", tiou_thresholds=[0.5])
    assert int(result.instances_K.sum()) == counted


# ------------------------------------------------------------------------ the standalone evaluator


@pytest.mark.parametrize("wrong", [{"segment": [float("nan"), 2.0]}, {"score": float("nan")}])
def test_a_nan_among_times_or_scores_is_refused(wrong):
    truth = {"segment": [1.0, 2.0], "label": "a"}
    video = {"subset": "test", "duration": 9.0, "annotations": [truth]}
    found = [truth | {"score": 0.5}, truth | {"score": 0.5} | wrong]
    with pytest.raises(InputError, match="detections of video 'v': NaN"):
        mean_average_precision(
            {"database": {"v": video}}, {"v": found}, subset="test", tiou_thresholds=[0.5]
        )


def noisy(database, subset, classes, rng):
    """Detections near the ground truth of a subset, some of them wrong, some in blocked videos."""
    results = {}
    for video in database.subset(subset):
        found = []
        for (start, end), label in zip(video.segments_G2.tolist(), video.labels, strict=True):
            shift = rng.normal(0, 0.2 * max(end - start, 1e-3), 2)
            named = label if rng.random() < 0.8 else str(rng.choice(classes))
            segment = [start + shift[0], end + abs(shift[1])]
            found.append({"segment": segment, "label": named, "score": round(rng.random(), 4)})
        results[video.name] = found
    return results


TRUTH = {"segment": [1.0, 2.0], "label": "a"}
FOUND = {"segment": [1.0, 2.0], "label": "a", "score": 0.5}


def truth(**more):
    return {"database": {"v": {"subset": "test", "duration": 9, "annotations": [TRUTH]} | more}}


@pytest.mark.parametrize(
    ("annotations", "detections", "words"),
    [
        (truth(annotations=[TRUTH | {"segment": [2, 1]}]), [FOUND], "reversed segment"),
        (truth(annotations=[TRUTH | {"segment": [1, 2, 3]}]), [FOUND], "too many values"),
        (truth(annotations=[TRUTH | {"segment": "12"}]), [FOUND], "expected a list, found '12'"),
        (truth(annotations=[TRUTH | {"segment": [True, 2]}]), [FOUND], "a number, found true"),
        (truth(annotations=[TRUTH | {"label": None}]), [FOUND], "expected a text, found null"),
        (
            {"database": {"v": {"subset": "test", "duration": 9, "annotation": [TRUTH]}}},
            [FOUND],
            "it has no 'annotations', but 'annotation'",
        ),
        (truth(), [FOUND | {"segment": [1, 2, 3]}], "a segment of other than two times"),
        (truth(), [FOUND | {"segment": "12"}], "a time or score that is str"),
        (truth(), [FOUND | {"segment": [True, 2]}], "a time or score that is bool"),
        (truth(), [FOUND | {"score": "0.5"}], "a time or score that is str"),
        (truth(), [FOUND | {"label": None}], "a label that is NoneType"),
        (truth(), [{"segment": [1, 2], "label": "a"}], "one lacks 'score'"),
    ],
)
def test_what_would_be_ignored_is_refused(tmp_path, annotations, detections, words):
    """By a line that names the file."""
    writing.write_json(tmp_path / "a.json", annotations)
    writing.write_json(tmp_path / "d.json", {"results": {"v": detections}})
    params = EvaluationParams(tiou=(0.5,))
    paths = tmp_path / "a.json", tmp_path / "d.json"
    with pytest.raises(InputError, match=words) as refused:
        evaluate_files(*paths, params, subset="test", out=tmp_path / "out.json")
    assert re.search("[ad].json", str(refused.value))
    assert not (tmp_path / "out.json").exists()


def test_what_the_published_evaluation_takes_is_said(tmp_path):
    """How often, and how it counts."""
    late = TRUTH | {"segment": [8.0, 9.5]}
    writing.write_json(tmp_path / "a.json", truth(annotations=[TRUTH, late]))
    backwards, unknown = FOUND | {"segment": [2.0, 1.0]}, FOUND | {"label": "x"}
    results = {"v": [FOUND, backwards, unknown], "w": [FOUND]}
    writing.write_json(tmp_path / "d.json", {"results": results})
    paths = tmp_path / "a.json", tmp_path / "d.json"
    params = EvaluationParams(tiou=(0.5,))
    said, _ = evaluate_files(*paths, params, subset="test", out=tmp_path / "out.json")
    assert said.splitlines()[1:] == [
        "  1 annotated segments end after their video does, and count",
        "  1 detections have a label that subset test lacks, and don't count",
        "  1 detections lie in videos outside subset test, and count as false",
        "  1 detections end before they start, and count as false",
    ]


@pytest.mark.parametrize("row", names("experiments"))
def test_two_files_score_what_the_row_scores(row, demo_data, tmp_path):
    """Blocked videos, label fields and recall included, for all rows."""
    experiment = load_experiment(row, "demo")
    dataset, evaluation = experiment.dataset, experiment.evaluation
    content = convert(dataset, demo_data / experiment.data.dataset)
    database = load_database(content, experiment.data.label_field)
    results = noisy(database, dataset.eval_subset, database.classes, np.random.default_rng(0))
    writing.write_json(tmp_path / "database.json", content)
    writing.write_json(tmp_path / "detections.json", {"results": results})
    paths = [tmp_path / "database.json", tmp_path / "detections.json"]
    options = {"subset": dataset.eval_subset, "out": tmp_path / "evaluation.json"}
    options["label_field"] = experiment.data.label_field
    blocked = evaluation.model_copy(update={"use_blocked_list": True})  # as the command has it
    said, percent = evaluate_files(*paths, blocked, **options)
    assert percent == metrics_of(database, results, evaluation, dataset.eval_subset)["percent"]
    assert ("of its blocked list" in said) == evaluation.use_blocked_list
    if evaluation.use_blocked_list:
        unblocked = evaluation.model_copy(update={"use_blocked_list": False})
        _, with_blocked = evaluate_files(*paths, unblocked, **options)
        assert with_blocked != percent


def test_what_is_said_of_blocked_videos_is_nothing_since_they_are_left_out(tmp_path):
    odd = {"subset": "test", "duration": 10, "annotations": [{"label": "a", "segment": [1, 50]}]}
    content = {"database": {"kept": odd, "blocked": odd}, "blocked": ["blocked"]}
    backwards = {"label": "a", "segment": [5, 1], "score": 0.5}
    results = {"kept": [backwards], "blocked": [backwards, {"label": "no segment"}]}
    writing.write_json(tmp_path / "database.json", content)
    writing.write_json(tmp_path / "detections.json", {"results": results})
    said, _ = evaluate_files(
        tmp_path / "database.json",
        tmp_path / "detections.json",
        EvaluationParams(tiou=(0.5,), use_blocked_list=True),
        subset="test",
        out=tmp_path / "evaluation.json",
    )
    assert "1 annotated segments end after their video does" in said
    assert "1 detections end before they start" in said


def test_a_diagnosis_of_two_files_leaves_out_the_blocked_videos_as_the_row_does(
    demo_data, tmp_path
):
    experiment = load_experiment("activitynet_tsp", "demo")
    content = convert(experiment.dataset, demo_data / "activitynet")
    database = load_database(content)
    results = noisy(database, "validation", database.classes, np.random.default_rng(0))
    writing.write_json(tmp_path / "database.json", content)
    writing.write_json(tmp_path / "detections.json", {"results": results})
    row = metrics_of(database, results, experiment.evaluation, "validation")
    paths = [tmp_path / "database.json", tmp_path / "detections.json"]
    options = {"subset": "validation", "label_field": "label", "out": tmp_path / "page.html"}
    said = report_files(*paths, experiment.evaluation, **options)
    assert said[0].startswith(
        f"average mAP {row['percent']['mAP/average']:.2f} ({row['videos']} videos"
    )


@pytest.mark.parametrize("field", ["noun", "verb"])
def test_the_command_scores_epic_and_recall(field, demo_data, tmp_path):
    experiment = load_experiment(f"epic_{field}_slowfast", "demo")
    content = convert(experiment.dataset, demo_data / "epic")
    database = load_database(content, field)
    results = noisy(database, "val", database.classes, np.random.default_rng(0))
    writing.write_json(tmp_path / "database.json", content)
    writing.write_json(tmp_path / "detections.json", {"results": results})
    command = [
        "actionformer",
        "evaluate",
        "--annotations",
        "database.json",
        "--detections",
        "detections.json",
    ]
    options = [
        "--subset",
        "val",
        "--label-field",
        field,
        "--tiou",
        "0.3",
        "--recall-top-k",
        "1",
        "5",
    ]
    said = run_command(tmp_path, *command, *options).stdout
    params = EvaluationParams(tiou=(0.3,), recall_top_k=(1, 5))
    for name, value in metrics_of(database, results, params, "val")["percent"].items():
        assert f"{name:<16} {value:6.2f}" in said
