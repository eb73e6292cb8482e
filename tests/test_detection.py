"""What NMS, candidates and rounding hold for any input; the published cases are in test_parity."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actionformer import ActionFormer, load_experiment
from actionformer.data.loader import of_like_lengths
from actionformer.data.view import views
from actionformer.detection.decode import candidates, decode
from actionformer.detection.levels import levels_of_views
from actionformer.detection.nms import batched_nms, vote
from actionformer.detection.predict import predict, rounded
from actionformer.model import convolution
from actionformer.model.actionformer import Level
from actionformer.model.convolution import WIDE
from actionformer.model.layers import Conv3
from actionformer.params.experiment import ModelParams


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 90), st.floats(0.1, 20), st.floats(0.01, 1)), min_size=1, max_size=40
    ),
    st.integers(1, 40),
)
def test_soft_nms_keeps_the_best_and_never_raises_a_score(candidates_, cap):
    segments = np.array([[s, s + d] for s, d, _ in candidates_], np.float32)
    scores = np.array([score for _, _, score in candidates_], np.float32)
    labels = np.zeros(len(scores), np.int64)
    options = {"sigma": 0.5, "min_score": 0.001, "per_class": True, "voting_threshold": 0.0}
    _, all_scores, _ = batched_nms(segments, scores, labels, max_segments=1000, **options)
    _, kept, _ = batched_nms(segments, scores, labels, max_segments=cap, **options)
    assert kept[0] == scores.max()
    assert (np.diff(kept) <= 0).all()
    assert (np.sort(all_scores)[::-1] <= np.sort(scores)[::-1][: len(all_scores)]).all()
    np.testing.assert_array_equal(kept, all_scores[:cap])  # stopping early changes nothing


def published_soft_nms(segments, scores, *, sigma, min_score):
    """The published loop, position by position: (index, decayed score) of what it takes."""
    start, end, score = [list(column) for column in (*segments.T, scores)]
    index, n, taken = list(range(len(score))), len(score), 0
    while taken < n:
        best = max(range(taken, n), key=lambda i: (score[i], -i))
        for values in (start, end, score, index):
            values[taken], values[best] = values[best], values[taken]
        i = taken + 1
        while i < n:
            shared = min(end[taken], end[i]) - max(start[taken], start[i])
            if shared > 0:
                areas = [end[k] - start[k] + np.float32(1e-6) for k in (taken, i)]
                iou = shared / (areas[0] + areas[1] - shared)
                score[i] *= np.float32(np.exp(-(iou * iou) / np.float32(sigma)))
            if score[i] < np.float32(min_score):
                n -= 1
                for values in (start, end, score, index):
                    values[i] = values[n]
            else:
                i += 1
        taken += 1
    return index[:taken], score[:taken]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(0, 5)), max_size=60),
    st.sampled_from([0.0, 0.001, 0.3, 0.7]),
)
@example([(3, 6, 1), (7, 8, 1), (12, 2, 1), (12, 5, 1), (1, 6, 1)], 0.0)
# more than are looked through at once
@example([(i * 7 % 31, i % 10, i * i % 6) for i in range(200)], 0.001)
def test_of_equal_scores_soft_nms_takes_the_one_that_the_published_loop_takes(found, min_score):
    """Whole numbers, so that many scores tie, at first and after they have decayed."""
    segments = np.array([[s, s + d] for s, d, _ in found], np.float32).reshape(-1, 2)
    scores = np.array([score / 5 for _, _, score in found], np.float32)
    wanted, decayed = published_soft_nms(segments, scores, sigma=0.5, min_score=min_score)
    options = {"per_class": True, "voting_threshold": 0.0, "max_segments": 1000}
    kept, kept_scores, _ = batched_nms(
        segments,
        scores,
        np.zeros(len(scores), np.int64),
        sigma=0.5,
        min_score=min_score,
        **options,
    )
    np.testing.assert_allclose(kept_scores, decayed, rtol=1e-6)
    expected = segments[wanted]
    for place in np.flatnonzero((kept != expected).any(axis=1)):
        # decayed by numpy's exp or numba's, whose last bit decides between two scores
        alike = np.isclose(decayed, decayed[place], rtol=1e-6, atol=0)
        assert alike.sum() > 1
        assert kept[place].tolist() in expected[alike].tolist()


def test_a_segment_votes_from_the_threshold_on():
    """The second overlaps the first by just 0.75: the mean of both, weighted by their scores."""
    segments = np.array([[0, 4], [0, 3]], np.float32)
    scores = np.array([0.75, 0.25], np.float32)
    assert vote(segments[:1], segments, scores, 0.75).tolist() == [[0.0, 3.75]]
    assert vote(segments[:1], segments, scores, 0.76).tolist() == [[0.0, 4.0]]


@given(
    st.lists(
        st.one_of(
            st.floats(-1000, 1e5, width=32),
            st.integers(-(10**6), 10**6).map(lambda n: n / 200),  # next to a half
            st.integers(0, 20000).map(lambda n: n / 20000),
        ),
        min_size=1,
        max_size=50,
    ),
    st.sampled_from([2, 4]),
)
def test_rounding_many_values_is_pythons_rounding_of_each(values, digits):
    array = np.array(values, np.float32)
    assert rounded(array, digits).tolist() == [round(float(value), digits) for value in array]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(1, 60), st.integers(0, 2**31))
def test_candidates_are_the_best_of_a_full_stable_sort(points, classes, top_k, seed):
    """Ties included: of equal scores the earlier pair is kept."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (points, classes), generator=generator) / 6
    segments = torch.arange(2.0 * points).reshape(points, 2)
    params = load_experiment("thumos14_i3d").inference.model_copy(update={"pre_nms_topk": top_k})
    _, kept, labels = candidates(segments, scores, params)
    order = [
        i
        for i in scores.flatten().sort(descending=True, stable=True).indices.tolist()
        if scores.flatten()[i] > 0.001
    ]
    assert kept.tolist() == scores.flatten()[order[:top_k]].tolist()
    assert labels.tolist() == [i % classes for i in order[:top_k]]


def test_candidates_lie_where_their_points_and_offsets_say():
    """METHOD section 2: point t of a level lies at t * stride, its distances are in strides.

    Two levels of one sample beside another one; only valid points count, level 0 first.
    """

    def level(stride, offsets, valid):
        logits_BTK = torch.tensor([[[0.0]] * len(offsets)] * 2)
        offsets_BT2 = torch.tensor([[[9.0, 9.0]] * len(offsets), offsets])
        return Level(logits_BTK, offsets_BT2, torch.tensor([[True] * len(offsets), valid]), stride)

    levels = [
        level(1, [[0.5, 1.0], [0.25, 2.0], [1.0, 1.0]], [True, True, False]),
        level(4, [[0.5, 1.0], [0.0, 0.25]], [True, True]),
    ]
    segments_P2, scores_PK = decode(levels, 1)
    expected = [[-0.5, 1.0], [0.75, 3.0], [-2.0, 4.0], [4.0, 5.0]]
    np.testing.assert_array_equal(segments_P2.numpy(), expected)
    np.testing.assert_array_equal(scores_PK.numpy(), [[0.5]] * 4)


TINY = np.array([[0, 2e-6], [0, 2e-6]], np.float32)
# what two such segments overlap by, each of them being a millionth longer in the union
TINY_TIOU = 2e-6 / (2 * (2e-6 + 1e-6) - 2e-6)


def two_tiny_ones(**options):
    """Scores that NMS leaves of two equal segments of two millionths of a step."""
    scores, labels = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64)
    usual = {"sigma": 0.5, "min_score": 0.0, "max_segments": 2}
    usual |= {"per_class": True, "voting_threshold": 0.0}
    _, kept, _ = batched_nms(TINY, scores, labels, **usual, **options)
    return kept.tolist()


def test_lengths_have_a_millionth_more_in_the_union():
    """METHOD section 5, item 2: equal segments that are so short overlap by less than all."""
    decayed = 0.8 * np.exp(-(TINY_TIOU**2) / 0.5)
    np.testing.assert_allclose(two_tiny_ones(), [0.9, decayed], rtol=1e-4)
    np.testing.assert_allclose(
        two_tiny_ones(method="linear"), [0.9, 0.8 * (1 - TINY_TIOU)], rtol=1e-4
    )
    assert len(two_tiny_ones(method="hard", iou_threshold=0.99 * TINY_TIOU)) == 1
    assert len(two_tiny_ones(method="hard", iou_threshold=1.01 * TINY_TIOU)) == 2


def test_what_tiles_need_of_weights_is_made_once_a_detection(short_training, monkeypatch):
    """Not once a video, of which there are thousands; and not by what comes after."""
    experiment, training_views, _ = short_training
    network = ActionFormer(experiment.model.model_copy(update={"channels": WIDE})).eval()
    tiled = [module for module in network.modules() if isinstance(module, Conv3)]
    tiled = [conv for conv in tiled if min(conv.weight.shape[:2]) >= WIDE]
    made = []
    sums_of_taps = convolution._sums_of_taps
    monkeypatch.setattr(convolution, "_sums_of_taps", lambda w: made.append(w) or sums_of_taps(w))
    views = [replace(view, crop=None) for view in training_views[:3]]
    for detections in (1, 2):
        with torch.inference_mode():
            for _ in levels_of_views([network], views, batch_size=1, device="cpu", what="detect"):
                pass
        assert len(made) == detections * len(tiled) > 0


@pytest.mark.parametrize("size", [2, 5, 100])
def test_videos_have_their_own_levels_however_many_share_a_batch(short_training, size):
    """Each batch is worked on while the network has the next: the last one, too."""
    experiment, training_views, _ = short_training
    views = [replace(view, crop=None) for view in training_views[:7]]
    torch.manual_seed(0)
    networks = [ActionFormer(experiment.model).eval() for _ in range(2)]

    def seen(batch_size):
        options = {"batch_size": batch_size, "device": "cpu", "what": "detect"}
        found = {}
        for place, of_networks in levels_of_views(networks, views, **options):
            found[views[place].video] = [decode(levels, 0) for levels in of_networks]
        return found

    with torch.inference_mode():
        alone, together = seen(1), seen(size)
    assert sorted(together) == sorted(alone) == sorted(view.video for view in views)
    for video, of_networks in alone.items():
        for ours, expected in zip(together[video], of_networks, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@given(
    st.lists(st.integers(0, 90), max_size=60),
    st.integers(1, 4),
)
def test_batches_have_as_many_steps_as_some_full_ones_and_never_a_longer_video_with_others(
    lengths, batch_size
):
    params = ModelParams(in_channels=1, num_classes=1, max_seq_len=64)
    batches = of_like_lengths(lengths, params, batch_size=batch_size)
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    for batch in batches:
        # the network pads a batch by up to two of the coarsest level's steps
        padded_to = params.padded_length(max(lengths[place] for place in batch))
        assert len(batch) == 1 or padded_to <= params.max_seq_len
        assert len(batch) * padded_to <= max(batch_size * params.max_seq_len, padded_to)
    longer = sum(length > params.max_seq_len for length in lengths)
    assert len(batches) <= longer + math.ceil((len(lengths) - longer) / batch_size)


@pytest.fixture(scope="module")
def of_all_lengths():
    """(experiment, test views, network) of a row that adds positions, stretched over long videos.

    Short videos stand on both sides of one that is longer than those of training.
    """
    experiment = load_experiment("ego4d_slowfast", "demo")
    longest, rng = experiment.model.max_seq_len, np.random.default_rng(0)
    inference = experiment.inference.model_copy(update={"batch_size": 2})
    data = experiment.data.model_copy(update={"loader": "pad"})
    experiment = experiment.model_copy(update={"inference": inference, "data": data})
    subset, fps = experiment.dataset.eval_subset, experiment.features.fps
    videos, features = {}, {}
    for name, length in {"b": 20, "a": 2 * longest + 7, "d": longest, "c": 50, "e": 4}.items():
        features[name] = rng.standard_normal((length, experiment.model.in_channels), np.float32)
        seconds = length * experiment.features.stride_frames / (fps or 30)
        videos[name] = {"subset": subset, "duration": seconds, "annotations": []}
        videos[name] |= {"fps": 30, "frame": round(seconds * 30)}
    torch.manual_seed(0)
    test_views = views({"database": videos}, features, experiment, "test")
    return experiment, test_views, ActionFormer(experiment.model).eval()


def test_videos_are_detected_the_same_beside_others_of_any_length(of_all_lengths):
    """The table of positions is stretched over a video that is too long for it, and no other."""
    _, test_views, network = of_all_lengths
    options = {"batch_size": 8, "device": "cpu", "what": "detect"}
    with torch.inference_mode():
        together = dict(levels_of_views([network], test_views, **options))
        assert len(together) == len(test_views) == 5
        for place, view in enumerate(test_views):
            sample = view.load(random.Random(0))
            alone = network(sample.features_CT[None], sample.mask_T[None])
            found, expected = decode(together[place][0], 0), decode(alone, 0)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_videos_come_out_in_the_order_that_they_stand_in(of_all_lengths):
    experiment, test_views, network = of_all_lengths
    classes = [str(number) for number in range(experiment.model.num_classes)]
    results = predict(network, test_views, experiment.inference, classes)
    assert list(results) == ["b", "a", "d", "c", "e"]


@pytest.mark.parametrize(
    "loader",
    [
        {},
        {"test_pad_length": 32},
        {"loader": "resize", "resize_length": 16},
        {"loader": "sliding", "window_size": 24, "window_overlap_ratio": 0.25},
        {"loader": "sliding", "window_size": 24, "loading": "corrected"},
    ],
)
@pytest.mark.parametrize("length", [5, 32, 50])
def test_a_test_view_knows_how_many_steps_it_will_have(loader, length):
    experiment = load_experiment("thumos14_i3d", "demo")
    data = experiment.data.model_copy(update=loader)
    experiment = experiment.model_copy(update={"data": data})
    # the annotation is longer than the features, whose end a window then passes
    video = {"subset": experiment.dataset.eval_subset, "duration": 12.0, "frame": 360}
    database = {"database": {"v": video | {"annotations": []}}}
    features = {"v": np.zeros((length, experiment.model.in_channels), np.float32)}
    for view in views(database, features, experiment, "test"):
        assert view.steps == int(view.load(random.Random(0)).mask_T.sum())
