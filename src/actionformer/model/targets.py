"""The points of the pyramid, and which of them learn which segment (METHOD section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Every point of the pyramid, level 0 first: where it lies, and what it may regress."""

    # on the grid
    position_P: Tensor
    # larger boundary distance of the segments that a point regresses: from here ...
    smallest_P: Tensor
    # ... to here, ends included
    largest_P: Tensor
    # grid units between two points of its level
    stride_P: Tensor


def points(
    lengths: Sequence[int],
    strides: Sequence[int],
    regression_range: Sequence[Sequence[float]],
    device: torch.device | str = "cpu",
) -> Points:
    """The points of levels of these lengths."""
    position, smallest, largest, stride = [], [], [], []
    for T, level_stride, (low, high) in zip(lengths, strides, regression_range, strict=True):
        position.append(torch.arange(T, device=device) * float(level_stride))
        smallest.append(torch.full((T,), float(low), device=device))
        largest.append(torch.full((T,), float(high), device=device))
        stride.append(torch.full((T,), float(level_stride), device=device))
    return Points(torch.cat(position), torch.cat(smallest), torch.cat(largest), torch.cat(stride))


def decoded(position: Tensor, stride: Tensor | int, offsets: Tensor) -> Tensor:
    """Segments (..., 2) on the grid, from offsets (..., 2) to start and end in strides.

    Args:
        position: (...), of the points.
        stride: of all points, or (...).
    """
    left, right = offsets.unbind(-1)
    return torch.stack([position - left * stride, position + right * stride], -1)


def assign_targets(
    points: Points,
    segments: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    center_sample_radius: float | None,
    keep_only_shortest: bool,
) -> tuple[Tensor, Tensor]:
    """Class targets in {0, 1} and offsets in strides, zero at negative points.

    Of one video, (P, K) and (P, 2) from segments (G, 2) and labels (G,); or of a batch, all of them
    with an axis B before, where videos with fewer segments are padded with segments (0, 0), which
    no point lies inside.

    A segment is a candidate at a point that lies strictly inside it and strictly within
    `center_sample_radius` strides of its centre (None: anywhere inside), and whose larger boundary
    distance lies in the level's regression range, ends included. The shortest candidate is
    regressed, at equal length the first. Its classes, and those of all candidates within 1e-3 of
    its length (of all candidates, if not `keep_only_shortest`), are the class target.
    """
    position_P1 = points.position_P[:, None]
    stride_P1 = points.stride_P[:, None]
    batch, G, P = segments.shape[:-2], segments.shape[-2], len(position_P1)
    if G == 0:
        none = position_P1.new_zeros
        return none(*batch, P, num_classes), none(*batch, P, 2)
    # an axis of points before that of segments: (..., 1, G)
    start_1G, end_1G = segments.to(position_P1.dtype).unsqueeze(-3).unbind(-1)

    left_PG, right_PG = position_P1 - start_1G, end_1G - position_P1
    candidate_PG = (left_PG > 0) & (right_PG > 0)
    if center_sample_radius is not None:
        center_1G, radius_P1 = 0.5 * (start_1G + end_1G), stride_P1 * center_sample_radius
        candidate_PG &= position_P1 > center_1G - radius_P1
        candidate_PG &= position_P1 < center_1G + radius_P1
    distance_PG = torch.maximum(left_PG, right_PG)
    candidate_PG &= distance_PG >= points.smallest_P[:, None]
    candidate_PG &= distance_PG <= points.largest_P[:, None]

    length_PG = (end_1G - start_1G).expand_as(left_PG).masked_fill(~candidate_PG, float("inf"))
    shortest_P1, _ = length_PG.min(-1, keepdim=True)
    # min() leaves the choice among equals open: the first one is taken
    index_P1 = (length_PG == shortest_P1).to(torch.uint8).argmax(-1, keepdim=True)
    if keep_only_shortest:
        candidate_PG &= length_PG <= shortest_P1 + 1e-3

    # not one_hot(): it looks at the labels, for which a GPU would have to be waited for
    classes_K = torch.arange(num_classes, device=labels.device)
    one_hot_GK = (labels.unsqueeze(-1) == classes_K).to(position_P1.dtype)
    # a class that several candidates have counts once
    classes_PK = (candidate_PG.to(position_P1.dtype) @ one_hot_GK).clamp(max=1.0)
    offsets_P2 = torch.cat([left_PG.gather(-1, index_P1), right_PG.gather(-1, index_P1)], -1)
    return classes_PK, offsets_P2 / stride_P1 * candidate_PG.any(-1, keepdim=True)
