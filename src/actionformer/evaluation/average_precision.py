"""Mean average precision over temporal IoU thresholds (METHOD section 5, item 6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from actionformer.data.annotations import Database
from actionformer.data.detections import Results
from actionformer.evaluation.matching import Matched, checked_thresholds, match, true_positives


@dataclass(frozen=True)
class AveragePrecision:
    """Fractions, not percent. `instances_K` counts the ground truth of each class."""

    ap_KU: NDArray[np.float64]
    classes: tuple[str, ...]
    instances_K: NDArray[np.int64]
    tiou_thresholds: tuple[float, ...]
    # evaluated videos that have ground truth
    videos: int

    @property
    def map_U(self) -> NDArray[np.float64]:
        return self.ap_KU.mean(0)

    @property
    def average(self) -> float:
        return float(self.map_U.mean())


def mean_average_precision(
    database: Database | Mapping[str, Any] | Path | str,
    detections: Results | Mapping[str, Any] | Path | str,
    *,
    subset: str,
    tiou_thresholds: Sequence[float],
    blocked: Collection[str] = (),
) -> AveragePrecision:
    """Interpolated AP (VOC 2011) per class and threshold.

    `true_positives` says what a detection finds.

    Raises:
        InputError: what `match` and `true_positives` raise.
    """
    thresholds = checked_thresholds(tiou_thresholds)
    matched = match(database, detections, subset=subset, blocked=blocked)
    correct_NU = true_positives(matched, thresholds) >= 0
    return AveragePrecision(
        ap_KU=average_precisions(matched, correct_NU),
        classes=matched.classes,
        instances_K=matched.instances_K,
        tiou_thresholds=tuple(thresholds.tolist()),
        videos=len(matched.videos),
    )


def average_precisions(matched: Matched, correct_NU: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AP (K, U) of every class."""
    ap_KU = np.zeros((len(matched.classes), correct_NU.shape[1]))
    for k, instances in enumerate(matched.instances_K.tolist()):
        # a class that nobody detects has an AP of 0, and counts in the mean
        class_correct_NU = correct_NU[matched.of_class(k)]
        if len(class_correct_NU):
            ap_KU[k] = interpolated_average_precision(class_correct_NU, instances)
    return ap_KU


def interpolated_precision(correct_NU: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Precision (N, U) down to each detection, best first, made monotone.

    Monotone means: of all later precisions the best, as VOC 2011 defines it.
    """
    true_NU = correct_NU.cumsum(0, dtype=np.float64)
    rank_N1 = np.arange(1, len(correct_NU) + 1, dtype=np.float64)[:, None]
    return np.maximum.accumulate((true_NU / rank_N1)[::-1])[::-1]


def interpolated_average_precision(
    correct_NU: NDArray[np.bool_], instances: int
) -> NDArray[np.float64]:
    """AP (U,) of detections, best first: the area under monotone precision (VOC 2011)."""
    ap_U: NDArray[np.float64] = _areas(correct_NU) / instances
    return ap_U


@numba.njit(cache=True, nogil=True)
def _areas(correct_NU: Any) -> Any:
    """The sum (U,) of the monotone precisions down to each true positive.

    Between two of them precision only falls: the best of all later ones is that of one of them.
    """
    N, U = correct_NU.shape
    area_U, precision_N = np.zeros(U), np.empty(N)
    for u in range(U):
        true = 0
        for n in range(N):
            if correct_NU[n, u]:
                precision_N[true] = (true + 1) / (n + 1)
                true += 1
        for t in range(true - 2, -1, -1):
            precision_N[t] = max(precision_N[t], precision_N[t + 1])
        for t in range(true):
            area_U[u] += precision_N[t]
    return area_U
