"""What lies behind one mAP: precision against recall, calibration of scores, and single videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.evaluation.average_precision import (
    interpolated_average_precision,
    interpolated_precision,
)
from actionformer.evaluation.matching import Matched

RECALL_LEVELS = np.linspace(0, 1, 51)
SCORE_BINS = 10


def precision_recall(matched: Matched, correct_NU: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Interpolated precision (U, R) at `RECALL_LEVELS`, mean over classes.

    The area below is about the mAP. Where a class never reaches a recall, its precision there is 0.
    """
    total_UR = np.zeros((correct_NU.shape[1], len(RECALL_LEVELS)))
    for k, instances in enumerate(matched.instances_K.tolist()):
        class_correct_NU = correct_NU[matched.of_class(k)]
        if not len(class_correct_NU):
            continue
        true_NU = class_correct_NU.cumsum(0, dtype=np.float64)
        precision_NU = interpolated_precision(class_correct_NU)
        for u, true_N in enumerate(true_NU.T):
            # the first rank that reaches a recall; a hair less, since 3 of 3 is not always 1.0
            rank_R = np.searchsorted(true_N, RECALL_LEVELS * instances - 1e-9)
            reached_R = rank_R < len(true_N)
            total_UR[u, reached_R] += precision_NU[rank_R[reached_R], u]
    return total_UR / len(matched.classes)


@dataclass(frozen=True)
class ScoreBin:
    """Detections with scores in [low, high): their mean score, and how many find a segment."""

    low: float
    high: float
    detections: int
    mean_score: float
    precision: float


def calibration(matched: Matched, correct_N: NDArray[np.bool_]) -> list[ScoreBin]:
    """Scores against precision in equal bins from 0 to 1; no empty bins.

    To the highest score, if that is above 1.
    """
    top = max(1.0, float(matched.scores_N.max(initial=0.0)))
    bin_N = np.minimum((matched.scores_N / top * SCORE_BINS).astype(int), SCORE_BINS - 1)
    result = []
    for b in np.unique(bin_N).tolist():
        inside_N = bin_N == b
        part = ScoreBin(
            low=top * b / SCORE_BINS,
            high=top * (b + 1) / SCORE_BINS,
            detections=int(inside_N.sum()),
            mean_score=float(matched.scores_N[inside_N].mean()),
            precision=float(correct_N[inside_N].mean()),
        )
        result.append(part)
    return result


def per_video(matched: Matched, correct_NU: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    """Video -> {"instances", "ap"}: AP over its own detections, mean over classes and thresholds.

    A detection of a class that the video doesn't have counts nowhere here; the false-positive
    profile has it.
    """
    # detections by video and class, best first within each
    by_group = np.argsort(matched.group_N, kind="stable")
    starts = np.searchsorted(matched.group_N[by_group], np.arange(len(matched.bounds)))
    found: dict[int, list[float]] = {}
    for g in range(len(matched.bounds) - 1):
        first, last = matched.bounds[g], matched.bounds[g + 1]
        chosen = by_group[starts[g] : starts[g + 1]]
        ap = 0.0
        if len(chosen):
            ap_U = interpolated_average_precision(correct_NU[chosen], int(last - first))
            ap = float(ap_U.mean())
        found.setdefault(int(matched.truth_video_G[first]), []).append(ap)
    instances_V = np.bincount(matched.truth_video_G, minlength=len(matched.videos))
    result = {}
    for v, aps in sorted(found.items()):
        result[matched.videos[v]] = {"instances": int(instances_V[v]), "ap": float(np.mean(aps))}
    return result
