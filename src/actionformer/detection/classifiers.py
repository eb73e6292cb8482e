"""External classifiers of videos, read, and fused with segments (METHOD section 5, item 4).

cuhk      {"results": {video: [probability per class]}, "class": [names]}         ActivityNet
tcanet    {"results": {video: [[logit per class]]}, "class": [names]}             HACS
standard  {"results": {video: [probability per class]}, "classes": [names]}       FineAction

A file that `actionformer classify` has written says its kind itself, under "kind".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.values import items_of, text_of

Kind = Literal["cuhk", "tcanet", "standard"]


@dataclass(frozen=True)
class VideoClassifier:
    """Class scores of every video."""

    kind: Kind
    top_k: int
    results: dict[str, Any]
    classes: list[str]
    path: Path

    def refuse_without(self, video: str) -> None:
        """Raise `InputError` where the file has no scores for a video."""
        if video not in self.results:
            wanted = "get the file that covers the subset"
            raise InputError(f"{self.path}: no scores for video '{video}'; {wanted}")

    def fuse(
        self, video: str, segments_N2: NDArray[np.float32], scores_N: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
        """Every segment once for each of the video's `top_k` classes: segments, scores, labels."""
        self.refuse_without(video)
        values_K = np.asarray(self.results[video], np.float32)
        if self.kind == "tcanet":
            # logits in a list of one; twice their softmax, as published
            exponentials_K = np.exp(values_K[0] - values_K[0].max())
            values_K = np.float32(2) * (exponentials_K / exponentials_K.sum())
        # stable: of equal probabilities the class that comes first
        best = np.argsort(-values_K, kind="stable")[: self.top_k]
        scores, labels = [], []
        for k in best:
            fused_N = scores_N * values_K[k]
            scores.append(np.sqrt(fused_N) if self.kind == "standard" else fused_N)
            labels += [self.classes[k]] * len(scores_N)
        return np.tile(segments_N2, (len(best), 1)), np.concatenate(scores), labels


def load_classifier(
    path: Path, kind: Kind, top_k: int, num_classes: int | None = None
) -> VideoClassifier:
    """Read a classifier's file.

    Args:
        num_classes: how many classes the data set has; a list with one more or less would give
            every later score to another class.

    Raises:
        InputError: a missing key, another number of classes, a video with another number of scores,
            a score that is no finite number.
    """
    content = read_object(path, "results")
    results = content["results"]
    if content.get("kind") == "standard":
        kind = "standard"
    try:
        classes = [text_of(name) for name in items_of(content.get("class", content.get("classes")))]
    except ValueError as error:
        raise InputError(f"{path}: 'class' or 'classes': {error}") from None
    if len(set(classes)) < len(classes):
        raise InputError(f"{path}: a class occurs twice")
    if num_classes not in (None, len(classes)):
        raise InputError(f"{path}: has {len(classes)} classes, the data set {num_classes}")
    if not isinstance(results, dict):
        raise InputError(f"{path}: 'results' is no object of scores by video")
    shape = (1, len(classes)) if kind == "tcanet" else (len(classes),)
    for video, scores in results.items():
        _check_scores(scores, shape, f"{path}: video '{video}'")
    return VideoClassifier(kind, top_k, results, classes, path)


def _check_scores(scores: Any, shape: tuple[int, ...], where: str) -> None:
    try:
        values = np.array(scores)
    except ValueError:  # lists of different lengths
        values = np.array(None)
    # numpy takes True for 1 beside numbers
    mixed = any(isinstance(score, bool) for score in np.array(scores, dtype=object).flat)
    if values.dtype.kind not in "fiu" or values.shape != shape or mixed:
        raise InputError(f"{where}: expected {shape[-1]} scores, one for each class")
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))
    if not finite.all():
        raise InputError(f"{where}: a score that is no finite number")
