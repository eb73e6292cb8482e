"""Ground truth and detections as arrays, and which detection finds which segment (METHOD section 5, item 6).

K classes   U thresholds   G ground-truth segments   N detections   V videos
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from actionformer.data.annotations import Database, load_database
from actionformer.errors import InputError
from actionformer.files import read_json

Results = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Matched:
    """Ground truth and detections of the evaluated subset as arrays, both sorted by class.

    `group` numbers the (class, video) pairs that have ground truth; ground truth of group g lies at
    `bounds[g]:bounds[g + 1]`; a detection without ground truth in its video and class has group -1. Detections of a
    class are in descending order of score, equals in their order in the file. Videos are those with ground truth; a
    detection in another one has video -1.
    """

    classes: tuple[str, ...]
    truth_G2: NDArray[np.float64]
    truth_class_G: NDArray[np.int64]
    truth_video_G: NDArray[np.int64]
    bounds: NDArray[np.int64]
    segments_N2: NDArray[np.float64]
    scores_N: NDArray[np.float64]
    class_N: NDArray[np.int64]
    video_N: NDArray[np.int64]
    group_N: NDArray[np.int64]
    videos: tuple[str, ...]
    duration_V: NDArray[np.float64]

    @property
    def instances_K(self) -> NDArray[np.int64]:
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
        InputError: a subset without ground truth; a detection without segment, label or score, or with a NaN.
    """
    if not isinstance(database, Database):
        database = load_database(database)
    blocked = frozenset(blocked)
    truth: list[tuple[str, str, float, float]] = []
    for video in database.subset(subset):
        if video.name not in blocked:
            truth += _distinct(video.name, video.labels, video.segments_N2.tolist())
    if not truth:
        known = ", ".join(sorted({v.subset for v in database.videos.values()})) or "none"
        raise InputError(f"subset '{subset}' has no ground truth; subsets of the database: {known}")
    classes = tuple(sorted({label for _, label, _, _ in truth}))
    class_index = {label: k for k, label in enumerate(classes)}

    truth.sort(key=lambda item: (class_index[item[1]], item[0]))
    pairs = list(dict.fromkeys((label, video) for video, label, _, _ in truth))
    group_index = {pair: g for g, pair in enumerate(pairs)}
    truth_group = np.array([group_index[label, video] for video, label, _, _ in truth])
    bounds = np.searchsorted(truth_group, np.arange(len(pairs) + 1))
    videos = tuple(sorted({video for video, _, _, _ in truth}))
    video_index = {video: v for v, video in enumerate(videos)}
    # of every video, the group per class; the last column and the other videos have none
    groups_of: dict[str, NDArray[np.int64]] = {}
    for (label, name), g in group_index.items():
        groups_of.setdefault(name, np.full(len(classes) + 1, -1))[class_index[label]] = g
    no_groups = np.full(len(classes) + 1, -1)

    results = read_results(detections)
    parts = []
    for name, found in results.items():
        if name in blocked or not found:
            continue
        try:
            class_N = np.array([class_index.get(item["label"], -1) for item in found])
            segments_N2 = np.array([item["segment"] for item in found], np.float64).reshape(len(found), 2)
            scores_N = np.array([item["score"] for item in found])
            if scores_N.dtype.kind not in "fiu":
                raise ValueError(f"a score that is no number among {scores_N[:3].tolist()}")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"detections of video '{name}': {error!r}; expected 'segment' [start, end], 'label' and 'score'"
            ) from None
        group_N = groups_of.get(name, no_groups)[class_N]
        parts.append((segments_N2, scores_N, class_N, group_N, np.full(len(found), video_index.get(name, -1))))
    segments_N2 = np.concatenate([np.zeros((0, 2)), *(part[0] for part in parts)])
    scores_N, class_N, group_N, video_N = (
        np.concatenate([np.zeros(0, kind), *(part[k] for part in parts)])
        for k, kind in ((1, np.float64), (2, np.int64), (3, np.int64), (4, np.int64))
    )
    known_N = class_N >= 0
    _refuse_strangers(results, database, classes, kept=int(known_N.sum()), subset=subset)
    segments_N2, scores_N = segments_N2[known_N], scores_N[known_N]
    class_N, group_N, video_N = class_N[known_N], group_N[known_N], video_N[known_N]
    if not (np.isfinite(segments_N2).all() and np.isfinite(scores_N).all()):
        raise InputError("the detections contain NaN or infinite times or scores")
    order = np.lexsort((-scores_N, class_N))
    return Matched(
        classes,
        np.array([[start, end] for _, _, start, end in truth]),
        np.array([class_index[label] for _, label, _, _ in truth], np.int64),
        np.array([video_index[video] for video, _, _, _ in truth], np.int64),
        bounds,
        segments_N2[order],
        scores_N[order],
        class_N[order],
        video_N[order],
        group_N[order],
        videos,
        np.array([database.videos[video].duration for video in videos]),
    )


def checked_thresholds(tiou_thresholds: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The thresholds as an array; raises `InputError` if one is no tIoU."""
    if not all(0 < t <= 1 for t in tiou_thresholds):
        raise InputError(f"tIoU thresholds {list(tiou_thresholds)}: expected numbers above 0, at most 1")
    return np.asarray(tiou_thresholds, np.float64)


def true_positives(matched: Matched, tiou_thresholds: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:
    """(N, U): index of the segment that a detection finds at a threshold, -1 for a false positive.

    Every detection, best first, finds the segment of its video and class that overlaps it most among those still
    unmatched, if their tIoU reaches the threshold; of equally overlapping ones the later.
    """
    thresholds = checked_thresholds(tiou_thresholds)
    return _true_positives(matched.truth_G2, matched.bounds, matched.segments_N2, matched.group_N, thresholds)


def _refuse_strangers(results: Results, database: Database, classes: Sequence[str], *, kept: int, subset: str) -> None:
    """Detections of which no video or no label is known belong to other ground truth: a score of 0 would mislead."""
    if results and not any(name in database.videos for name in results):
        raise InputError(f"no video of the detections (such as '{next(iter(results))}') is in the database")
    found = next((item for items in results.values() for item in items), None)
    if found is not None and not kept:
        label = found.get("label")
        raise InputError(
            f"no detection has a label of subset '{subset}' ({', '.join(classes[:3])}, ...), but '{label}'"
        )


def read_results(detections: Results | Mapping[str, Any] | Path | str) -> Results:
    """Video -> detections, from a result file or what it holds.

    Raises:
        InputError: anything but lists of objects.
    """
    content: Any = read_json(Path(detections)) if isinstance(detections, Path | str) else detections
    if isinstance(content, Mapping) and "results" in content:
        content = content["results"]
    if not isinstance(content, Mapping):
        raise InputError(f"{_named(detections)}: expected a JSON object with the key 'results'")
    for video, found in content.items():
        if not isinstance(found, Sequence) or isinstance(found, str) or not all(isinstance(d, Mapping) for d in found):
            raise InputError(f"{_named(detections)}: video '{video}': expected a list of detections, each an object")
    return content


def _named(detections: Any) -> str:
    return str(detections) if isinstance(detections, Path | str) else "detections"


def _distinct(
    video: str, labels: Sequence[str], segments: Sequence[Sequence[float]]
) -> list[tuple[str, str, float, float]]:
    """Ground truth without segments of zero or negative length and without near-duplicates (ends within 1e-3)."""
    kept: list[tuple[str, str, float, float]] = []
    for label, (start, end) in zip(labels, segments, strict=True):
        twin = any(label == l and abs(start - s) <= 1e-3 and abs(end - e) <= 1e-3 for _, l, s, e in kept)
        if end > start and not twin:
            kept.append((video, label, start, end))
    return kept


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
            tiou[i - first] = intersection / max(union, 1e-8)
        for u in range(U):
            best = -1
            for i in range(last - first):
                if tiou[i] >= thresholds[u] and not taken[first + i, u] and (best < 0 or tiou[i] >= tiou[best]):
                    best = i
            if best >= 0:
                taken[first + best, u] = True
                found[n, u] = first + best
    return found
