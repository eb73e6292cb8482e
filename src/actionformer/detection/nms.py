"""Non-maximum suppression of 1-D segments, and segment voting (METHOD section 5, item 2).

Bodla et al.: Soft-NMS, ICCV 2017. All in float32, as the published rows were produced.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numba
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]
# segments (N, 2), scores (N,) and labels (N,), before they have names
Detections = tuple[Float32, Float32, NDArray[np.int64]]

# how many scores are looked through before their highest is compared with that of the others
BLOCK = 64


def batched_nms(
    segments_N2: ArrayLike,
    scores_N: ArrayLike,
    labels_N: ArrayLike,
    *,
    sigma: float,
    min_score: float,
    max_segments: int,
    per_class: bool,
    voting_threshold: float,
    method: Literal["gaussian", "linear", "hard"] = "gaussian",
    iou_threshold: float = 0.1,
) -> Detections:
    """NMS within every class, or over all classes at once; the best `max_segments`, best first.

    Args:
        sigma: of the Gaussian decay exp(-IoU^2 / sigma).
        min_score: segments that decay below it are dropped; the first pick of a class never is.
        voting_threshold: IoU from which a segment votes, only where NMS runs over all classes at
            once; 0: no voting.
        iou_threshold: for 'linear' (decay 1 - IoU above it) and 'hard' (dropped from it on).
    """
    segments = np.ascontiguousarray(segments_N2, np.float32).reshape(-1, 2)
    scores = np.ascontiguousarray(scores_N, np.float32)
    labels = np.asarray(labels_N).astype(np.int64)

    groups = _groups(labels) if per_class else [np.arange(len(labels))]
    kept_parts, decayed_parts = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for group in groups:
        if method == "hard":
            # scores don't decay here, so what is too low goes before and not after
            if min_score > 0:
                group = group[scores[group] > min_score]
            # among equals in the order of torch's sort, as the published implementation
            order = torch.from_numpy(scores[group]).sort(descending=True).indices.numpy()
            group = group[order]
            kept = _hard(segments[group], max_segments, np.float32(iou_threshold))
            decayed = scores[group][kept]
        else:
            # numpy's float32: with a Python float numba would compute in double
            kept, decayed = _soft(
                segments[group],
                scores[group],
                np.float32(sigma),
                np.float32(min_score),
                max_segments,
                method == "linear",
                np.float32(iou_threshold),
            )
        kept_parts.append(group[kept])
        decayed_parts.append(decayed)
    kept, decayed = np.concatenate(kept_parts), np.concatenate(decayed_parts)
    # stable: among equals the class with the lower index comes first
    order = np.argsort(-decayed, kind="stable")[:max_segments]
    kept, decayed = kept[order], decayed[order]
    refined = segments[kept]
    if not per_class and voting_threshold > 0:
        refined = vote(refined, segments, scores, voting_threshold)
    return refined, decayed, labels[kept]


def _groups(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The places of every label, in the order of labels; within one as they came."""
    # stable: among equal scores the first one wins
    by_label = np.argsort(labels, kind="stable")
    bounds = np.flatnonzero(np.diff(labels[by_label])) + 1
    groups = []
    first = 0
    for last in [*bounds, len(labels)]:
        groups.append(by_label[first:last])
        first = last
    return groups


def vote(kept_M2: Float32, segments_N2: Float32, scores_N: Float32, threshold: float) -> Float32:
    """Every kept segment becomes the score-weighted mean of all segments with IoU >= threshold."""
    start_M1, end_M1 = kept_M2[:, :1], kept_M2[:, 1:]
    start_N, end_N = np.ascontiguousarray(segments_N2.T)
    intersection = (np.minimum(end_M1, end_N) - np.maximum(start_M1, start_N)).clip(min=0)
    union = (end_M1 - start_M1) + (end_N - start_N) - intersection
    with np.errstate(divide="ignore", invalid="ignore"):
        votes_MN = intersection / union >= np.float32(threshold)
        weights_MN = votes_MN * scores_N
        refined = weights_MN @ segments_N2 / weights_MN.sum(1, keepdims=True)
    # a segment of zero length overlaps nothing, not even itself
    return np.where(np.isfinite(refined), refined, kept_M2).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _soft(
    segments: Any,
    scores: Any,
    sigma: Any,
    min_score: Any,
    max_segments: int,
    linear: bool,
    iou_threshold: Any,
) -> Any:
    """Indices kept, in order of their decayed scores, and these scores.

    Positions [0, count) hold what is taken, [count, n) what remains. A segment that is taken
    changes places with the first that remains, one that is dropped is replaced by the last: among
    equal scores the first position wins, and with these moves that is the segment that the
    published implementation takes.
    """
    n = len(scores)
    start, end = segments[:, 0].copy(), segments[:, 1].copy()
    # the published constant: it decides what segments of no length do
    area = end - start + np.float32(1e-6)
    score, index = scores.copy(), np.arange(n)
    met, meets = np.empty(n, np.int64), np.empty(n, np.uint8)
    count = 0
    while count < min(n, max_segments):
        best = _first_of_highest(score, count, n)
        s, e, a = start[best], end[best], area[best]
        for values in (start, end, area, score):
            values[count], values[best] = values[best], values[count]
        index[count], index[best] = index[best], index[count]
        count += 1
        # Few of the R that remain overlap. They are collected first, without a branch, and only
        # they are looked at; by the first pick all are: it drops what was too low to begin with.
        meets_R = meets[count:n]
        looks_at_all = count == 1
        _overlap(start[count:n], end[count:n], s, e, looks_at_all, meets_R)
        meetings = 0
        for r in range(len(meets_R)):
            met[meetings] = count + r
            meetings += meets_R[r]
        k = 0
        while k < meetings:
            i = met[k]
            intersection = min(e, end[i]) - max(s, start[i])
            if intersection > np.float32(0):
                iou = intersection / (a + area[i] - intersection)
                if not linear:
                    score[i] *= np.float32(math.exp(-(iou * iou) / sigma))
                elif iou > iou_threshold:
                    score[i] *= np.float32(1) - iou
            if score[i] >= min_score:
                k += 1
                continue
            n -= 1
            start[i], end[i], area[i] = start[n], end[n], area[n]
            score[i], index[i] = score[n], index[n]
            # the last, which has come to position i, is looked at there if it was to be
            if met[meetings - 1] == n:
                meetings -= 1
            else:
                k += 1
    return index[:count].copy(), score[:count].copy()


# In a loop of its own, and counted from 0: so the compiler compares eight segments at once.
@numba.njit(cache=True, nogil=True)
def _overlap(start_R: Any, end_R: Any, s: Any, e: Any, all_count: bool, meets_R: Any) -> None:
    """Writes into `meets_R` which segments overlap [s, e], or that all count."""
    for r in range(len(meets_R)):
        meets_R[r] = all_count | (end_R[r] > s) & (start_R[r] < e)


@numba.njit(cache=True, nogil=True)
def _first_of_highest(score: Any, first: int, end: int) -> int:
    highest, place = score[first], first
    for begin in range(first, end, BLOCK):
        of_block = score[begin]
        for value in score[begin : min(begin + BLOCK, end)]:
            of_block = value if value > of_block else of_block
        if of_block > highest:
            highest, place = of_block, begin
    # within the first block that has it
    while score[place] < highest:
        place += 1
    return place


@numba.njit(cache=True, nogil=True)
def _hard(segments: Any, max_segments: int, iou_threshold: Any) -> Any:
    """Indices kept of segments sorted by score: those that overlap none kept before them.

    To overlap is to have a tIoU of at least the threshold.
    """
    start, end = segments[:, 0], segments[:, 1]
    area = end - start + np.float32(1e-6)
    kept = np.empty(min(len(segments), max_segments), np.int64)
    count = 0
    for i in range(len(segments)):
        free = count < len(kept)
        for k in kept[:count]:
            intersection = min(end[i], end[k]) - max(start[i], start[k])
            union = area[i] + area[k] - intersection
            if intersection > np.float32(0) and intersection / union >= iou_threshold:
                free = False
                break
        if free:
            kept[count] = i
            count += 1
    return kept[:count]
