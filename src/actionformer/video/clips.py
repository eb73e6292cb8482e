"""Clips of a video: the frames that a network sees at once, one clip per step of the features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from actionformer.params.extractor import Extractor
from actionformer.video.readers import Frame

Clips = NDArray[np.uint8]


def is_needed(k: int, extractor: Extractor) -> bool:
    """Is frame k part of any clip?"""
    for i in range(extractor.clip_frames):
        since_first = k - i * extractor.frame_step
        if since_first >= 0 and since_first % extractor.stride_frames == 0:
            return True
    return False


def batches(
    frames: Iterable[tuple[int, Frame]], extractor: Extractor, batch_size: int
) -> Iterator[Clips]:
    """Clips (B, T, H, W, 3) of a video's frames, so many at a time; the last batch may be smaller.

    Clip s begins at frame s * stride_frames. One that would reach beyond the video's end is left
    out; a video shorter than a clip is one clip, in which its last frame stands still.

    Args:
        frames: those of a video that are needed, each with its number, in order.
    """
    waiting: list[Clips] = []
    for clip in _clips(frames, extractor):
        waiting.append(clip)
        if len(waiting) == batch_size:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def _clips(frames: Iterable[tuple[int, Frame]], extractor: Extractor) -> Iterator[Clips]:
    held: dict[int, Frame] = {}
    first = 0
    for k, frame in frames:
        held[k] = frame
        if k == first + extractor.span_frames - 1:
            yield _clip(held, first, extractor)
            first += extractor.stride_frames
            held = {number: one for number, one in held.items() if number >= first}
    if first == 0 and held:
        last = max(held)
        for k in range(last + 1, extractor.span_frames):
            held[k] = held[last]
        yield _clip(held, 0, extractor)


def _clip(held: dict[int, Frame], first: int, extractor: Extractor) -> Clips:
    numbers = range(first, first + extractor.span_frames, extractor.frame_step)
    return np.stack([held[number] for number in numbers])
