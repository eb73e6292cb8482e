"""mAP and recall@kx against the published evaluator's, and on real detections."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from actionformer.errors import InputError
from actionformer.evaluation import mean_average_precision, recall_at_kx
from conftest import REAL


@pytest.mark.skipif(not REAL.exists(), reason="the real detections lie beside the checkout, in ../shared/real")
def test_real_detections_score_what_was_published_of_them():
    folder = REAL / "autoloc_th14"
    tiou = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    result = mean_average_precision(
        folder / "annotations.json", folder / "detections.json", subset="test", tiou_thresholds=tiou
    )
    expected = [0.4667, 0.4171, 0.3577, 0.2902, 0.2121, 0.1340, 0.0580, 0.0156, 0.0021]
    np.testing.assert_array_equal(result.map_U.round(4), expected)


def database(videos):
    return {
        "database": {
            name: {
                "subset": "validation",
                "duration": 100.0,
                "annotations": [{"segment": list(segment), "label": label} for *segment, label in annotations],
            }
            for name, annotations in videos.items()
        }
    }


SEGMENTS = st.lists(
    st.tuples(st.integers(0, 80), st.integers(1, 19), st.sampled_from("ab")).map(lambda t: (t[0], t[0] + t[1], t[2])),
    min_size=1,
    max_size=8,
    unique_by=lambda t: (*t[2:], t[0] // 20),
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), SEGMENTS, min_size=1))
def test_the_ground_truth_itself_scores_100(videos):
    results = {
        name: [{"segment": [s, e], "label": label, "score": 1.0} for s, e, label in annotations]
        for name, annotations in videos.items()
    }
    result = mean_average_precision(database(videos), results, subset="validation", tiou_thresholds=[0.3, 0.95])
    assert result.average == 1.0
    recall = recall_at_kx(database(videos), results, subset="validation", tiou_thresholds=[0.5])
    assert (recall.recall_UX == 1.0).all()


def test_a_second_detection_of_the_same_segment_is_a_false_positive():
    truth = database({"v": [(10, 20, "a"), (50, 60, "a")]})
    hits = [{"segment": [10, 20], "label": "a", "score": s} for s in (0.9, 0.8)]
    hits.append({"segment": [50, 60], "label": "a", "score": 0.7})
    result = mean_average_precision(truth, {"v": hits}, subset="validation", tiou_thresholds=[0.5])
    assert result.average == pytest.approx((1 + 2 / 3) / 2)


def test_subsets_are_compared_by_equality():
    with pytest.raises(InputError, match="subset 'val' has no ground truth; subsets of the database: validation"):
        mean_average_precision(database({"v": [(1, 2, "a")]}), {}, subset="val", tiou_thresholds=[0.5])


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({"v.mp4": [{"segment": [10, 20], "label": "a", "score": 1.0}]}, "no video of the detections .*v.mp4"),
        ({"v": [{"segment": [10, 20], "label": "A", "score": 1.0}]}, "no detection has a label .*'A'"),
    ],
)
def test_detections_of_other_ground_truth_are_refused_and_not_scored_0(results, words):
    truth = database({"v": [(10, 20, "a")]})
    with pytest.raises(InputError, match=words):
        mean_average_precision(truth, results, subset="validation", tiou_thresholds=[0.5])
    with pytest.raises(InputError, match=r"\[50\]: expected numbers above 0, at most 1"):
        mean_average_precision(truth, results, subset="validation", tiou_thresholds=[50])


def test_the_order_of_equals_alone_moves_map_by_more_than_the_published_orders_difference():
    """The oracle made of ties: shuffled equals spread further than ours lies from the published value."""
    case = oracle.read("eval/results.json")["ties"]
    truth, results = oracle.read("eval/ties_gt.json"), oracle.read("eval/ties_pred.json")["results"]
    options = {"subset": "validation", "tiou_thresholds": case["tiou"]}
    rng, averages = random.Random(0), []
    for _ in range(20):
        shuffled = {
            video: rng.sample(results[video], len(results[video])) for video in rng.sample(list(results), len(results))
        }
        averages.append(mean_average_precision(truth, shuffled, **options).average)
    ours = mean_average_precision(truth, results, **options).average
    assert abs(ours - case["metrics"]["average_mAP"]) < (max(averages) - min(averages)) / 4
    assert min(averages) <= case["metrics"]["average_mAP"] <= max(averages)
