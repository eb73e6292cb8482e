"""Sigmoid focal loss and 1-D distance IoU loss (METHOD section 2). Both are sums, in float32.

What doesn't count is masked, not left out: how much that is would have to be asked of a GPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    counted: Tensor | None = None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Sum over all elements, or those that are `counted` (Lin et al., ICCV 2017, eq. 5).

    `targets` may be smoothed; `counted` is a mask that fits the logits, if only by broadcasting.
    """
    # in float32 whatever the network runs in: it is a sum over a hundred thousand elements
    logits, targets = logits.float(), targets.float()
    probability = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_t = probability * targets + (1 - probability) * (1 - targets)
    alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
    return _sum(alpha_t * (1 - p_t) ** gamma * cross_entropy, counted)


def diou_loss(
    predicted: Tensor, target: Tensor, counted: Tensor | None = None, *, eps: float = 1e-7
) -> Tensor:
    """Sum of 1 - DIoU over pairs of segments (..., 2), or those that are `counted` (...).

    Zheng et al.: Distance-IoU Loss, AAAI 2020, in one dimension.
    """
    start, end = predicted.float().unbind(-1)
    target_start, target_end = target.float().unbind(-1)
    first_end, last_start = torch.minimum(end, target_end), torch.maximum(start, target_start)
    intersection = (first_end - last_start).clamp(min=0)
    union = (end - start) + (target_end - target_start) - intersection
    hull = torch.maximum(end, target_end) - torch.minimum(start, target_start)
    center_distance = 0.5 * (start + end) - 0.5 * (target_start + target_end)
    iou = intersection / union.clamp(min=eps)
    return _sum(1 - iou + center_distance**2 / (hull**2).clamp(min=eps), counted)


def _sum(values: Tensor, counted: Tensor | None) -> Tensor:
    return values.sum() if counted is None else values.masked_fill(~counted, 0.0).sum()
