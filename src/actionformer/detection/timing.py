"""When the steps of features are, for videos that no data set's params describe.

Light: a command refuses what lacks a frame rate before it imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actionformer.errors import InputError
from actionformer.params.experiment import Experiment

if TYPE_CHECKING:
    # numpy, which a command that refuses does without
    from actionformer.data.extracted import Description

# what is known of a single video's time
OF_A_VIDEO = ("fps", "stride", "offset", "duration")
# how near a number is that somebody types: 29.97 is meant for 30000/1001
ALIKE = 1e-3
# stands for what is not said, where only numbers can be given (0 is an offset)
AS_TRAINED = -1.0


@dataclass(frozen=True)
class Timing:
    """When the steps of features are, and which videos there are; None: as the weights know it."""

    fps: float | None = None
    # frames between two steps
    stride: float | None = None
    # frame at the centre of step 0
    offset: float | None = None
    # seconds, of a single video
    duration: float | None = None
    # a database file: only its videos; features that don't say so last as long as it says
    annotations: Path | None = None
    # of `annotations`
    subset: str | None = None

    @property
    def knows_durations(self) -> bool:
        """Is it said how long the videos last?"""
        return self.duration is not None or self.annotations is not None


def told_by(told: Description, timing: Timing, video: str) -> Timing:
    """The timing that features say of themselves.

    Raises:
        InputError: another one is asked for.
    """
    known = {
        "fps": told.fps,
        "stride": told.stride_frames,
        "offset": told.offset_frames,
        "duration": told.duration,
    }
    for name in OF_A_VIDEO:
        asked = getattr(timing, name)
        if asked is not None and not math.isclose(asked, known[name], rel_tol=ALIKE):
            wrong = f"{name} {asked:g} is asked for, its features say {known[name]:g}"
            raise InputError(f"video '{video}': {wrong} of themselves; leave it out")
    return Timing(**known, annotations=timing.annotations, subset=timing.subset)


def timed_as(trained: Experiment, timing: Timing) -> str:
    """How `from_files` places steps in time, in words."""
    span_videos = trained.data.loader == "resize"
    if span_videos and timing.knows_durations:
        return "features span their videos"
    grid = with_grid(trained, timing).features
    rate = f"{grid.fps:g} frames/s"
    if span_videos:
        return f"features span a video of {grid.stride_frames:g} frames per step, {rate}"
    return f"step t lies at frame {grid.offset_frames:g} + {grid.stride_frames:g} t, {rate}"


def with_grid(trained: Experiment, timing: Timing) -> Experiment:
    """The experiment of the weights, with the time grid of the features at hand.

    Raises:
        InputError: no stride or frame rate, or one that is no number above 0.
    """
    known = trained.features
    stride = known.stride_frames if timing.stride is None else timing.stride
    fps = known.fps if timing.fps is None else timing.fps
    if timing.knows_durations and trained.data.loader == "resize":
        # features that span a video of known duration have no time grid
        stride, fps = stride or 1.0, fps or 1.0
    if stride is None or fps is None:
        lacking = "frames between two steps (stride)"
        if fps is None:
            lacking = "frames per second (fps)"
        raise InputError(
            f"the weights of {trained.name} don't fix the {lacking} of their videos; give them"
        )
    if not (0 < fps < math.inf and 0 < stride < math.inf):
        raise InputError(f"fps {fps:g}, stride {stride:g}: expected numbers above 0")
    offset = timing.offset
    if offset is not None and not 0 <= offset < math.inf:
        raise InputError(f"offset {offset:g}: expected a frame from 0 on")
    if offset is None:
        same = known.offset_frames is not None and stride == known.stride_frames
        offset = known.offset_frames if same else stride / 2
    grid = known.model_copy(
        update={"fps": fps, "stride_frames": stride, "offset_frames": offset, "dataset": None}
    )
    dataset = trained.dataset.model_copy(update={"features": {trained.data.features: grid}})
    data = trained.data.model_copy(update={"loading": "corrected"})
    inference = trained.inference.model_copy(update={"use_classifier": False})
    return trained.model_copy(update={"dataset": dataset, "data": data, "inference": inference})
