"""What NMS, candidates and rounding hold for any input; the published cases are in test_parity."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer import load_experiment
from actionformer.detection.decode import candidates, decode
from actionformer.detection.nms import batched_nms, vote
from actionformer.detection.predict import rounded
from actionformer.model.actionformer import Level


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
