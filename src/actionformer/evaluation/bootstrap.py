"""How much of a score, or of a difference between two, is luck with the videos? A bootstrap.

The videos of the evaluated subset are drawn anew with replacement, the same ones for all
detectors, and all are scored on them (Efron, Tibshirani: An Introduction to the Bootstrap, 1993,
chapter 13). Which detection finds which segment is decided within a video, so a draw changes
weights alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.evaluation.matching import Matched, true_positives
from actionformer.progress import progress

DRAWS = 1000
# of an interval, in percent of the draws
LOW, HIGH = 2.5, 97.5


@dataclass(frozen=True)
class Interval:
    """A score, or how much higher the second of two is, as a fraction, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two detectors on the same videos."""

    # of the average mAP
    overall: Interval
    # share of the draws in which the second one scores higher
    higher: float
    # class -> difference of its AP, mean over thresholds
    classes: dict[str, Interval]


def compare(
    first: Matched, second: Matched, tiou: Sequence[float], *, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Score two detectors on the same draws of videos.

    Args:
        tiou: thresholds.

    Raises:
        InputError: detections that were held against different ground truth.
    """
    _refuse_other_truth(first, second)
    generator = np.random.default_rng(seed)
    V, K = len(first.videos), len(first.classes)
    correct = [true_positives(matched, tiou) >= 0 for matched in (first, second)]
    every_V = np.ones(V)
    observed_K = _difference(first, second, correct, every_V)
    drawn_DK = np.full((draws, K), np.nan)
    for d in progress(range(draws), "draw videos anew", unit="draw"):
        weight_V = np.bincount(generator.integers(0, V, V), minlength=V).astype(np.float64)
        drawn_DK[d] = _difference(first, second, correct, weight_V)
    overall_D = np.nanmean(drawn_DK, axis=1)
    classes = {}
    for k, label in enumerate(first.classes):
        classes[label] = _interval(float(observed_K[k]), drawn_DK[:, k])
    return Comparison(
        overall=_interval(float(np.nanmean(observed_K)), overall_D),
        higher=float((overall_D > 0).mean()),
        classes=classes,
    )


def chance(
    detectors: Sequence[Matched],
    other: Matched | None,
    tiou: Sequence[float],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """mAP in the mean over detectors (such as seeds), and how much higher it is than another's.

    Each by threshold ('0.5') and 'average'; the second is empty without another detector.

    Raises:
        InputError: detections that were held against different ground truth.
    """
    everyone = [*detectors, *([other] if other is not None else [])]
    for one in everyone[1:]:
        _refuse_other_truth(detectors[0], one)
    correct = [true_positives(matched, tiou) >= 0 for matched in everyone]
    V, U = len(detectors[0].videos), len(tiou)
    generator = np.random.default_rng(seed)
    # the first row is the videos as they are
    weight_DV = np.ones((draws + 1, V))
    for d in range(draws):
        weight_DV[d + 1] = np.bincount(generator.integers(0, V, V), minlength=V)
    map_NDU = np.empty((len(everyone), draws + 1, U))
    for d in progress(range(draws + 1), "draw videos anew", unit="draw"):
        for n, matched in enumerate(everyone):
            # classes of which no video was drawn have no AP
            map_NDU[n, d] = np.nanmean(weighted_ap(matched, correct[n], weight_DV[d]), axis=0)
    ours_DU = map_NDU[: len(detectors)].mean(axis=0)
    scores = _by_threshold(ours_DU, tiou)
    if other is None:
        return scores, {}
    return scores, _by_threshold(ours_DU - map_NDU[-1], tiou)


def _by_threshold(score_DU: NDArray[np.float64], tiou: Sequence[float]) -> dict[str, Interval]:
    """Intervals of scores, of which the first row is what was observed."""
    found = {}
    for u, threshold in enumerate(tiou):
        found[f"{threshold:g}"] = _interval(float(score_DU[0, u]), score_DU[1:, u])
    average_D = score_DU.mean(axis=1)
    found["average"] = _interval(float(average_D[0]), average_D[1:])
    return found


def _refuse_other_truth(first: Matched, second: Matched) -> None:
    same = first.classes == second.classes and first.videos == second.videos
    if not same or not np.array_equal(first.truth_G2, second.truth_G2):
        raise InputError("the two were held against different ground truth")


def _interval(value: float, drawn_D: NDArray[np.float64]) -> Interval:
    low, high = np.nanpercentile(drawn_D, [LOW, HIGH]).tolist()
    return Interval(value, low, high)


def _difference(
    first: Matched,
    second: Matched,
    correct: Sequence[NDArray[np.bool_]],
    weight_V: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(K,): AP of the second less that of the first, mean over thresholds; NaN without truth."""
    ap = [
        weighted_ap(matched, correct_NU, weight_V)
        for matched, correct_NU in zip((first, second), correct, strict=True)
    ]
    return np.asarray((ap[1] - ap[0]).mean(1))


def weighted_ap(
    matched: Matched, correct_NU: NDArray[np.bool_], weight_V: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AP (K, U) where every video counts as often as its weight; NaN for a class without truth.

    A detection in a video without ground truth counts once: such videos are not drawn.
    """
    weight_N = np.ones(len(matched.video_N))
    known_N = matched.video_N >= 0
    weight_N[known_N] = weight_V[matched.video_N[known_N]]
    K = len(matched.classes)
    truth_K = np.bincount(
        matched.truth_class_G, weights=weight_V[matched.truth_video_G], minlength=K
    )
    bounds = np.searchsorted(matched.class_N, np.arange(K + 1))
    result: NDArray[np.float64] = _weighted_ap(correct_NU, weight_N, bounds, truth_K)
    return result


@numba.njit(cache=True, nogil=True)
def _weighted_ap(correct: Any, weight: Any, bounds: Any, truth: Any) -> Any:
    """Interpolated AP of every class and threshold, detections best first within a class."""
    K, U = len(truth), correct.shape[1]
    result = np.full((K, U), np.nan)
    for k in range(K):
        if truth[k] == 0:
            continue
        for u in range(U):
            true, false = 0.0, 0.0
            precision = np.zeros(bounds[k + 1] - bounds[k])
            for i, n in enumerate(range(bounds[k], bounds[k + 1])):
                if correct[n, u]:
                    true += weight[n]
                else:
                    false += weight[n]
                precision[i] = true / max(true + false, 1e-12)
            area, best = 0.0, 0.0
            for i in range(len(precision) - 1, -1, -1):
                n = bounds[k] + i
                if weight[n] > 0:
                    best = max(best, precision[i])
                if correct[n, u]:
                    area += best * weight[n]
            result[k, u] = area / truth[k]
    return result
