"""Recall@kx of Ego4D Moment Queries (METHOD section 5, item 6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.data.annotations import Database
from actionformer.data.detections import Results
from actionformer.evaluation.matching import match


@dataclass(frozen=True)
class Recall:
    """Fractions, not percent."""

    recall_UX: NDArray[np.float64]
    tiou_thresholds: tuple[float, ...]
    top_k: tuple[int, ...]


def recall_at_kx(
    database: Database | Mapping[str, Any] | Path | str,
    detections: Results | Mapping[str, Any] | Path | str,
    *,
    subset: str,
    tiou_thresholds: Sequence[float],
    top_k: Sequence[int] = (1, 5),
    blocked: Collection[str] = (),
) -> Recall:
    """Mean over classes of the share of ground truth that a top detection overlaps enough.

    Of a video and class the top k * n count; n is its number of ground-truth segments; the matching
    is not one to one.
    """
    matched = match(database, detections, subset=subset, blocked=blocked)
    thresholds = np.asarray(tiou_thresholds, np.float64)
    hits = np.zeros((len(matched.classes), len(thresholds), len(top_k)))
    # detections by video and class, best first within each
    by_group = np.argsort(matched.group_N, kind="stable")
    starts = np.searchsorted(matched.group_N[by_group], np.arange(len(matched.bounds)))
    for g in range(len(matched.bounds) - 1):
        first, last = matched.bounds[g], matched.bounds[g + 1]
        truth_G2 = matched.truth_G2[first:last]
        k = matched.truth_class_G[first]
        found_N2 = matched.segments_N2[by_group[starts[g] : starts[g + 1]]]
        for x, multiple in enumerate(top_k):
            tiou_GN = temporal_iou(truth_G2, found_N2[: multiple * len(truth_G2)])
            best_G = tiou_GN.max(1, initial=0.0)
            hits[k, :, x] += (best_G[:, None] >= thresholds).sum(0)
    recall_UX = (hits / matched.instances_K[:, None, None]).mean(0)
    return Recall(recall_UX, tuple(float(t) for t in thresholds), tuple(top_k))


def temporal_iou(a_N2: NDArray[np.float64], b_M2: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) intersection over union of segments."""
    start = np.maximum(a_N2[:, None, 0], b_M2[None, :, 0])
    end = np.minimum(a_N2[:, None, 1], b_M2[None, :, 1])
    intersection = (end - start).clip(min=0)
    union = np.diff(a_N2) + np.diff(b_M2)[:, 0] - intersection
    return np.asarray(intersection / union.clip(min=1e-8))
