"""Ground truth and detections as arrays, and which finds which (METHOD section 5, item 6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from actionformer.data.annotations import Database, load_database
from actionformer.data.detections import Detection, DetectionArrays, Results, read_results
from actionformer.errors import InputError

# what times and scores may be
NUMBERS = (int, float, np.integer, np.floating)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Matched:
    """Ground truth and detections of the evaluated subset as arrays, both sorted by class.

    `group` numbers the (class, video) pairs that have ground truth; ground truth of group g lies at
    `bounds[g]:bounds[g + 1]`; a detection without ground truth in its video and class has group -1.
    Detections of a class are in descending order of score, equals in their order in the file.
    Videos are those with ground truth; a detection in another one has video -1.
    """

    classes: tuple[str, ...]
    truth_G2: Floats
    truth_class_G: Ints
    truth_video_G: Ints
    bounds: Ints
    segments_N2: Floats
    scores_N: Floats
    class_N: Ints
    video_N: Ints
    group_N: Ints
    videos: tuple[str, ...]
    duration_V: Floats

    @property
    def instances_K(self) -> Ints:
        """Ground truth of each class."""
        return np.bincount(self.truth_class_G, minlength=len(self.classes))

    def of_class(self, k: int) -> slice:
        """The detections of a class, best first."""
        first, last = np.searchsorted(self.class_N, (k, k + 1))
        return slice(int(first), int(last))


def match(
    database: Database | Mapping[str, Any] | Path | str,
    detections: Results | Mapping[str, Any] | Path | str,
    *,
    subset: str,
    blocked: Collection[str] = (),
) -> Matched:
    """Put ground truth and detections into arrays; see `Matched`.

    Raises:
        InputError: a subset without ground truth; a detection without segment, label or score, or
            with a NaN.
    """
    if not isinstance(database, Database):
        database = load_database(database)
    blocked = frozenset(blocked)
    truth = _ground_truth(database, subset, blocked)
    results = read_results(detections)
    segments_N2, scores_N, class_N, video_N, group_N = _detections(results, truth, blocked)
    # detections of classes without ground truth count nowhere, as published
    known_N = class_N >= 0
    _refuse_strangers(results, database, truth.classes, subset, kept=int(known_N.sum()))
    finite_N = np.isfinite(segments_N2).all(1) & np.isfinite(scores_N)
    wrong = np.flatnonzero(known_N & ~finite_N)
    if len(wrong):
        video = truth.videos[video_N[wrong[0]]]
        raise InputError(f"detections of video '{video}': NaN or infinite times or scores")
    # by class, best first; equals stay in their order
    order = np.flatnonzero(known_N)
    order = order[np.argsort(-scores_N[order], kind="stable")]
    # numbers of 16 bits are not compared but counted, in a tenth of the time
    class_type = np.min_scalar_type(len(truth.classes))
    order = order[np.argsort(class_N[order].astype(class_type), kind="stable")]
    return Matched(
        classes=truth.classes,
        truth_G2=truth.segments_G2,
        truth_class_G=truth.class_G,
        truth_video_G=truth.video_G,
        bounds=truth.bounds,
        segments_N2=segments_N2[order],
        scores_N=scores_N[order],
        class_N=class_N[order],
        video_N=video_N[order],
        group_N=group_N[order],
        videos=truth.videos,
        duration_V=np.array([database.videos[video].duration for video in truth.videos]),
    )


@dataclass(frozen=True)
class _GroundTruth:
    """The ground truth of the evaluated videos, sorted by class and video."""

    classes: tuple[str, ...]
    videos: tuple[str, ...]
    segments_G2: Floats
    class_G: Ints
    video_G: Ints
    bounds: Ints
    # the group of a video and class; -1 where there is none, as in the last column
    groups_VK: Ints


def _ground_truth(database: Database, subset: str, blocked: Collection[str]) -> _GroundTruth:
    labels: list[str] = []
    names: list[str] = []
    segments: list[NDArray[np.float64]] = []
    for video in database.subset(subset):
        if video.name not in blocked:
            kept = _distinct(video.labels, video.segments_G2.tolist())
            labels += [video.labels[g] for g in kept]
            names += [video.name] * len(kept)
            segments.append(video.segments_G2[kept])
    if not labels:
        known = ", ".join(sorted({video.subset for video in database.videos.values()})) or "none"
        raise InputError(f"subset '{subset}' has no ground truth; subsets of the database: {known}")
    # the classes of the evaluated subset alone: others don't count in the mean, as published
    classes, videos = tuple(sorted(set(labels))), tuple(sorted(set(names)))
    class_index = {label: k for k, label in enumerate(classes)}
    video_index = {video: v for v, video in enumerate(videos)}

    class_G = np.array([class_index[label] for label in labels])
    video_G = np.array([video_index[name] for name in names])
    # by class, then video; within both segments stay in their order
    order = np.lexsort((video_G, class_G))
    class_G, video_G, segments_G2 = class_G[order], video_G[order], np.concatenate(segments)[order]
    # a group begins where the class or the video is another one
    begins_G = (np.diff(class_G, prepend=-1) != 0) | (np.diff(video_G, prepend=-1) != 0)
    group_G = np.cumsum(begins_G) - 1
    # a column more than there are classes, for labels without ground truth
    groups_VK = np.full((len(videos), len(classes) + 1), -1)
    groups_VK[video_G, class_G] = group_G
    return _GroundTruth(
        classes=classes,
        videos=videos,
        segments_G2=segments_G2,
        class_G=class_G,
        video_G=video_G,
        bounds=np.searchsorted(group_G, np.arange(group_G[-1] + 2)),
        groups_VK=groups_VK,
    )


def _detections(
    results: Results, truth: _GroundTruth, blocked: Collection[str]
) -> tuple[Floats, Floats, Ints, Ints, Ints]:
    """Segments, scores, class, video and group of all detections, in their order in the file.

    An unknown class is -1.
    """
    class_index = {label: k for k, label in enumerate(truth.classes)}
    video_index = {video: v for v, video in enumerate(truth.videos)}
    no_groups_K = np.full(len(truth.classes) + 1, -1)
    segments, scores = [np.zeros((0, 2))], [np.zeros(0)]
    classes, videos, groups = ([np.zeros(0, np.int64)] for _ in range(3))
    for name, found in results.items():
        if name in blocked or not found:
            continue
        segments_N2, scores_N, class_N = _arrays(name, found, class_index)
        v = video_index.get(name, -1)
        # an unknown label is class -1, which picks the last column: no group
        groups_K = no_groups_K if v < 0 else truth.groups_VK[v]
        segments.append(segments_N2)
        scores.append(scores_N)
        classes.append(class_N)
        videos.append(np.full(len(found), v))
        groups.append(groups_K[class_N])
    return (
        np.concatenate(segments),
        np.concatenate(scores),
        np.concatenate(classes),
        np.concatenate(videos),
        np.concatenate(groups),
    )


def _arrays(
    video: str, found: Sequence[Detection], class_index: Mapping[str, int]
) -> tuple[Floats, Floats, Ints]:
    """Segments, scores and classes of a video's detections."""
    if isinstance(found, DetectionArrays):
        class_N = np.array([class_index.get(label, -1) for label in found.labels])
        return found.segments_N2, found.scores_N, class_N
    try:
        labels = [item["label"] for item in found]
        segments = [item["segment"] for item in found]
        scores = [item["score"] for item in found]
        if set(map(len, segments)) != {2}:
            raise ValueError("a segment of other than two times")
        times = list(chain.from_iterable(segments))
        # by their types, which are few: numpy would take the digits of a text, and truth values
        _refuse_others("label", set(map(type, labels)), str)
        _refuse_others("time or score", set(map(type, chain(times, scores))), *NUMBERS)
        class_N = np.array([class_index.get(label, -1) for label in labels])
        segments_N2 = np.fromiter(times, np.float64, len(times)).reshape(len(found), 2)
        scores_N = np.fromiter(scores, np.float64, len(scores))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        wrong = f"one lacks {error}" if isinstance(error, KeyError) else str(error)
        wanted = "expected 'segment' [start, end], 'label' and 'score'"
        raise InputError(f"detections of video '{video}': {wrong}; {wanted}") from None
    return segments_N2, scores_N, class_N


def _refuse_others(what: str, found: set[type], *wanted: type) -> None:
    for kind in found:
        if kind is bool or not issubclass(kind, wanted):
            raise ValueError(f"a {what} that is {kind.__name__}")


def _refuse_strangers(
    results: Results, database: Database, classes: Sequence[str], subset: str, *, kept: int
) -> None:
    """Detections of no known video or label belong to other ground truth: 0 would mislead."""
    if results and not any(name in database.videos for name in results):
        such = f"(such as '{next(iter(results))}')"
        raise InputError(f"no video of the detections {such} is in the database")
    if kept:
        return
    for found in results.values():
        for detection in found:
            label, known = detection.get("label"), ", ".join(classes[:3])
            raise InputError(
                f"no detection has a label of subset '{subset}' ({known}, ...), but '{label}'"
            )


def _distinct(labels: Sequence[str], segments: Sequence[Sequence[float]]) -> list[int]:
    """Which of a video's segments count: not those of no length, nor near-duplicates.

    Of near-duplicates, whose ends lie within 1e-3, the first counts.
    """
    kept: list[int] = []
    known: dict[str, list[tuple[float, float]]] = {}
    for g, (label, (start, end)) in enumerate(zip(labels, segments, strict=True)):
        if not end > start:
            continue
        same_label = known.setdefault(label, [])
        for s, e in same_label:
            if abs(start - s) <= 1e-3 and abs(end - e) <= 1e-3:
                break
        else:
            same_label.append((start, end))
            kept.append(g)
    return kept


def checked_thresholds(tiou_thresholds: Sequence[float] | Floats) -> Floats:
    """The thresholds as an array; raises `InputError` if one is no tIoU."""
    if not all(0 < tiou <= 1 for tiou in tiou_thresholds):
        wanted = "expected numbers above 0, at most 1"
        raise InputError(f"tIoU thresholds {list(tiou_thresholds)}: {wanted}")
    return np.asarray(tiou_thresholds, np.float64)


def true_positives(matched: Matched, tiou_thresholds: Sequence[float] | Floats) -> Ints:
    """(N, U): index of the segment that a detection finds at a threshold, -1 for a false positive.

    Every detection, best first, finds the segment of its video and class that overlaps it most
    among those still unmatched, if their tIoU reaches the threshold; of equally overlapping ones
    the later.
    """
    thresholds = checked_thresholds(tiou_thresholds)
    return _true_positives(
        matched.truth_G2, matched.bounds, matched.segments_N2, matched.group_N, thresholds
    )


@numba.njit(cache=True, nogil=True)
def _true_positives(truth: Any, bounds: Any, segments: Any, groups: Any, thresholds: Any) -> Any:
    """The segment that detection n finds at threshold u, or -1."""
    N, U = len(segments), len(thresholds)
    found = np.full((N, U), -1, np.int64)
    taken = np.zeros((len(truth), U), np.bool_)
    for n in range(N):
        g = groups[n]
        if g < 0:
            continue
        first, last = bounds[g], bounds[g + 1]
        tiou = np.empty(last - first)
        start, end = segments[n, 0], segments[n, 1]
        for i in range(first, last):
            intersection = max(min(end, truth[i, 1]) - max(start, truth[i, 0]), 0.0)
            union = (end - start) + (truth[i, 1] - truth[i, 0]) - intersection
            # a detection may end before it starts, and its union be nothing
            tiou[i - first] = intersection / max(union, 1e-8)
        for u in range(U):
            best = -1
            for i in range(last - first):
                free = tiou[i] >= thresholds[u] and not taken[first + i, u]
                if free and (best < 0 or tiou[i] >= tiou[best]):
                    best = i
            if best >= 0:
                taken[first + best, u] = True
                found[n, u] = first + best
    return found
