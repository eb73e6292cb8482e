"""Run a network over test views and write down what it detects (METHOD section 5, items 1 to 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from actionformer.data.loader import test_batches
from actionformer.data.view import View
from actionformer.detection.classifiers import VideoClassifier
from actionformer.detection.decode import candidates, decode
from actionformer.detection.nms import Detections, batched_nms
from actionformer.experiment import InferenceParams
from actionformer.model.actionformer import ActionFormer
from actionformer.progress import progress

Results = dict[str, list[dict[str, Any]]]


@torch.inference_mode()
def predict(
    model: ActionFormer,
    views: Sequence[View],
    params: InferenceParams,
    classes: Sequence[str],
    classifier: VideoClassifier | None = None,
    device: str = "cpu",
) -> Results:
    """Video -> detections {"segment": [start, end] in seconds, "label", "score"}, best first.

    Views with a window are one sliding test: NMS runs over all windows of a video, on rounded seconds.
    """
    collected: dict[str, list[Detections]] = {}
    batches = test_batches(views, batch_size=params.batch_size)
    total = -(-len(views) // params.batch_size)
    for chosen, batch in progress(batches, "detect", unit="batch", total=total):
        levels = model(batch.features_BCT.to(device), batch.mask_BT.to(device))
        for b, view in enumerate(chosen):
            segments, scores, labels = candidates(*decode(levels, b), params)
            if view.window is None:
                detections = _nms((segments.cpu().numpy(), scores.cpu().numpy(), labels.cpu().numpy()), params)
                seconds = view.to_seconds(torch.from_numpy(detections[0])).numpy()
                collected[view.video] = [(seconds, *detections[1:])]
            else:
                found = _rounded((view.to_seconds(segments.cpu()).numpy(), scores.cpu().numpy(), labels.cpu().numpy()))
                collected.setdefault(view.video, []).append(found)

    sliding = any(view.window is not None for view in views)
    results: Results = {}
    for video, parts in collected.items():
        joined = tuple(np.concatenate([part[i] for part in parts]) for i in range(3))
        segments_N2, scores_N, labels_N = _nms(joined, params) if sliding else joined  # type: ignore[arg-type]
        names = [classes[label] for label in labels_N] if classifier is None else []
        if classifier is not None:
            segments_N2, scores_N, names = classifier.fuse(video, segments_N2, scores_N)
        results[video] = as_published(segments_N2, scores_N, names)
    return results


def _nms(detections: Detections, params: InferenceParams) -> Detections:
    return batched_nms(
        *detections,
        sigma=params.soft_nms_sigma,
        min_score=params.min_score,
        max_segments=params.max_segments,
        per_class=params.per_class_nms,
        voting_threshold=params.voting_threshold,
    )


def as_published(
    segments_N2: NDArray[np.float32], scores_N: NDArray[np.float32], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Detections as the published result files hold them: rounded by Python's `round` of the widened float32."""
    return [
        {"segment": [round(start, 2), round(end, 2)], "label": label, "score": round(score, 4)}
        for (start, end), score, label in zip(segments_N2.tolist(), scores_N.tolist(), labels, strict=True)
    ]


def _rounded(detections: Detections) -> Detections:
    segments_N2, scores_N, labels_N = detections
    rounded = [[round(start, 2), round(end, 2)] for start, end in segments_N2.tolist()]
    return (
        np.array(rounded, np.float32).reshape(-1, 2),
        np.array([round(score, 4) for score in scores_N.tolist()], np.float32),
        labels_N,
    )
