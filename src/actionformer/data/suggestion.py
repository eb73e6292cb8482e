"""What has to be set for a data set of one's own, from how long its videos and actions are.

Rules that come to what the published rows have on the published annotations, or to a remark why
they don't (tests/test_suggestion.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.data.annotations import Database, Video
from actionformer.errors import InputError
from actionformer.params.experiment import TrainingParams

# levels of the published pyramids, and the first distance to a boundary that their top level is
# responsible for: 4 for one level, twice as much for each more
FEWEST_LEVELS, FIRST_EDGE = 6, 4
# points that the top level has at least
FEWEST_POINTS = 4
# share of the actions that may be longer than the last distance that is bounded
LONGEST_SHARE = 0.1
# steps of the longest window that is published, and of features that span their videos
LONGEST, RESIZED = 2304, 192
# no bound
FAR = 10000
# of a training step: steps of all videos of a batch together, and videos
STEPS_PER_BATCH, BATCHES = 4608, (2, 4, 8, 16)
# of a small data set
FEW_VIDEOS = 100
_FEW = "of the network; few videos, and so few channels"
_MANY = "of the network; the published rows have 256 to 2048"
# iterations that a training has at least, and the epochs that this may come to
ITERATIONS, FEWEST_EPOCHS, MOST_EPOCHS = 4000, 15, 60


@dataclass(frozen=True)
class Advice:
    """A value, and why it is that."""

    value: Any
    why: str


@dataclass(frozen=True)
class Suggestion:
    """What to set in an experiment; the names are those of its params."""

    branch_blocks: Advice
    regression_range: Advice
    max_seq_len: Advice
    attention_window: Advice
    channels: Advice
    lr: Advice
    batch_size: Advice
    schedule_epochs: Advice
    ema_decay: Advice
    # of the actions that are trained on, in steps
    lengths_G: NDArray[np.float64]
    # do features span their videos?
    is_resized: bool

    @property
    def levels(self) -> int:
        """Of the pyramid."""
        return int(self.branch_blocks.value) + 1


def suggest(
    database: Database,
    subset: str,
    *,
    stride: float | None,
    fps: float | None,
    measured: Mapping[str, int] | None = None,
) -> Suggestion:
    """What to set for a data set.

    Args:
        database: the annotations.
        subset: the subset that is trained on.
        stride: frames between two steps of the features; None: features span their videos.
        fps: frames per second; None: each video's own, `frame` / `duration`.
        measured: steps of videos whose features were looked at; the others' are reckoned of their
            durations.

    Raises:
        InputError: no action in the subset, or a video whose frame rate nobody says.
    """
    videos = database.subset(subset)
    if not any(len(video.labels) for video in videos):
        raise InputError(f"subset '{subset}' has no action to train on")
    is_resized = stride is None
    per_video, lengths = [], []
    for video in videos:
        steps = _steps(video, stride, fps)
        if measured is not None and not is_resized:
            steps = measured.get(video.name, steps)
        start_G, end_G = video.segments_G2.T
        lengths.append((end_G - start_G) / video.duration * steps)
        per_video.append(steps)
    lengths_G = np.concatenate(lengths)
    most = math.ceil(max(per_video))
    window = RESIZED if is_resized else min(LONGEST, most)
    blocks = _branch_blocks(lengths_G, window)
    levels = int(blocks.value) + 1
    max_seq_len = _max_seq_len(window, most, levels, is_resized=is_resized)
    length = int(max_seq_len.value)
    batch = _batch_size(length, len(videos))
    size = int(batch.value)
    epochs = _schedule_epochs(len(videos), size)
    is_small = len(videos) < FEW_VIDEOS
    return Suggestion(
        branch_blocks=blocks,
        regression_range=_regression_range(levels),
        max_seq_len=max_seq_len,
        attention_window=_attention_window(length),
        channels=Advice(128 if is_small else 256, _FEW if is_small else _MANY),
        lr=Advice(0.001 if is_small else 0.0001, "1e-4 for 512 channels, 1e-3 for 128"),
        batch_size=batch,
        schedule_epochs=epochs,
        ema_decay=_ema_decay(len(videos), size, int(epochs.value)),
        lengths_G=lengths_G,
        is_resized=is_resized,
    )


def _steps(video: Video, stride: float | None, fps: float | None) -> float:
    """How many steps a video's features have, about."""
    if stride is None:
        return RESIZED
    if fps is not None:
        return video.duration * fps / stride
    if video.frame is None:
        wrong = f"video '{video.name}' has no `frame`, and no frame rate is said"
        raise InputError(f"{wrong}: how long its actions are in steps is not to be seen")
    return video.frame / stride


def ranges(levels: int) -> list[list[int]]:
    """Per level the distances to a boundary, in steps, that it is responsible for."""
    edges = [0, *(FIRST_EDGE << level for level in range(levels - 1)), FAR]
    return [[edges[level], edges[level + 1]] for level in range(levels)]


def _branch_blocks(lengths_G: NDArray[np.float64], window: int) -> Advice:
    """Levels above the first: until few actions are longer than what is bounded, or no room is."""
    most = FEWEST_LEVELS
    while window >> most >= FEWEST_POINTS:
        most += 1
    levels = FEWEST_LEVELS
    while _beyond(lengths_G, levels) > LONGEST_SHARE and levels < most:
        levels += 1
    share = _beyond(lengths_G, levels)
    last = ranges(levels)[-1][0]
    why = f"{share:.0%} of the actions are longer than {last} steps, which the top level begins at"
    if share > LONGEST_SHARE:
        why += f"; more levels would leave it fewer than {FEWEST_POINTS} of {window} steps"
    elif levels == FEWEST_LEVELS:
        why += "; the published pyramids have no fewer levels"
    return Advice(levels - 1, why)


def _beyond(lengths_G: NDArray[np.float64], levels: int) -> float:
    """Share of the actions that are longer than the last bounded distance."""
    return float((lengths_G > ranges(levels)[-1][0]).mean())


def _regression_range(levels: int) -> Advice:
    return Advice(ranges(levels), "level by level twice as far, as most published rows have it")


def _max_seq_len(window: int, most: int, levels: int, *, is_resized: bool) -> Advice:
    coarsest = 1 << (levels - 1)
    length = coarsest * math.ceil(window / coarsest)
    if is_resized:
        return Advice(length, "features span their videos, and are resampled to so many steps")
    why = f"the longest training video has {most} steps; a multiple of the top level's {coarsest}"
    if most > LONGEST:
        why = f"the longest training video has {most} steps, and is seen in crops; as THUMOS-14's"
    return Advice(length, why)


def _attention_window(length: int) -> Advice:
    """The published windows grow with the sequence: 7 of 192 steps, 19 of 2,304."""
    window = 7 if length <= 256 else 9 if length <= 1024 else 19
    return Advice(window, f"steps that attention looks at; as published for about {length}")


def _batch_size(length: int, videos: int) -> Advice:
    fits = [size for size in BATCHES if size * length <= STEPS_PER_BATCH and size <= videos]
    size = max(fits, default=BATCHES[0])
    return Advice(size, f"videos a step; of {length} steps each about as much as on THUMOS-14")


def _schedule_epochs(videos: int, batch: int) -> Advice:
    per_epoch = math.ceil(videos / batch)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(ITERATIONS / per_epoch)))
    why = f"warm-up included: {epochs * per_epoch:,} iterations"
    if epochs == MOST_EPOCHS:
        why += f", fewer than the {ITERATIONS:,} of a published row, for want of videos"
    return Advice(epochs, why)


def _ema_decay(videos: int, batch: int, epochs: int) -> Advice:
    """Of the published decay, or one that forgets the initial weights in fewer iterations."""
    usual = TrainingParams().ema_decay
    iterations = math.ceil(videos / batch) * epochs
    decay = min(usual, round(0.05 ** (1 / max(iterations, 1)), 4))
    why = f"after {iterations:,} iterations hardly anything of the initial weights is left in them"
    return Advice(decay, f"of the averaged weights; {why}")


def octaves(lengths_G: NDArray[np.float64]) -> Sequence[tuple[float, float, int]]:
    """How many actions are between 2^k and 2^(k + 1/2) steps long, and so on: (from, to, count)."""
    halves = np.floor(2 * np.log2(np.maximum(lengths_G, 0.25))).astype(int)
    found = []
    for half in range(halves.min(), halves.max() + 1):
        found.append((2 ** (half / 2), 2 ** ((half + 1) / 2), int((halves == half).sum())))
    return found
