"""From levels to candidate segments of one video or window (METHOD section 5, item 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionformer.model.actionformer import Level
from actionformer.params.experiment import InferenceParams


def decode(levels: Sequence[Level], b: int) -> tuple[Tensor, Tensor]:
    """Segments (P, 2) on the grid and scores (P, K) at the valid points of sample `b`.

    Level 0 comes first.
    """
    segments, scores = [], []
    for level in levels:
        one = level.sample(b)
        segments.append(one.segments_BT2()[one.mask_BT])
        scores.append(one.logits_BTK[one.mask_BT].sigmoid())
    return torch.cat(segments), torch.cat(scores)


def candidates(
    segments_P2: Tensor, scores_PK: Tensor, params: InferenceParams
) -> tuple[Tensor, Tensor, Tensor]:
    """Segments (N, 2), scores (N,) and labels (N,) that go into NMS, best first.

    One class: every point. Several: the best `pre_nms_topk` (point, class) pairs above
    `pre_nms_threshold`.
    """
    K = scores_PK.shape[1]
    if K == 1:
        return segments_P2, scores_PK[:, 0], torch.zeros(len(segments_P2), dtype=torch.long)
    pair_N = best_pairs(scores_PK, params)
    point_N = torch.div(pair_N, K, rounding_mode="floor")
    return segments_P2[point_N], scores_PK.flatten()[pair_N], pair_N % K


def best_pairs(scores_PK: Tensor, params: InferenceParams) -> Tensor:
    """Flat indices (N,) of the best `pre_nms_topk` scores above `pre_nms_threshold`, best first."""
    flat, top_k = scores_PK.flatten(), params.pre_nms_topk
    chosen = flat > params.pre_nms_threshold
    if len(flat) > top_k:
        # only what can be among the best is sorted
        chosen &= flat >= _nth_highest(flat.numpy(), top_k)
    pair_N = chosen.nonzero()[:, 0]
    # stable: among equals the first pair comes first, as published
    order_N = flat[pair_N].sort(descending=True, stable=True).indices
    return pair_N[order_N[:top_k]]


def _nth_highest(values: NDArray[np.float32], n: int) -> float:
    # torch's topk takes ten times as long
    place = len(values) - n
    return float(np.partition(values, place)[place])
