"""Which points of the pyramid learn which segment (METHOD section 2).

P points of all levels   N segments   K classes
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def points(lengths: Sequence[int], strides: Sequence[int], regression_range: Sequence[Sequence[float]]) -> Tensor:
    """(P, 4): grid position, smallest and largest boundary distance, and stride of every point, level 0 first."""
    levels = []
    for length, stride, (smallest, largest) in zip(lengths, strides, regression_range, strict=True):
        level = torch.empty(length, 4)
        level[:, 0] = torch.arange(length) * stride
        level[:, 1], level[:, 2], level[:, 3] = smallest, largest, stride
        levels.append(level)
    return torch.cat(levels)


def assign_targets(
    points_P4: Tensor,
    segments_N2: Tensor,
    labels_N: Tensor,
    *,
    num_classes: int,
    center_sample_radius: float | None,
    keep_only_shortest: bool,
) -> tuple[Tensor, Tensor]:
    """Class targets (P, K) in {0, 1} and offsets to start and end (P, 2) in strides, zero at negative points.

    A segment is a candidate at a point that lies strictly inside it and strictly within `center_sample_radius`
    strides of its centre (None: anywhere inside), and whose larger boundary distance lies in the level's regression
    range, ends included. The shortest candidate is regressed, at equal length the first. Its classes, and those of
    all candidates within 1e-3 of its length (of all candidates, if not `keep_only_shortest`), are the class target.
    """
    P, N = len(points_P4), len(segments_N2)
    if N == 0:
        return points_P4.new_zeros(P, num_classes), points_P4.new_zeros(P, 2)
    position_P1, smallest_P1, largest_P1, stride_P1 = points_P4[:, :, None].unbind(1)
    start_N, end_N = segments_N2.to(points_P4.dtype).unbind(-1)

    left_PN, right_PN = position_P1 - start_N, end_N - position_P1
    inside = (left_PN > 0) & (right_PN > 0)
    if center_sample_radius is not None:
        center_N, radius_P1 = 0.5 * (start_N + end_N), stride_P1 * center_sample_radius
        inside &= (position_P1 > center_N - radius_P1) & (position_P1 < center_N + radius_P1)
    distance_PN = torch.maximum(left_PN, right_PN)
    candidate_PN = inside & (distance_PN >= smallest_P1) & (distance_PN <= largest_P1)

    length_PN = (end_N - start_N).expand(P, N).masked_fill(~candidate_PN, float("inf"))
    shortest_P1, index_P1 = length_PN.min(1, keepdim=True)
    # min() leaves the choice among equals open
    index_P1 = (length_PN == shortest_P1).to(torch.uint8).argmax(1, keepdim=True)
    if keep_only_shortest:
        candidate_PN &= length_PN <= shortest_P1 + 1e-3

    one_hot_NK = torch.nn.functional.one_hot(labels_N.long(), num_classes).to(points_P4.dtype)
    classes_PK = (candidate_PN.to(points_P4.dtype) @ one_hot_NK).clamp(max=1.0)
    offsets_P2 = torch.cat([left_PN.gather(1, index_P1), right_PN.gather(1, index_P1)], 1) / stride_P1
    return classes_PK, offsets_P2 * candidate_PN.any(1, keepdim=True)
