"""NMS, fusion and rounding against the published implementation's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actionformer.detection import batched_nms


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 90), st.floats(0.1, 20), st.floats(0.01, 1)), min_size=1, max_size=40),
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
