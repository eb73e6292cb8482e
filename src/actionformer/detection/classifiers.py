"""External video-level classifiers, fused with class-agnostic segments (METHOD section 5, item 4).

cuhk      {"results": {video: [probability per class]}, "class": [names]}         ActivityNet
tcanet    {"results": {video: [[logit per class]]}, "class": [names]}             HACS
standard  {"results": {video: [probability per class]}, "classes": [names]}       FineAction
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.files import read_json


@dataclass(frozen=True)
class VideoClassifier:
    """Class scores of every video."""

    kind: Literal["cuhk", "tcanet", "standard"]
    top_k: int
    results: dict[str, Any]
    classes: list[str]
    path: Path

    def fuse(
        self, video: str, segments_N2: NDArray[np.float32], scores_N: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
        """Every segment once for each of the video's `top_k` classes: segments, scores and labels (N * top_k)."""
        if video not in self.results:
            raise InputError(f"{self.path}: no scores for video '{video}'; get the file that covers the subset")
        values = np.asarray(self.results[video], np.float32)
        if self.kind == "tcanet":
            exponentials = np.exp(values[0] - values[0].max())
            values = np.float32(2) * (exponentials / exponentials.sum())
        best = np.argsort(-values, kind="stable")[: self.top_k]
        fused = [np.sqrt(scores_N * values[c]) if self.kind == "standard" else scores_N * values[c] for c in best]
        labels = [self.classes[c] for c in best for _ in range(len(scores_N))]
        return np.tile(segments_N2, (len(best), 1)), np.concatenate(fused), labels


def load_classifier(path: Path, kind: Literal["cuhk", "tcanet", "standard"], top_k: int) -> VideoClassifier:
    """Read a classifier's file."""
    content = read_json(path)
    classes = content.get("class", content.get("classes")) if isinstance(content, dict) else None
    if classes is None or "results" not in content:
        raise InputError(f"{path}: expected the keys 'results' and 'class' or 'classes'")
    return VideoClassifier(kind, top_k, content["results"], list(classes), path)
