"""A video as the model sees it (cropped, whole, by windows, resized), and the way back to seconds.

Everything here follows METHOD section 4.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from actionformer.data.annotations import Database, Video, load_database
from actionformer.errors import InputError
from actionformer.params.experiment import Experiment

CROP_TRIALS = 200

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One input of the model; segments (G, 2) in grid units. Test samples carry no ground truth."""

    features_CT: Tensor
    mask_T: Tensor
    segments_G2: Tensor
    labels_G: Tensor


@dataclass(frozen=True)
class Window:
    """Steps [start, stop) of a sliding test, zero-padded to `size`; `stop` may lie past the end."""

    start: int
    stop: int
    size: int


@dataclass(frozen=True)
class Crop:
    """Random truncation of a training view."""

    length: int
    threshold: float
    ratio: tuple[float, float]


class Resampled:
    """Videos that were resampled before, as many as fit into memory.

    Resampling takes longer than reading, and gives the same in every epoch.
    """

    def __init__(self, room: float) -> None:
        """`room`: bytes that may be kept."""
        self._room = room
        self._kept: dict[str, Floats] = {}

    def of(self, video: str, resample: Callable[[], Floats]) -> Floats:
        """What `resample` gives for a video."""
        known = self._kept.get(video)
        if known is not None:
            return known
        made_TC = resample()
        if made_TC.nbytes <= self._room:
            self._room -= made_TC.nbytes
            self._kept[video] = made_TC
        return made_TC


@dataclass(frozen=True)
class View:
    """One video, or one window of it, ready to load."""

    video: str
    duration: float
    features: Mapping[str, Any]
    channels: slice
    segments_G2: Floats
    labels_G: NDArray[np.int64]
    fps: float | None
    stride: float
    offset: float
    window: Window | None = None
    resize_length: int | None = None
    resampled: Resampled | None = None
    # resample in half precision, as the published rows do
    half_precision: bool = False
    # of tests: shorter videos are padded to it, longer ones are resampled
    pad_length: int | None = None
    # of training
    crop: Crop | None = None

    def load(self, rng: random.Random) -> Sample:
        """Read and shape the features; only training views draw from `rng`."""
        if self.crop is not None:
            return self._cropped(self.crop, rng)
        if self.window is not None:
            return self._windowed(self.window)
        return self._whole()

    def _cropped(self, crop: Crop, rng: random.Random) -> Sample:
        """Part of a training video, which was resized before where the loader does so."""
        source_TC = self.features[self.video]
        if self.resize_length is not None:
            source_TC = self._resized(self.resize_length)
        # of stored features only what the crop keeps is read from disk
        part_TC, segments_G2, labels_G = random_truncation(
            source_TC,
            self.segments_G2,
            self.labels_G,
            length=crop.length,
            threshold=crop.threshold,
            crop_ratio=crop.ratio,
            rng=rng,
        )
        if self.resize_length is None:
            part_TC = self._read(part_TC)
        return self._sample(part_TC, crop.length, segments_G2, labels_G)

    def _windowed(self, window: Window) -> Sample:
        """A window of a sliding test, padded where it passes the end."""
        stored = self.features[self.video]
        stop = min(window.stop, len(stored))
        return self._sample(self._read(stored[window.start : stop]), window.size)

    def _whole(self) -> Sample:
        """A whole video; resampled to the padding's length where it is longer than that."""
        if self.resize_length is not None:
            features_TC = self._resized(self.resize_length)
        else:
            features_TC = self._read(self.features[self.video])
        # as published: also one that is exactly as long is resampled, to itself
        if self.pad_length is not None and len(features_TC) >= self.pad_length:
            features_TC = linearly_resized(features_TC, self.pad_length)
        return self._sample(features_TC, self.pad_length)

    def _resized(self, length: int) -> Floats:
        """The whole video at a fixed length."""
        if self.resampled is None:
            return self._resample(length)
        return self.resampled.of(self.video, lambda: self._resample(length))

    def _resample(self, length: int) -> Floats:
        features_TC = self._read(self.features[self.video])
        result_TC = resized(features_TC, length, half_precision=self.half_precision)
        if not np.isfinite(result_TC).all():
            wrong = "its features or its length do not fit into half precision"
            raise InputError(f"video '{self.video}': {wrong}; set data.loading to corrected")
        return result_TC

    def _sample(
        self,
        features_TC: Floats,
        length: int | None = None,
        segments_G2: Floats | None = None,
        labels_G: NDArray[Any] | None = None,
    ) -> Sample:
        """Features padded with zeros to `length`, with a crop's ground truth or the view's."""
        valid, C = features_TC.shape
        length = valid if length is None else length
        padded_TC = np.zeros((length, C), np.float32)
        padded_TC[:valid] = features_TC
        segments_G2 = self.segments_G2 if segments_G2 is None else segments_G2
        labels_G = self.labels_G if labels_G is None else labels_G
        return Sample(
            torch.from_numpy(padded_TC).T,
            torch.arange(length) < valid,
            torch.from_numpy(np.ascontiguousarray(segments_G2, np.float32)),
            torch.from_numpy(np.ascontiguousarray(labels_G, np.int64)),
        )

    def _read(self, stored_TC: Any) -> Floats:
        """All steps of a stored array or a part of one, the used channels of it, as float32."""
        return np.asarray(stored_TC[:, self.channels], np.float32)

    @property
    def steps(self) -> int:
        """How many `load` gives of a test view, without padding."""
        if self.resize_length is not None:
            return self.resize_length
        stored = len(self.features[self.video])
        if self.window is not None:
            return max(min(self.window.stop, stored) - self.window.start, 0)
        return stored if self.pad_length is None else min(stored, self.pad_length)

    def to_seconds(self, segments_N2: Tensor | NDArray[Any]) -> Tensor:
        """Grid units -> seconds within [0, duration], in float32."""
        segments_N2 = torch.as_tensor(segments_N2, dtype=torch.float32)
        if self.resize_length is not None:
            seconds_N2 = segments_N2 / self.resize_length * self.duration
        else:
            assert self.fps is not None
            stride, offset = self.stride, self.offset
            # a video that was resampled to the padding has fewer, longer steps
            if self.pad_length is not None:
                scale = max(1.0, len(self.features[self.video]) / self.pad_length)
                stride, offset = stride * scale, offset * scale
            first_frame = 0 if self.window is None else self.window.start * self.stride
            seconds_N2 = (segments_N2 * stride + first_frame + offset) / self.fps
        return seconds_N2.clamp(min=0.0, max=self.duration)


# ------------------------------------------------------------------------------------- which views


def views(
    database: Database | Mapping[str, Any] | Path | str,
    features: Mapping[str, Any],
    experiment: Experiment,
    split: Literal["train", "test"],
    *,
    room: float = 0,
) -> list[View]:
    """All views of a split, in database order; videos without features are left out.

    Args:
        database: a `Database`, or what `load_database` reads.
        features: video -> (T, C) array, read lazily.
        room: bytes of resampled videos that may be kept in memory, for those who load them again.
    """
    if not isinstance(database, Database):
        database = load_database(database, experiment.data.label_field)
    dataset = experiment.dataset
    is_training = split == "train"
    subset = dataset.train_subset if is_training else dataset.eval_subset
    resampled = Resampled(room) if room else None
    result: list[View] = []
    for video in database.subset(subset):
        if video.name not in features:
            continue
        if is_training:
            truth = _training_ground_truth(video, database.classes, experiment)
            if len(truth[0]):
                result.append(_training_view(video, features, experiment, *truth))
        else:
            result += _test_views(video, features, experiment)
    return [replace(view, resampled=resampled) for view in result]


def _training_view(
    video: Video,
    features: Mapping[str, Any],
    experiment: Experiment,
    segments_G2: Floats,
    labels_G: NDArray[np.int64],
) -> View:
    trunc = experiment.data.random_trunc
    crop = Crop(trunc.length, trunc.threshold, trunc.crop_ratio)
    facts = _facts(video, features, experiment)
    return View(**facts, segments_G2=segments_G2, labels_G=labels_G, crop=crop)


def _test_views(video: Video, features: Mapping[str, Any], experiment: Experiment) -> list[View]:
    """The whole video, or its windows."""
    data, fps = experiment.data, experiment.features.fps
    facts = _facts(video, features, experiment)
    facts["segments_G2"] = np.zeros((0, 2), np.float32)
    facts["labels_G"] = np.zeros(0, np.int64)
    if data.loader != "sliding":
        return [View(**facts, pad_length=data.test_pad_length)]
    assert data.window_size is not None
    total = len(features[video.name])
    if data.loading == "published":
        total = math.ceil(_frames(video, fps) / facts["stride"])
    cut = windows(total, data.window_size, data.window_overlap_ratio, data.loading)
    return [View(**facts, window=window) for window in cut]


def _facts(video: Video, features: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """What training and test views of a video have in common."""
    data, feature_set = experiment.data, experiment.features
    resize = data.loader == "resize"
    return {
        "video": video.name,
        "duration": video.duration,
        "features": features,
        "channels": slice(None) if data.channels_used is None else slice(*data.channels_used),
        "fps": None if resize else video.fps(feature_set.fps),
        "stride": feature_set.stride_frames or 0.0,
        "offset": feature_set.offset_frames or 0.0,
        "resize_length": data.resize_length if resize else None,
        "half_precision": data.loading == "published",
    }


def windows(
    total: int, size: int, overlap: float, loading: Literal["published", "corrected"]
) -> list[Window]:
    """Windows of `size` steps over a video of `total` steps; the last is moved back to its end.

    'published' can leave a tail unseen or repeat a window, as the published rows do; 'corrected'
    covers the video.
    """
    step = max(int(size * (1 - overlap)), 1)
    # as published: with rounding down, the last part of a video can have no window
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


# ------------------------------------------------------------------------ ground truth of training


def _training_ground_truth(
    video: Video, classes: Sequence[str], experiment: Experiment
) -> tuple[Floats, NDArray[np.int64]]:
    """Segments on the grid and class indices, filtered and without exact duplicates."""
    data, feature_set = experiment.data, experiment.features
    resize = data.loader == "resize"
    index = {label: i for i, label in enumerate(classes)}
    kept: dict[tuple[float, float, int], None] = {}  # in their order, each once
    for (start, end), label in zip(video.segments_G2.tolist(), video.labels, strict=True):
        if resize:
            first, last = start, end
            is_short = not end - start > 0.01 * video.duration
            is_outside = False
        else:
            first, last = _frame(start, video, experiment), _frame(end, video, experiment)
            is_short = not last > first
            is_outside = data.drop_outside_gt_in_training and _is_outside(
                first, last, video, experiment
            )
        if is_outside or (data.drop_short_gt_in_training and is_short):
            continue
        kept[first, last, 0 if data.class_agnostic else index[label]] = None
    times_G2 = np.array([(first, last) for first, last, _ in kept], np.float32).reshape(-1, 2)
    labels_G = np.array([label for _, _, label in kept], np.int64)
    # from here on in float32, as the published loaders compute
    if resize:
        assert data.resize_length is not None
        share_G2 = (times_G2 / np.float32(video.duration)).clip(0, 1)
        return share_G2 * np.float32(data.resize_length), labels_G
    offset, stride = feature_set.offset_frames, feature_set.stride_frames
    return (times_G2 - np.float32(offset)) / np.float32(stride), labels_G


def _is_outside(first: float, last: float, video: Video, experiment: Experiment) -> bool:
    """Does a segment end before the first step, or begin after the video's end?"""
    offset = experiment.features.offset_frames
    assert offset is not None
    frames = video.duration * video.fps(experiment.features.fps)
    return not (last > offset and first - offset <= frames)


def _frame(seconds: float, video: Video, experiment: Experiment) -> float:
    fixed_fps = experiment.features.fps
    if fixed_fps is not None:
        frame = seconds * fixed_fps
    else:
        frame = seconds / video.duration * _own_frames(video)
    # as published: ground truth lies on whole frames
    is_cut = experiment.data.loading == "published" and experiment.data.truncate_to_frames
    return int(frame) if is_cut else frame


def _frames(video: Video, fixed_fps: float | None) -> float:
    """How many frames a video has at the rate of its features."""
    if fixed_fps is not None:
        return int(video.duration * fixed_fps)
    return _own_frames(video)


def _own_frames(video: Video) -> float:
    video.fps(None)  # says in one line if there is no 'frame'
    assert video.frame is not None
    return video.frame


# ---------------------------------------------------------------------------- crops and resampling


def random_truncation(
    features_TC: Any,
    segments_G2: Floats,
    labels_G: NDArray[Any],
    *,
    length: int,
    threshold: float,
    crop_ratio: Sequence[float] | None,
    rng: random.Random,
) -> tuple[Any, Floats, NDArray[Any]]:
    """Crop a training video to at most `length` steps; returns the crop and what lies in it.

    The crop is not padded. It is kept if at least one segment has `threshold` of its own length
    inside; after 200 draws the last counts.
    """
    T = len(features_TC)
    segments_G2, labels_G = np.asarray(segments_G2, np.float32), np.asarray(labels_G)
    size = steps_kept(T, length, crop_ratio, rng)
    if size == T:
        return features_TC, segments_G2, labels_G
    duration_G = segments_G2[:, 1] - segments_G2[:, 0]
    for _ in range(CROP_TRIALS):
        start = rng.randint(0, T - size)
        clipped_G2 = segments_G2.clip(start, start + size)
        inside_G = (clipped_G2[:, 1] - clipped_G2[:, 0]).clip(min=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            kept_G = inside_G / duration_G >= np.float32(threshold)
        if kept_G.any():
            break
    cut_G2 = clipped_G2[kept_G] - np.float32(start)
    return features_TC[start : start + size], cut_G2, labels_G[kept_G]


def steps_kept(T: int, length: int, crop_ratio: Sequence[float] | None, rng: random.Random) -> int:
    """How many of T steps a crop to at most `length` keeps."""
    if length < T:
        return length
    if crop_ratio is None:
        return T
    # a short video is cropped, too, so that the network doesn't learn where videos end
    shortest, longest = round(crop_ratio[0] * T), round(crop_ratio[1] * T)
    return rng.randint(max(shortest, 1), min(longest, T))


def resized(features_TC: Floats, length: int, *, half_precision: bool) -> Floats:
    """Resample (T, C) to (length, C) as RoIAlign over [0, T] does, in one dimension (aligned).

    ceil(box / length) samples per bin, linearly interpolated and averaged, in double. The published
    rows round features and box to half precision first; above 2048 steps that moves the box's end.
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
    if half_precision:
        features_TC = features_TC.astype(np.float16).astype(np.float32)
    source_TC = features_TC.astype(np.float64)
    sampled = source_TC[low] * (1 - fraction) + source_TC[high] * fraction
    sampled[outside] = 0.0
    return sampled.reshape(length, samples, -1).mean(1).astype(np.float32)


def linearly_resized(features_TC: Floats, length: int) -> Floats:
    """Linear interpolation of (T, C) to (length, C), without aligned corners."""
    source_1CT = torch.from_numpy(features_TC).T[None]
    result_1CT = F.interpolate(source_1CT, length, mode="linear", align_corners=False)
    return result_1CT[0].T.contiguous().numpy()
