"""Run a network over test views, join windows, NMS: detections (METHOD section 5, items 1 to 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionformer.data.detections import DetectionArrays
from actionformer.data.view import View
from actionformer.detection.classifiers import VideoClassifier
from actionformer.detection.decode import candidates, decode
from actionformer.detection.levels import levels_of_views
from actionformer.detection.nms import Detections, batched_nms
from actionformer.model.actionformer import ActionFormer
from actionformer.params.experiment import InferenceParams


def predict(
    model: ActionFormer,
    views: Sequence[View],
    params: InferenceParams,
    classes: Sequence[str],
    classifier: VideoClassifier | None = None,
    device: str = "cpu",
) -> dict[str, list[dict[str, Any]]]:
    """Video -> detections {"segment": [start, end] in seconds, "label", "score"}, best first."""
    found = predict_arrays(model, views, params, classes, classifier, device)
    return {video: list(detections) for video, detections in found.items()}


@torch.inference_mode()
def predict_arrays(
    model: ActionFormer,
    views: Sequence[View],
    params: InferenceParams,
    classes: Sequence[str],
    classifier: VideoClassifier | None = None,
    device: str = "cpu",
) -> dict[str, DetectionArrays]:
    """The same as `predict`, for an evaluation in the same process."""
    found: dict[int, Detections] = {}
    every = levels_of_views(
        [model], views, batch_size=params.batch_size, device=device, what="detect"
    )
    for place, (levels,) in every:
        best = candidates(*decode(levels, 0), params)
        found[place] = in_seconds(views[place], best, params)
    # NMS of a sliding test waits for the last window of a video
    sliding = any(view.window is not None for view in views)
    results = {}
    for video, parts in by_video(views, found).items():
        results[video] = _found_in(video, parts, params, classes, classifier, sliding=sliding)
    return results


def by_video(views: Sequence[View], found: Mapping[int, Detections]) -> dict[str, list[Detections]]:
    """What was found in the views of every video; videos and views in the order of `views`.

    Args:
        found: the place of a view -> its detections.
    """
    collected: dict[str, list[Detections]] = {}
    for place, view in enumerate(views):
        collected.setdefault(view.video, []).append(found[place])
    return collected


def in_seconds(
    view: View, best: tuple[Tensor, Tensor, Tensor], params: InferenceParams
) -> Detections:
    """Candidates of a view after NMS, or of a window before it and rounded, in seconds.

    Args:
        best: segments (N, 2) on the grid, scores (N,), labels (N,).
    """
    segments_N2, scores_N, labels_N = (part.cpu().numpy() for part in best)
    if view.window is None:
        segments_N2, scores_N, labels_N = _nms((segments_N2, scores_N, labels_N), params)
    seconds = (view.to_seconds(segments_N2).numpy(), scores_N, labels_N)
    # as published: windows are rounded before they meet, and again at the end
    return seconds if view.window is None else _rounded(seconds)


def of_video(
    video: str,
    parts: Sequence[Detections],
    params: InferenceParams,
    classes: Sequence[str],
    classifier: VideoClassifier | None = None,
    *,
    sliding: bool,
) -> list[dict[str, Any]]:
    """The detections of a video from those of its views.

    NMS runs over all windows of a sliding test at once.
    """
    return list(_found_in(video, parts, params, classes, classifier, sliding=sliding))


def _found_in(
    video: str,
    parts: Sequence[Detections],
    params: InferenceParams,
    classes: Sequence[str],
    classifier: VideoClassifier | None,
    *,
    sliding: bool,
) -> DetectionArrays:
    segments_N2 = np.concatenate([segments for segments, _, _ in parts])
    scores_N = np.concatenate([scores for _, scores, _ in parts])
    labels_N = np.concatenate([labels for _, _, labels in parts])
    if sliding:
        segments_N2, scores_N, labels_N = _nms((segments_N2, scores_N, labels_N), params)
    if classifier is None:
        labels = [classes[label] for label in labels_N.tolist()]
        return _as_published(segments_N2, scores_N, labels)
    return _as_published(*classifier.fuse(video, segments_N2, scores_N))


def _nms(found: Detections, params: InferenceParams) -> Detections:
    return batched_nms(
        *found,
        sigma=params.soft_nms_sigma,
        min_score=params.min_score,
        max_segments=params.max_segments,
        per_class=params.per_class_nms,
        voting_threshold=params.voting_threshold,
    )


def _as_published(
    segments_N2: NDArray[np.float32], scores_N: NDArray[np.float32], labels: Sequence[str]
) -> DetectionArrays:
    """Detections as the published result files hold them.

    Rounded by Python's `round` of the widened float32: segments to hundredths, scores to ten
    thousandths.
    """
    return DetectionArrays(rounded(segments_N2, 2), rounded(scores_N, 4), labels)


def rounded(values: NDArray[np.float32], digits: int) -> NDArray[np.float64]:
    """Python's `round(float(value), digits)` of every value, which numpy's is not near a half."""
    # numpy rounds the product, Python the value: they differ where the product falls on a half
    wide = values.astype(np.float64)
    scaled = wide * 10**digits
    result = np.rint(scaled) / 10**digits
    # so close to a half that the product's own rounding could decide
    from_half = np.abs(scaled - np.floor(scaled) - 0.5)
    close = from_half < 1e-6 * np.maximum(np.abs(scaled), 1)
    for index in np.argwhere(close):
        place = tuple(index)
        result[place] = round(float(wide[place]), digits)
    return result


def _rounded(found: Detections) -> Detections:
    segments_N2, scores_N, labels_N = found
    return (
        rounded(segments_N2, 2).astype(np.float32).reshape(-1, 2),
        rounded(scores_N, 4).astype(np.float32),
        labels_N,
    )
