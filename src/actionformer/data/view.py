"""A video as the model sees it (cropped, whole, window by window, resized) and the way back to seconds.

Everything here follows METHOD section 4.

    T steps   C channels   N segments   L steps after resampling
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from actionformer.data.annotations import Database, Video, load_database
from actionformer.errors import InputError
from actionformer.experiment import Experiment

CROP_TRIALS = 200


@dataclass(frozen=True)
class Sample:
    """One input of the model; segments (N, 2) in grid units. Test samples carry no ground truth."""

    features_CT: Tensor
    mask_T: Tensor
    segments_N2: Tensor
    labels_N: Tensor


@dataclass(frozen=True)
class View:
    """One video, or one window of it, ready to load."""

    video: str
    duration: float
    features: Mapping[str, Any]
    channels: slice
    segments_N2: NDArray[np.float32]
    labels_N: NDArray[np.int64]
    fps: float | None
    stride: float
    offset: float
    window: Window | None = None
    resize_length: int | None = None
    half_precision: bool = False
    """resample in half precision, as the published rows do"""
    pad_length: int | None = None
    crop: Crop | None = None

    def load(self, rng: random.Random) -> Sample:
        """Read and shape the features; only training views draw from `rng`."""
        source_TC = self.features[self.video]
        segments_N2, labels_N, length = self.segments_N2, self.labels_N, None
        if self.resize_length is not None:
            source_TC = resized(self._read(source_TC), self.resize_length, half_precision=self.half_precision)
            if not np.isfinite(source_TC).all():
                raise InputError(
                    f"video '{self.video}': its features or its length do not fit into half precision; "
                    "set data.loading to corrected"
                )
        if self.crop is not None:
            source_TC, segments_N2, labels_N = random_truncation(
                source_TC, segments_N2, labels_N, length=self.crop.length, threshold=self.crop.threshold,
                crop_ratio=self.crop.ratio, rng=rng,
            )  # fmt: skip
            length = self.crop.length
        elif self.window is not None:
            stop = min(self.window.stop, len(source_TC))
            source_TC, length = source_TC[self.window.start : stop], self.window.size
        features_TC = source_TC if self.resize_length is not None else self._read(source_TC)
        if self.pad_length is not None:
            length = self.pad_length
            if len(features_TC) >= length:
                features_TC = linearly_resized(features_TC, length)
        length = len(features_TC) if length is None else length
        valid = len(features_TC)
        padded_TC = np.zeros((length, features_TC.shape[1]), np.float32)
        padded_TC[:valid] = features_TC
        return Sample(
            torch.from_numpy(padded_TC).T,
            torch.arange(length) < valid,
            torch.from_numpy(np.ascontiguousarray(segments_N2, np.float32)),
            torch.from_numpy(np.ascontiguousarray(labels_N, np.int64)),
        )

    def _read(self, source_TC: Any) -> NDArray[np.float32]:
        """All steps of a stored array or a part of one, the used channels of it, as float32."""
        return np.asarray(source_TC[:, self.channels], np.float32)

    def to_seconds(self, segments_N2: Tensor | NDArray[Any]) -> Tensor:
        """Grid units -> seconds within [0, duration], in float32."""
        segments_N2 = torch.as_tensor(segments_N2, dtype=torch.float32)
        if self.resize_length is not None:
            seconds = segments_N2 / self.resize_length * self.duration
        else:
            assert self.fps is not None
            stride, offset = self.stride, self.offset
            if self.pad_length is not None:
                scale = max(1.0, len(self.features[self.video]) / self.pad_length)
                stride, offset = stride * scale, offset * scale
            window_start_frame = 0 if self.window is None else self.window.start * self.stride
            seconds = (segments_N2 * stride + window_start_frame + offset) / self.fps
        return seconds.clamp(min=0.0, max=self.duration)


@dataclass(frozen=True)
class Window:
    """Steps [start, stop) of a sliding test, zero-padded to `size`; `stop` may lie past the end of the features."""

    start: int
    stop: int
    size: int


@dataclass(frozen=True)
class Crop:
    """Random truncation of a training view."""

    length: int
    threshold: float
    ratio: tuple[float, float]


def views(
    database: Database | Mapping[str, Any] | Path | str,
    features: Mapping[str, Any],
    experiment: Experiment,
    split: Literal["train", "test"],
) -> list[View]:
    """All views of a split, in database order; videos without features are left out.

    Args:
        database: a `Database`, or what `load_database` reads.
        features: video -> (T, C) array, read lazily.
    """
    if not isinstance(database, Database):
        database = load_database(database, experiment.data.label_field)
    data, feature_set = experiment.data, experiment.features
    class_index = {label: 0 if data.class_agnostic else i for i, label in enumerate(database.classes)}
    subset = experiment.dataset.train_subset if split == "train" else experiment.dataset.eval_subset
    resize = data.loader == "resize"
    result = []
    for video in database.subset(subset):
        if video.name not in features:
            continue
        segments_N2, labels_N = (
            _training_ground_truth(video, class_index, experiment)
            if split == "train"
            else (np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
        )
        if split == "train" and len(segments_N2) == 0:
            continue
        common: dict[str, Any] = {
            "video": video.name,
            "duration": video.duration,
            "features": features,
            "channels": slice(None) if data.channels_used is None else slice(*data.channels_used),
            "segments_N2": segments_N2,
            "labels_N": labels_N,
            "fps": None if resize else video.fps(feature_set.fps),
            "stride": feature_set.stride_frames or 0.0,
            "offset": feature_set.offset_frames or 0.0,
            "resize_length": data.resize_length if resize else None,
            "half_precision": data.loading == "published",
        }
        if split == "train":
            trunc = data.random_trunc
            result.append(View(**common, crop=Crop(trunc.length, trunc.threshold, trunc.crop_ratio)))
        elif data.loader == "sliding":
            assert data.window_size is not None
            if data.loading == "published":
                total = math.ceil(_frames(video, feature_set.fps) / common["stride"])
            else:
                total = len(features[video.name])
            for window in windows(total, data.window_size, data.window_overlap_ratio, data.loading):
                result.append(View(**common, window=window))
        else:
            result.append(View(**common, pad_length=data.test_pad_length))
    return result


def windows(total: int, size: int, overlap: float, loading: Literal["published", "corrected"]) -> list[Window]:
    """Windows of `size` steps over a video of `total` steps; one that passes the end is moved back to it.

    'published' can leave a tail unseen or repeat a window, as the published rows do; 'corrected' covers the video.
    """
    step = max(int(size * (1 - overlap)), 1)
    count = max(1, total // step)
    if loading == "corrected":
        count = max(1, math.ceil(max(total - size, 0) / step) + 1)
    result = []
    for start in range(0, count * step, step):
        if start + size > total:
            result.append(Window(max(0, total - size), total, size))
            break
        result.append(Window(start, start + size, size))
    return result


def _frames(video: Video, fixed_fps: float | None) -> float:
    if fixed_fps is not None:
        return int(video.duration * fixed_fps)
    video.fps(None)  # says in one line if there is no 'frame'
    assert video.frame is not None
    return video.frame


def _training_ground_truth(
    video: Video, class_index: Mapping[str, int], experiment: Experiment
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Segments on the grid and class indices, filtered and without exact duplicates."""
    data, feature_set = experiment.data, experiment.features
    kept: dict[tuple[float, float, int], None] = {}
    for (start, end), label in zip(video.segments_N2.tolist(), video.labels, strict=True):
        if data.loader == "resize":
            if data.drop_short_gt_in_training and not end - start > 0.01 * video.duration:
                continue
            kept[start, end, class_index[label]] = None
            continue
        first, last = _frame(start, video, experiment), _frame(end, video, experiment)
        if data.drop_short_gt_in_training and not last > first:
            continue
        if data.drop_outside_gt_in_training:
            assert feature_set.offset_frames is not None
            frames = video.duration * video.fps(feature_set.fps)
            if not (last > feature_set.offset_frames and first - feature_set.offset_frames <= frames):
                continue
        kept[first, last, class_index[label]] = None
    times_N2 = np.array([(first, last) for first, last, _ in kept], np.float32).reshape(-1, 2)
    labels_N = np.array([label for _, _, label in kept], np.int64)
    if data.loader == "resize":
        assert data.resize_length is not None
        return (times_N2 / np.float32(video.duration)).clip(0, 1) * np.float32(data.resize_length), labels_N
    # from here on in float32, as the published loaders compute
    return (times_N2 - np.float32(feature_set.offset_frames)) / np.float32(feature_set.stride_frames), labels_N


def _frame(seconds: float, video: Video, experiment: Experiment) -> float:
    fixed_fps = experiment.features.fps
    if fixed_fps is not None:
        frame = seconds * fixed_fps
    else:
        video.fps(None)
        assert video.frame is not None
        frame = seconds / video.duration * video.frame
    return int(frame) if experiment.data.loading == "published" and experiment.data.truncate_to_frames else frame


def random_truncation(
    features_TC: Any,
    segments_N2: NDArray[np.float32],
    labels_N: NDArray[Any],
    *,
    length: int,
    threshold: float,
    crop_ratio: Sequence[float] | None,
    rng: random.Random,
) -> tuple[Any, NDArray[np.float32], NDArray[Any]]:
    """Crop a training video to at most `length` steps; returns the crop, unpadded, and what of the segments is in it.

    A crop is kept if at least one segment has `threshold` of its own length inside; after 200 draws the last counts.
    """
    T = len(features_TC)
    segments_N2, labels_N = np.asarray(segments_N2, np.float32), np.asarray(labels_N)
    size = length
    if length >= T:
        size = (
            T if crop_ratio is None else rng.randint(max(round(crop_ratio[0] * T), 1), min(round(crop_ratio[1] * T), T))
        )
        if size == T:
            return features_TC, segments_N2, labels_N
    duration_N = segments_N2[:, 1] - segments_N2[:, 0]
    for _ in range(CROP_TRIALS):
        start = rng.randint(0, T - size)
        clipped_N2 = segments_N2.clip(start, start + size)
        inside_N = (clipped_N2[:, 1] - clipped_N2[:, 0]).clip(min=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            kept_N = inside_N / duration_N >= np.float32(threshold)
        if kept_N.any():
            break
    return features_TC[start : start + size], clipped_N2[kept_N] - np.float32(start), labels_N[kept_N]


def resized(features_TC: NDArray[np.float32], length: int, *, half_precision: bool) -> NDArray[np.float32]:
    """Resample (T, C) to (length, C) as RoIAlign over [0, T] does, in one dimension (aligned).

    ceil(box / length) samples per bin, linearly interpolated and averaged, in double. The published rows round features
    and box to half precision first; above 2048 steps that moves the end of the box.
    """
    T = len(features_TC)
    with np.errstate(over="ignore"):
        box = float(np.float16(T)) if half_precision else float(T)
    if math.isinf(box):
        return np.full((length, features_TC.shape[1]), np.inf, np.float32)
    samples = math.ceil(box / length)
    bin_size = box / length
    bins, within = np.arange(length)[:, None], np.arange(samples)[None, :]
    position = (-0.5 + bins * bin_size + (within + 0.5) * bin_size / samples).reshape(-1)
    outside = (position < -1.0) | (position > T)
    position = position.clip(0.0)
    low = np.minimum(position.astype(np.int64), T - 1)
    high = np.minimum(low + 1, T - 1)
    fraction = np.where(low == T - 1, 0.0, position - low)[:, None]
    source_TC = (features_TC.astype(np.float16) if half_precision else features_TC).astype(np.float64)
    sampled = source_TC[low] * (1 - fraction) + source_TC[high] * fraction
    sampled[outside] = 0.0
    return sampled.reshape(length, samples, -1).mean(1).astype(np.float32)


def linearly_resized(features_TC: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Linear interpolation of (T, C) to (length, C), without aligned corners."""
    source = torch.from_numpy(features_TC).T[None]
    return F.interpolate(source, length, mode="linear", align_corners=False)[0].T.contiguous().numpy()
