"""Why a detector fails: kinds of error, their cost, and what is hard or missed (DETAD).

Alwassel, Caba Heilbron, Escorcia, Ghanem: Diagnosing Error in Temporal Action Detectors, ECCV 2018,
arXiv:1807.10706. Which kind each detection is (section 3), what the best detections consist of, how
much mAP every kind of error costs, and how mAP and misses depend on how long, how large a part of
its video, and how often repeated an action is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.evaluation.average_precision import (
    average_precisions,
    interpolated_average_precision,
)
from actionformer.evaluation.matching import Matched, true_positives

KINDS = (
    "true positive",
    "double detection",
    "wrong label",
    "localization error",
    "confusion error",
    "background error",
)
TRUE, DOUBLE, WRONG_LABEL, LOCALIZATION, CONFUSION, BACKGROUND = range(len(KINDS))
# how many pairs of confused classes are told, and how many videos of each
PAIRS, VIDEOS_OF_A_PAIR = 30, 5
# threshold of the profile and of the misses
TIOU = 0.5
BACKGROUND_TIOU = 0.1
SPLITS = 10
BIN_NAMES = ("XS", "S", "M", "L", "XL")
CHARACTERISTICS = ("coverage", "length", "instances")


@dataclass(frozen=True)
class Bin:
    """Ground truth of one kind. `low` is excluded, `high` included; None is unbounded.

    `normalized_map` is over the row's thresholds, `missed` the share that none of the top-kG
    detections finds at tIoU 0.5; both are None where there is no such ground truth.
    """

    name: str
    low: float
    high: float | None
    instances: int
    normalized_map: float | None
    missed: float | None


@dataclass(frozen=True)
class Confusion:
    """Detections of one class that overlap ground truth of another most."""

    # the class of the ground truth, and what it is taken for
    truth: str
    detected: str
    count: int
    # those with most of them first
    videos: Sequence[str]


@dataclass(frozen=True)
class Diagnosis:
    """Fractions, not percent.

    `normalized_map` and `gains` are of the average mAP over the row's thresholds.
    """

    # of the detections ranked (s G_k, (s + 1) G_k] in their class k: how many are of each kind
    counts_SE: NDArray[np.int64]
    # kind of error -> what the mAP would gain without it
    gains: Mapping[str, float]
    # the same, were no ground truth missed
    missed_gain: float
    # most frequent first
    confusions: Sequence[Confusion]
    normalized_map: float
    bins: Mapping[str, Sequence[Bin]]

    @property
    def profile_SE(self) -> NDArray[np.float64]:
        """Percent of each kind per split; splits without detections are left out."""
        filled_SE = self.counts_SE[self.counts_SE.sum(1) > 0]
        return 100 * filled_SE / filled_SE.sum(1, keepdims=True)

    def as_json(self) -> dict[str, Any]:
        """As diagnosis.json has it."""
        bins = {}
        for what, of_characteristic in self.bins.items():
            bins[what] = [asdict(one) for one in of_characteristic]
        return {
            "tiou": TIOU,
            "kinds": list(KINDS),
            "counts": self.counts_SE.tolist(),
            "gains": dict(self.gains),
            "missed_gain": self.missed_gain,
            "confusions": [asdict(pair) for pair in self.confusions],
            "normalized_map": self.normalized_map,
            "bins": bins,
        }


def diagnose(
    matched: Matched,
    tiou_thresholds: Sequence[float],
    edges: Mapping[Any, Sequence[float]] | None = None,
) -> Diagnosis:
    """The whole diagnosis.

    Args:
        edges: characteristic -> upper edges of its bins but the last; fifths of the ground truth
            where there are none.

    Raises:
        InputError: edges of an unknown characteristic, or that don't rise.
    """
    edges = {} if edges is None else edges
    for what in edges:
        if what not in CHARACTERISTICS:
            known = ", ".join(CHARACTERISTICS)
            raise InputError(f"no characteristic '{what}'; there are {known}")
    # the last column is that of the profile and of the misses
    thresholds = np.asarray([*tiou_thresholds, TIOU], np.float64)
    found_NU = true_positives(matched, thresholds)
    kinds_NU = kinds(matched, found_NU, thresholds)
    found_NU, found_N = found_NU[:, :-1], found_NU[:, -1]

    # what any of the best detections finds
    best_N = rank_in_class(matched) < SPLITS * matched.instances_K[matched.class_N]
    seen_G = np.zeros(len(matched.truth_G2), np.bool_)
    seen_G[found_N[best_N & (found_N >= 0)]] = True

    bins = {}
    for what, values_G in characteristics(matched).items():
        bins[what] = _bins(matched, found_NU, seen_G, values_G, what, edges.get(what))
    every_G = np.ones(len(seen_G), np.bool_)
    return Diagnosis(
        counts_SE=profile(matched, kinds_NU[:, -1]),
        gains=gains(matched, kinds_NU[:, :-1]),
        missed_gain=missed_gain(matched, found_NU),
        confusions=confusions(matched, kinds_NU[:, -1]),
        normalized_map=float(np.mean(normalized_ap(matched, found_NU, every_G))),
        bins=bins,
    )


def kinds(
    matched: Matched, found_NU: NDArray[np.int64], thresholds: NDArray[np.float64]
) -> NDArray[np.int8]:
    """Index into `KINDS` (N, U) of every detection at every threshold.

    What finds a segment, as evaluation has it, is a true positive. Of anything else the segment
    that it overlaps most decides: enough, and of its own label, it is a double detection, of
    another a wrong label; less, but at least 0.1, a localization error or a confusion error;
    otherwise background. Of equal overlaps its own label's counts.
    """
    by_video = np.argsort(matched.truth_video_G, kind="stable")
    videos = np.arange(len(matched.videos) + 1)
    own_N, other_N = _best_overlaps(
        matched.segments_N2,
        matched.class_N,
        matched.video_N,
        matched.truth_G2[by_video],
        matched.truth_class_G[by_video],
        np.searchsorted(matched.truth_video_G[by_video], videos),
    )
    is_own_N = own_N >= other_N
    result = np.full(found_NU.shape, BACKGROUND, np.int8)
    for u, threshold in enumerate(thresholds.tolist()):
        # a low threshold leaves no room for localization and confusion errors
        low = min(BACKGROUND_TIOU, threshold)
        kind_N = result[:, u]
        # each of these takes precedence over those before it
        kind_N[~is_own_N & (other_N >= low)] = CONFUSION
        kind_N[is_own_N & (own_N >= low)] = LOCALIZATION
        kind_N[~is_own_N & (other_N >= threshold)] = WRONG_LABEL
        kind_N[is_own_N & (own_N >= threshold)] = DOUBLE
        kind_N[found_NU[:, u] >= 0] = TRUE
    return result


def rank_in_class(matched: Matched) -> NDArray[np.int64]:
    """(N,) from 0: the place of a detection among those of its class."""
    first_K = np.searchsorted(matched.class_N, np.arange(len(matched.classes)))
    return np.arange(len(matched.class_N)) - first_K[matched.class_N]


def profile(matched: Matched, kinds_N: NDArray[np.int8]) -> NDArray[np.int64]:
    """Counts (S, E): split s takes from every class k its next G_k detections, G_k being its ground
    truth.
    """
    split_N = rank_in_class(matched) // matched.instances_K[matched.class_N]
    counts_SE = np.zeros((SPLITS, len(KINDS)), np.int64)
    kept_N = split_N < SPLITS
    np.add.at(counts_SE, (split_N[kept_N], kinds_N[kept_N]), 1)
    return counts_SE


def gains(matched: Matched, kinds_NU: NDArray[np.int8]) -> dict[str, float]:
    """What the average mAP would gain without one kind of error; every threshold has its own.

    A false positive holds no segment, so its removal changes no other detection: it only lifts
    precision.
    """
    U = kinds_NU.shape[1]
    correct_NU = kinds_NU == TRUE
    before = average_precisions(matched, correct_NU).mean()
    result = {}
    for kind in range(1, len(KINDS)):
        after_KU = np.zeros((len(matched.classes), U))
        for k, instances in enumerate(matched.instances_K.tolist()):
            rows = matched.of_class(k)
            for u in range(U):
                kept_N = kinds_NU[rows, u] != kind
                correct_N1 = correct_NU[rows, u][kept_N, None]
                after_KU[k, u] = interpolated_average_precision(correct_N1, instances).item()
        result[KINDS[kind]] = float(after_KU.mean() - before)
    return result


def missed_gain(matched: Matched, found_NU: NDArray[np.int64]) -> float:
    """What the average mAP would gain, were there sure detections of what nothing finds.

    At every threshold the ground truth that no detection finds there is added as true positives,
    before all others.
    """
    before = average_precisions(matched, found_NU >= 0).mean()
    U = found_NU.shape[1]
    after_KU = np.zeros((len(matched.classes), U))
    for k, instances in enumerate(matched.instances_K.tolist()):
        rows = matched.of_class(k)
        for u in range(U):
            found_N = found_NU[rows, u]
            missed = instances - len(np.unique(found_N[found_N >= 0]))
            sure_N = np.ones(missed, np.bool_)
            correct_N1 = np.concatenate([sure_N, found_N >= 0])[:, None]
            after_KU[k, u] = interpolated_average_precision(correct_N1, instances).item()
    return float(after_KU.mean() - before)


def confusions(matched: Matched, kinds_N: NDArray[np.int8]) -> list[Confusion]:
    """Which class is taken for which, among the best G detections of every class.

    Those that are a wrong label or a confusion error at tIoU 0.5; the ground truth that one
    overlaps most says which class it was.
    """
    best_N = rank_in_class(matched) < matched.instances_K[matched.class_N]
    wrong_N = best_N & np.isin(kinds_N, (WRONG_LABEL, CONFUSION))
    videos: dict[tuple[int, int], Counter[str]] = {}
    for n in np.flatnonzero(wrong_N).tolist():
        truth = _class_overlapped_most(matched, n)
        pair = truth, int(matched.class_N[n])
        videos.setdefault(pair, Counter())[matched.videos[int(matched.video_N[n])]] += 1
    found = []
    for (truth, detected), counts in videos.items():
        names = [name for name, _ in counts.most_common(VIDEOS_OF_A_PAIR)]
        classes = matched.classes[truth], matched.classes[detected]
        found.append(Confusion(*classes, counts.total(), names))
    found.sort(key=lambda pair: (-pair.count, pair.truth, pair.detected))
    return found[:PAIRS]


def _class_overlapped_most(matched: Matched, n: int) -> int:
    """The class of the ground truth that a detection overlaps most, its own class left out."""
    here_G = matched.truth_video_G == matched.video_N[n]
    here_G = here_G & (matched.truth_class_G != matched.class_N[n])
    start, end = matched.segments_N2[n]
    truth_G2 = matched.truth_G2[here_G]
    overlap_G = (np.minimum(end, truth_G2[:, 1]) - np.maximum(start, truth_G2[:, 0])).clip(0)
    union_G = (end - start) + (truth_G2[:, 1] - truth_G2[:, 0]) - overlap_G
    best = int(np.argmax(overlap_G / np.maximum(union_G, 1e-8)))
    return int(matched.truth_class_G[here_G][best])


def characteristics(matched: Matched) -> dict[str, NDArray[np.float64]]:
    """Of every ground-truth segment: its part of the video, its seconds, how many there are of it.

    "instances" counts the segments of its class in its video.
    """
    length_G = np.diff(matched.truth_G2)[:, 0]
    group_sizes = np.diff(matched.bounds)
    return {
        "coverage": length_G / matched.duration_V[matched.truth_video_G],
        "length": length_G,
        "instances": np.repeat(group_sizes, group_sizes).astype(np.float64),
    }


def normalized_ap(
    matched: Matched, found_NU: NDArray[np.int64], chosen_G: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """AP_N (K, U) of the classes that have chosen ground truth.

    As if each had as many segments as the mean class: precision is R M / (R M + F) with recall R, M
    segments and F false positives so far, which makes classes and bins of different size comparable
    (Hoiem, Chodpathumwan, Dai, ECCV 2012). What finds a segment that isn't chosen is ignored.
    """
    mean_instances = len(chosen_G) / len(matched.classes)
    chosen_K = np.bincount(matched.truth_class_G[chosen_G], minlength=len(matched.classes))
    result = []
    for k in np.flatnonzero(chosen_K).tolist():
        ap_U = []
        for u in range(found_NU.shape[1]):
            found_N = found_NU[matched.of_class(k), u]
            # index -1 reads the last segment: the first condition takes that back
            correct_N = (found_N >= 0) & chosen_G[found_N]
            counted_N = correct_N | (found_N < 0)
            ap_U.append(_normalized_ap(correct_N[counted_N], int(chosen_K[k]), mean_instances))
        result.append(ap_U)
    return np.asarray(result).reshape(-1, found_NU.shape[1])


def _normalized_ap(correct_N: NDArray[np.bool_], instances: int, weight: float) -> float:
    """Interpolated AP of detections in order, with `weight` for `instances` in precision."""
    true_N = correct_N.cumsum(dtype=np.float64)
    false_N = np.arange(1, len(correct_N) + 1) - true_N
    weighted_N = true_N / instances * weight
    precision_N = weighted_N / np.maximum(weighted_N + false_N, 1e-12)
    precision_N = np.maximum.accumulate(precision_N[::-1])[::-1]
    return float((precision_N * correct_N).sum() / instances)


def _bins(
    matched: Matched,
    found_NU: NDArray[np.int64],
    seen_G: NDArray[np.bool_],
    values_G: NDArray[np.float64],
    what: str,
    edges: Sequence[float] | None,
) -> list[Bin]:
    """The bins of one characteristic."""
    upper = fifths(values_G) if edges is None else [float(edge) for edge in edges]
    if not upper or list(upper) != sorted(set(upper)) or len(upper) >= len(BIN_NAMES):
        wanted = f"expected one to {len(BIN_NAMES) - 1} rising numbers"
        raise InputError(f"edges of {what} {upper}: {wanted}")
    bin_G = np.searchsorted(upper, values_G)
    result = []
    for b, (low, high) in enumerate(zip([0.0, *upper], [*upper, None], strict=True)):
        chosen_G = bin_G == b
        count = int(chosen_G.sum())
        score = float(normalized_ap(matched, found_NU, chosen_G).mean()) if count else None
        missed = float(1 - seen_G[chosen_G].mean()) if count else None
        result.append(Bin(BIN_NAMES[b], low, high, count, score, missed))
    return result


def fifths(values_G: NDArray[np.float64]) -> list[float]:
    """Up to four edges that cut the values into five parts of about the same size; at least one."""
    edges = np.unique(np.quantile(values_G, [0.2, 0.4, 0.6, 0.8], method="inverted_cdf"))
    inner = edges[edges < values_G.max()]
    return [float(edge) for edge in (inner if len(inner) else edges[-1:])]


@numba.njit(cache=True, nogil=True)
def _best_overlaps(
    segments: Any, classes: Any, videos: Any, truth: Any, truth_classes: Any, bounds: Any
) -> Any:
    """Of every detection the highest tIoU in its video: with its own label, and with others."""
    N = len(segments)
    own, other = np.zeros(N), np.zeros(N)
    for n in range(N):
        if videos[n] < 0:
            continue
        start, end = segments[n, 0], segments[n, 1]
        for i in range(bounds[videos[n]], bounds[videos[n] + 1]):
            intersection = max(min(end, truth[i, 1]) - max(start, truth[i, 0]), 0.0)
            union = (end - start) + (truth[i, 1] - truth[i, 0]) - intersection
            tiou = intersection / max(union, 1e-8)
            if truth_classes[i] == classes[n]:
                own[n] = max(own[n], tiou)
            else:
                other[n] = max(other[n], tiou)
    return own, other
