"""Why a detector fails: the diagnosis of Alwassel et al. (DETAD, ECCV 2018), which has no oracle.

A hand-worked case per kind of error, and what has to hold for any detections.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer.errors import InputError
from actionformer.evaluation import curves, mean_average_precision
from actionformer.evaluation.diagnosis import (
    BACKGROUND,
    CHARACTERISTICS,
    CONFUSION,
    DOUBLE,
    KINDS,
    LOCALIZATION,
    SPLITS,
    TRUE,
    WRONG_LABEL,
    diagnose,
    kinds,
    normalized_ap,
)
from actionformer.evaluation.matching import match, true_positives
from actionformer.reporting.figures.primitives import EvaluatedRun
from actionformer.reporting.figures.why_wrong import false_positives
from conftest import REAL

TIOU = [0.3, 0.5, 0.7]


def database(videos, duration=100.0):
    """Of videos -> (start, end, label)."""
    entries = {}
    for name, truth in videos.items():
        annotations = [{"segment": [s, e], "label": label} for s, e, label in truth]
        entries[name] = {"subset": "test", "duration": duration, "annotations": annotations}
    return {"database": entries}


def detected(*items):
    return [{"segment": [s, e], "label": label, "score": score} for s, e, label, score in items]


def kinds_of(truth, found, tiou=0.5):
    """Kind of every detection of video v, in the order given."""
    matched = match(database({"v": truth}), {"v": detected(*found)}, subset="test")
    result = kinds(matched, true_positives(matched, [tiou]), np.array([tiou]))[:, 0]
    kind_of = {}
    for n, (start, end) in enumerate(matched.segments_N2.tolist()):
        kind_of[start, end, matched.classes[matched.class_N[n]]] = result[n]
    return [kind_of[start, end, label] for start, end, label, _ in found]


# ground truth: a jump from 10 to 20 s, a throw from 50 to 60 s
JUMP_AND_THROW = [(10.0, 20.0, "jump"), (50.0, 60.0, "throw")]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # tIoU 9 / 10
        ([(10.0, 19.0, "jump", 0.9)], [TRUE]),
        # both overlap the jump by 0.9; the surer one finds it
        ([(10.0, 19.0, "jump", 0.9), (11.0, 20.0, "jump", 0.8)], [TRUE, DOUBLE]),
        ([(10.0, 19.0, "throw", 0.9)], [WRONG_LABEL]),
        # 4 s of 10: tIoU 0.4, between 0.1 and 0.5
        ([(10.0, 14.0, "jump", 0.9)], [LOCALIZATION]),
        ([(10.0, 14.0, "throw", 0.9)], [CONFUSION]),
        # 1 s of 19: tIoU 0.05, below 0.1
        ([(19.0, 28.0, "jump", 0.9)], [BACKGROUND]),
        ([(19.0, 28.0, "throw", 0.9)], [BACKGROUND]),
        ([(80.0, 90.0, "jump", 0.9)], [BACKGROUND]),
    ],
)
def test_a_hand_worked_case_per_kind(found, expected):
    assert kinds_of(JUMP_AND_THROW, found) == expected


def test_the_segment_that_it_overlaps_most_decides():
    """Overlapping a jump by 0.6 and a throw fully.

    A jump if none has been found there, otherwise a wrong label.
    """
    truth = [(10.0, 20.0, "jump"), (10.0, 16.0, "throw")]
    first, second = (10.0, 20.0, "jump", 0.9), (10.0, 16.0, "jump", 0.8)
    assert kinds_of(truth, [(10.0, 16.0, "jump", 0.9)]) == [TRUE]
    assert kinds_of(truth, [first, second]) == [TRUE, WRONG_LABEL]
    assert kinds_of(truth, [first, (10.0, 19.0, "jump", 0.8)]) == [TRUE, DOUBLE]
    # tIoU 0.3 with the jump and 1 with the throw
    truth = [(10.0, 30.0, "jump"), (10.0, 16.0, "throw")]
    assert kinds_of(truth, [(10.0, 16.0, "jump", 0.9)]) == [WRONG_LABEL]
    # 0.25 with the jump and 0.13 with the throw; and the other way round
    truth = [(0.0, 10.0, "jump"), (18.0, 20.0, "throw")]
    assert kinds_of(truth, [(5.0, 20.0, "jump", 0.9)]) == [LOCALIZATION]
    truth = [(0.0, 10.0, "throw"), (18.0, 20.0, "jump")]
    assert kinds_of(truth, [(5.0, 20.0, "jump", 0.9)]) == [CONFUSION]


def test_of_equal_overlaps_the_own_label_counts():
    truth = [(10.0, 20.0, "jump"), (10.0, 20.0, "throw")]
    assert kinds_of(truth, [(10.0, 14.0, "jump", 0.9)]) == [LOCALIZATION]


def test_a_detection_in_a_video_without_ground_truth_is_background():
    truth = database({"v": JUMP_AND_THROW, "empty": []})
    found = {"empty": detected((1.0, 2.0, "jump", 0.9))}
    matched = match(truth, found, subset="test")
    kinds_NU = kinds(matched, true_positives(matched, [0.5]), np.array([0.5]))
    assert kinds_NU.tolist() == [[BACKGROUND]]


def test_the_profile_takes_from_every_class_as_many_detections_as_it_has_ground_truth():
    """Two jumps, one throw: 1G has the best two jumps and the best throw, 2G the next ones."""
    truth = [(10.0, 20.0, "jump"), (30.0, 40.0, "jump"), (50.0, 60.0, "throw")]
    found = [(10.0, 20.0, "jump", 0.9), (12.0, 20.0, "jump", 0.8), (70.0, 80.0, "jump", 0.7)]
    found += [(50.0, 60.0, "throw", 0.1), (90.0, 95.0, "throw", 0.05)]
    matched = match(database({"v": truth}), {"v": detected(*found)}, subset="test")
    diagnosis = diagnose(matched, [0.5])
    expected = np.zeros((SPLITS, len(KINDS)), int)
    expected[0, TRUE], expected[0, DOUBLE], expected[1, BACKGROUND] = 2, 1, 2
    np.testing.assert_array_equal(diagnosis.counts_SE, expected)
    # one jump is never found: of two, AP is 1/2; the throw has 1
    options = {"subset": "test", "tiou_thresholds": [0.5]}
    score = mean_average_precision(database({"v": truth}), {"v": detected(*found)}, **options)
    assert score.average == pytest.approx(0.75)
    # every error comes after all that is ever found, so removing it gains nothing
    assert set(diagnosis.gains.values()) == {0.0}


def test_the_gain_of_removing_an_error_by_hand():
    """A background detection before the only true one halves its precision: AP is 1/2, not 1."""
    found = [(80.0, 90.0, "jump", 0.9), (10.0, 20.0, "jump", 0.8)]
    matched = match(database({"v": [(10.0, 20.0, "jump")]}), {"v": detected(*found)}, subset="test")
    gains = diagnose(matched, [0.5]).gains
    assert gains.pop("background error") == pytest.approx(0.5)
    assert set(gains.values()) == {0.0}


def test_sensitivity_and_misses_by_hand():
    """Videos of 100 s: a jump of 10 s is found, one of 40 s is not."""
    truth = {"v": [(10.0, 20.0, "jump")], "w": [(10.0, 50.0, "jump")]}
    matched = match(database(truth), {"v": detected((10.0, 20.0, "jump", 0.9))}, subset="test")
    bins = diagnose(matched, [0.5], {"coverage": [0.2], "length": [5, 10]}).bins
    short, long = bins["coverage"]
    assert (short.instances, short.missed, short.normalized_map) == (1, 0.0, 1.0)
    assert (long.instances, long.missed, long.normalized_map) == (1, 1.0, 0.0)
    assert [b.instances for b in bins["length"]] == [0, 1, 1]  # 10 s belongs to (5, 10]
    assert bins["length"][0].missed is None


@pytest.mark.parametrize(("wrong", "missed"), [(SPLITS - 1, 0.0), (SPLITS, 1.0), (SPLITS + 1, 1.0)])
def test_ground_truth_is_missed_that_none_of_the_best_detections_of_its_class_finds(wrong, missed):
    """One segment, so ten splits of one detection: what finds it comes as the tenth, or later."""
    items = [(60.0, 61.0, "jump", 0.9 - i / 100) for i in range(wrong)]
    found = {"v": detected(*items, (10.0, 20.0, "jump", 0.1))}
    matched = match(database({"v": [(10.0, 20.0, "jump")]}), found, subset="test")
    assert diagnose(matched, [0.5], {"length": [100]}).bins["length"][0].missed == missed


def test_misses_are_those_at_a_tiou_of_a_half_whatever_the_thresholds_of_the_row():
    """A detection from 10 to 15.1 s overlaps the only jump by 0.51, one to 14.9 s by 0.49."""
    truth = database({"v": [(10.0, 20.0, "jump")]})
    for end, missed in ((15.1, 0.0), (14.9, 1.0)):
        matched = match(truth, {"v": detected((10.0, end, "jump", 0.9))}, subset="test")
        for thresholds in ([0.1, 0.9], [0.9, 0.95], [0.55]):
            (only,) = diagnose(matched, thresholds, {"length": [100]}).bins["length"][:1]
            assert only.missed == missed


def test_the_surest_score_belongs_to_the_last_bin():
    found = {"v": detected((10.0, 20.0, "jump", 1.0), (10.0, 20.0, "jump", 0.95))}
    matched = match(database({"v": [(10.0, 20.0, "jump")]}), found, subset="test")
    (last,) = curves.calibration(matched, true_positives(matched, [0.5])[:, 0] >= 0)
    assert (last.detections, last.high) == (2, 1.0)


def test_bins_of_scores_are_tenths():
    items = [(10.0, 20.0, "jump", 0.05), (10.0, 20.0, "jump", 0.55), (60.0, 70.0, "jump", 0.57)]
    found = {"v": detected(*items)}
    matched = match(database({"v": [(10.0, 20.0, "jump")]}), found, subset="test")
    bins = curves.calibration(matched, true_positives(matched, [0.5])[:, 0] >= 0)
    told = [(b.low, b.high, b.detections, b.mean_score, b.precision) for b in bins]
    assert told == [
        (0.0, pytest.approx(0.1), 1, 0.05, 0.0),
        (0.5, pytest.approx(0.6), 2, pytest.approx(0.56), 0.5),
    ]


def test_edges_that_do_not_rise_are_refused():
    matched = match(database({"v": JUMP_AND_THROW}), {}, subset="test")
    wrong = r"edges of length \[3.0, 2.0\]: expected one to 4 rising numbers"
    with pytest.raises(InputError, match=wrong):
        diagnose(matched, TIOU, {"length": [3, 2]})
    with pytest.raises(InputError, match="no characteristic 'size'"):
        diagnose(matched, TIOU, {"size": [3]})


# ------------------------------------------------------------------------------- what always holds


@st.composite
def instances(draw):
    """(start, end, label)"""
    start, length = draw(st.integers(0, 80)), draw(st.integers(1, 19))
    return float(start), float(start + length), draw(st.sampled_from("ab"))


@st.composite
def detections(draw):
    """(start, end, label, score)"""
    return *draw(instances()), draw(st.integers(1, 9)) / 10


VIDEOS = st.sampled_from(["v1", "v2"])
TRUTH = st.dictionaries(VIDEOS, st.lists(instances(), min_size=1, max_size=6), min_size=1)
FOUND = st.dictionaries(VIDEOS, st.lists(detections(), min_size=1, max_size=25))

# both classes have ground truth, and every video that detections may lie in is known
ALWAYS = {"v0": [(0.0, 9.0, "a"), (20.0, 30.0, "b")], "v1": [], "v2": []}


def matched_of(truth, found):
    results = {name: detected(*items) for name, items in found.items()}
    return match(database(ALWAYS | truth), results, subset="test")


@settings(max_examples=60, deadline=None)
@given(TRUTH, FOUND)
def test_profiles_sum_to_100_percent_and_count_every_detection_once(truth, found):
    matched = matched_of(truth, found)
    diagnosis = diagnose(matched, TIOU)
    np.testing.assert_allclose(diagnosis.profile_SE.sum(1), 100)
    shown: dict[str, float] = {}
    run = EvaluatedRun(0, [], {}, diagnosis.as_json())
    for bar in false_positives([run]).spec["data"]["values"]:
        shown[bar["split"]] = shown.get(bar["split"], 0) + bar["share"]
    np.testing.assert_allclose(list(shown.values()), 100)
    ranks = [np.sum(matched.class_N == k) for k in range(len(matched.classes))]
    limits = SPLITS * matched.instances_K
    assert diagnosis.counts_SE.sum() == np.minimum(ranks, limits).sum()
    for what in CHARACTERISTICS:
        assert sum(b.instances for b in diagnosis.bins[what]) == len(matched.truth_G2)


@settings(max_examples=60, deadline=None)
@given(TRUTH, FOUND)
def test_removing_an_error_never_lowers_map_and_gains_what_evaluation_without_it_says(truth, found):
    matched = matched_of(truth, found)
    kinds_N = kinds(matched, true_positives(matched, [0.5]), np.array([0.5]))[:, 0]
    videos = ALWAYS | truth
    results: dict[str, list] = {}
    names = [matched.videos[v] if v >= 0 else "nowhere" for v in matched.video_N]
    for n, name in enumerate(names):
        item = {
            "segment": matched.segments_N2[n].tolist(),
            "label": matched.classes[matched.class_N[n]],
            "score": 1 - n / len(names),
            "kind": KINDS[kinds_N[n]],
        }
        results.setdefault(name, []).append(item)
    options = {"subset": "test", "tiou_thresholds": [0.5]}

    def score(without):
        left = {"v0": []}
        for name, items in results.items():
            left[name] = [item for item in items if item["kind"] != without]
        known = database(videos | {"nowhere": []})
        return mean_average_precision(known, left, **options).average

    before = score(None) if names else 0.0
    for kind, gain in diagnose(matched, [0.5]).gains.items():
        assert gain >= 0
        if any(k != KINDS.index(kind) for k in kinds_N):
            assert score(kind) - before == pytest.approx(gain)


@settings(max_examples=60, deadline=None)
@given(TRUTH, FOUND)
def test_curves_agree_with_map(truth, found):
    """With as many segments as the mean class, normalising changes nothing."""
    matched = matched_of(truth, found)
    found_NU = true_positives(matched, TIOU)
    everything = np.ones(len(matched.truth_G2), bool)
    if len(set(matched.instances_K.tolist())) == 1:
        results = normalized_ap(matched, found_NU, everything).mean()
        assert results == pytest.approx(diagnose(matched, TIOU).normalized_map)
    precision_UR = curves.precision_recall(matched, found_NU >= 0)
    assert (np.diff(precision_UR, axis=1) <= 1e-12).all()  # interpolated: never rises with recall
    binned = curves.calibration(matched, found_NU[:, 1] >= 0)
    assert sum(b.detections for b in binned) == len(matched.scores_N)
    assert all(b.low - 1e-12 <= b.mean_score <= b.high + 1e-12 for b in binned)
    videos = curves.per_video(matched, found_NU >= 0)
    assert sum(v["instances"] for v in videos.values()) == len(matched.truth_G2)
    assert all(0 <= v["ap"] <= 1 for v in videos.values())


def test_the_area_below_precision_and_recall_is_the_map():
    """Ten segments, nine found before any error: 0.9 of the area, to within a step of recall."""
    truth = [(float(10 * i), float(10 * i + 5), "a") for i in range(10)]
    found = [(s, e, "a", 0.9 - i / 100) for i, (s, e, _) in enumerate(truth[:9])]
    matched = match(database({"v": truth}), {"v": detected(*found)}, subset="test")
    (precision_R,) = curves.precision_recall(matched, true_positives(matched, [0.5]) >= 0)
    assert precision_R[curves.RECALL_LEVELS <= 0.9 + 1e-9].min() == 1
    assert precision_R[curves.RECALL_LEVELS > 0.9 + 1e-9].max() == 0


@pytest.mark.skipif(
    not REAL.exists(), reason="the real detections lie beside the checkout, in ../shared/real"
)
def test_a_weakly_supervised_detector_is_limited_by_background_and_boundaries():
    """AutoLoc learns from labels of videos: it knows what happens, and hardly where it begins."""
    folder = REAL / "autoloc_th14"
    matched = match(folder / "annotations.json", folder / "detections.json", subset="test")
    gains = diagnose(matched, TIOU).gains
    ranked = sorted(gains, key=lambda kind: -gains[kind])
    assert ranked[:2] == ["background error", "localization error"]


# ---------------------------------------------------------------- by the definitions, step by step


def slow_normalized_ap(matched, found_N, chosen, k):
    """AP_N of a class, detection by detection: R M / (R M + F), interpolated from behind."""
    segments = [g for g in range(len(chosen)) if chosen[g] and matched.truth_class_G[g] == k]
    mean_class = len(chosen) / len(matched.classes)
    correct, points, false = 0, [], 0
    for n in range(len(found_N)):
        if matched.class_N[n] != k or (found_N[n] >= 0 and not chosen[found_N[n]]):
            continue
        if found_N[n] >= 0:
            correct += 1
        else:
            false += 1
        weighted = correct / len(segments) * mean_class
        points.append((found_N[n] >= 0, weighted / max(weighted + false, 1e-12)))
    total = 0.0
    for rank, (is_correct, _) in enumerate(points):
        if is_correct:
            total += max(precision for _, precision in points[rank:])
    return total / len(segments)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31))
def test_normalized_ap_is_what_its_definition_says_for_any_part_of_the_ground_truth(seed):
    """What finds a segment outside the part is neither right nor wrong, all else is wrong."""
    rng = np.random.default_rng(seed)
    truth, found = {}, {}
    for v in "uvw":
        truth[v] = []
        for i in range(6):
            truth[v].append((10.0 * i, 10.0 * i + rng.uniform(3, 8), rng.choice(["a", "b"])))
        items = []
        for start, end, label in truth[v]:
            for _ in range(rng.integers(0, 3)):
                named = label if rng.random() < 0.8 else "a"
                early, late = rng.uniform(-2, 2), rng.uniform(0, 2)
                items.append((start + early, end + late, named, rng.random()))
        found[v] = detected(*items)
    matched = match(database(truth), found, subset="test")
    found_N = true_positives(matched, [0.5])[:, 0]
    chosen = rng.random(len(matched.truth_G2)) < 0.6
    with_chosen = sorted(set(matched.truth_class_G[chosen].tolist()))
    ours = normalized_ap(matched, found_N[:, None], chosen)[:, 0]
    expected = [slow_normalized_ap(matched, found_N, chosen, k) for k in with_chosen]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_the_ap_of_a_video_is_that_of_its_own_ground_truth_class_by_class():
    """Each video and class evaluated alone, then averaged over the classes that the video has."""
    truth = {
        "u": [(0, 5, "a"), (10, 15, "a"), (20, 25, "b")],
        "v": [(0, 5, "a"), (30, 38, "b"), (40, 48, "b")],
    }
    found = {
        "u": detected((0, 5, "a", 0.9), (50, 55, "a", 0.8), (10, 15, "a", 0.7), (21, 25, "b", 0.6)),
        "v": detected((1, 5, "a", 0.9), (30, 38, "b", 0.4), (60, 68, "b", 0.5)),
    }
    matched = match(database(truth), found, subset="test")
    videos = curves.per_video(matched, true_positives(matched, TIOU) >= 0)
    for name in truth:
        scores = []
        for label in sorted({label for _, _, label in truth[name]}):
            alone = {name: [item for item in truth[name] if item[2] == label]}
            own = {name: [item for item in found[name] if item["label"] == label]}
            options = {"subset": "test", "tiou_thresholds": TIOU}
            scores.append(mean_average_precision(database(alone), own, **options).average)
        assert videos[name] == {"instances": 3, "ap": pytest.approx(np.mean(scores), rel=1e-12)}


def test_precision_is_the_mean_over_classes():
    """The jump is found, the throw isn't: 1 and 0 at every recall."""
    found = {"v": detected((10.0, 20.0, "jump", 0.9), (80.0, 90.0, "throw", 0.9))}
    matched = match(database({"v": JUMP_AND_THROW}), found, subset="test")
    precision_UR = curves.precision_recall(matched, true_positives(matched, [0.5]) >= 0)
    np.testing.assert_array_equal(precision_UR[0], 0.5)


def test_precision_at_a_recall_is_the_best_from_there_on():
    """A wrong detection, then the right one: precision 1/2 at every recall."""
    found = {"v": detected((60.0, 70.0, "jump", 0.9), (10.0, 20.0, "jump", 0.8))}
    matched = match(database({"v": [(10.0, 20.0, "jump")]}), found, subset="test")
    precision_UR = curves.precision_recall(matched, true_positives(matched, [0.5]) >= 0)
    np.testing.assert_array_equal(precision_UR[0, 1:], 0.5)


def diagnosis_of_videos(truth, found):
    """Of videos -> ground truth, and -> detections."""
    results = {name: detected(*items) for name, items in found.items()}
    return diagnose(match(database(truth), results, subset="test"), [0.5])


def test_the_gain_of_missed_ground_truth_by_hand():
    """Of two segments one is found: were the other found first, precision would be 1 throughout."""
    truth = {"v": [(0.0, 1.0, "jump"), (5.0, 6.0, "jump")]}
    found = {"v": [(0.0, 1.0, "jump", 0.5)]}
    assert diagnosis_of_videos(truth, found).missed_gain == pytest.approx(0.5)


def test_where_nothing_is_missed_nothing_is_gained():
    truth, found = {"v": [(0.0, 1.0, "jump")]}, {"v": [(0.0, 1.0, "jump", 0.5)]}
    assert diagnosis_of_videos(truth, found).missed_gain == 0


def test_confused_classes_are_counted_with_their_videos():
    """By the segment of another class that is overlapped most; background confuses nothing."""
    truth = {
        "v": [(0.0, 10.0, "jump"), (20.0, 30.0, "run"), (40.0, 41.0, "sit")],
        "w": [(0.0, 10.0, "jump"), (2.0, 3.0, "sit"), (50.0, 60.0, "run")],
    }
    found = {
        "v": [(0.0, 10.0, "run", 0.9), (20.0, 30.0, "run", 0.8)],
        "w": [(1.0, 10.0, "run", 0.95), (0.0, 10.0, "jump", 0.9), (90.0, 99.0, "sit", 0.9)],
    }
    (pair,) = diagnosis_of_videos(truth, found).confusions
    assert (pair.truth, pair.detected, pair.count) == ("jump", "run", 2)
    assert set(pair.videos) == {"v", "w"}
