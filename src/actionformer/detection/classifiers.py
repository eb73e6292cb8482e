"""External classifiers of videos, read, and fused with segments (METHOD section 5, item 4).

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

Kind = Literal["cuhk", "tcanet", "standard"]


@dataclass(frozen=True)
class VideoClassifier:
    """Class scores of every video."""

    kind: Kind
    top_k: int
    results: dict[str, Any]
    classes: list[str]
    path: Path

    def fuse(
        self, video: str, segments_N2: NDArray[np.float32], scores_N: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
        """Every segment once for each of the video's `top_k` classes: segments, scores, labels."""
        if video not in self.results:
            wanted = "get the file that covers the subset"
            raise InputError(f"{self.path}: no scores for video '{video}'; {wanted}")
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


def load_classifier(path: Path, kind: Kind, top_k: int) -> VideoClassifier:
    """Read a classifier's file."""
    content = read_json(path)
    classes = None
    if isinstance(content, dict):
        classes = content.get("class", content.get("classes"))
    if classes is None or "results" not in content:
        raise InputError(f"{path}: expected the keys 'results' and 'class' or 'classes'")
    return VideoClassifier(kind, top_k, content["results"], list(classes), path)
