"""Frames of a video file at a constant rate, upright, resized and cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from actionformer.errors import InputError
from actionformer.params.extractor import Decoder, FrameAt
from actionformer.video.readers import Frame, Size, opened

# share of the length which a file promises that may be lacking: containers round, and count audio
MISSING = 0.1
# seconds: a video that claims more has timestamps that mean nothing
LONGEST = 48 * 3600
# a rate that no camera has comes from such timestamps, too
FASTEST = 1000


class VideoFrames:
    """Frames of a video in RGB, one after the other, at a constant rate.

    Of a video at another or at no constant rate frames are repeated or left out.

    Args:
        fps: frames per second; None: the video's own, on average.
        frame_at: which frame is frame k, whose time is k / fps seconds after the first one's.
            'nearest', as ffmpeg's filter `fps`: every frame goes to the nearest time, and of
            several that go to one the last is seen; 'before': the last that has begun by then.
        decoder: what decodes.
        resize: pixels of the shorter side, or (height, width); None: as they are.
        antialias: does every pixel count where a picture becomes smaller?
        crop: pixels of a square in the middle; None: all of it.
        is_needed: frames that are not are counted, and neither converted nor yielded.

    Attributes:
        fps: frames per second of what is yielded.
        promised: how many frames the file says it has at that rate; None where it doesn't say.
        count: how many there were, needed or not; known at the end.
        stream_index: of the pictures, among all streams of the file.
        is_on_its_side: is the last frame that was seen one that players turn by a quarter?

    Raises:
        InputError: no such file, none that is decoded here, one without pictures; at the end, one
            that lacks more than a tenth of what it promises.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: float | None = None,
        frame_at: FrameAt = "nearest",
        decoder: Decoder = "pyav",
        resize: Size = None,
        antialias: bool = True,
        crop: int | None = None,
        is_needed: Callable[[int], bool] = lambda k: True,
    ) -> None:
        self.path = path
        self._tick_of = _nearest if frame_at == "nearest" else math.ceil
        self._resize, self._antialias = resize, antialias
        self._crop, self._is_needed = crop, is_needed
        self._file = opened(path, decoder)
        self.stream_index = self._file.stream_index
        rate = self._file.rate
        if rate is None or not 0 < rate <= FASTEST:
            self._file.close()
            raise InputError(f"{path}: says no frame rate that can be ({rate}); encode it again")
        # of the video itself
        self._own_rate = rate
        self._rate = rate if fps is None else Fraction(fps).limit_denominator(1_000_000)
        self.fps = float(self._rate)
        self.promised = None
        promised = self._file.seconds or self._file.seconds_in_all
        if promised is not None:
            self.promised = max(1, round(promised * self._rate))
        self.count = 0
        # seconds after the first frame's beginning at which the last one ends
        self._end = Fraction(0)
        self.is_on_its_side = False

    @property
    def broken(self) -> int:
        """Packets that could not be decoded, for which the frame before stands."""
        return self._file.broken

    def __iter__(self) -> Generator[tuple[int, Frame], None, None]:
        """The frames (H, W, 3) that are needed, each with its number; once."""
        try:
            yield from self._at_constant_rate()
        finally:
            self._file.close()
        self._refuse_truncated()

    def _at_constant_rate(self) -> Iterator[tuple[int, Frame]]:
        held, tick = None, 0
        for frame, seconds, lasts in self._timed():
            arrived = max(tick, self._tick_of(seconds * self._rate))
            if held is not None:
                yield from self._repeated(held, arrived - tick)
            held, tick = frame, arrived
            self._end = seconds + lasts
        if held is not None:
            # one frame, however short the video is
            least = 1 if self.count == 0 else 0
            yield from self._repeated(
                held, max(least, self._tick_of(self._end * self._rate) - tick)
            )

    def _timed(self) -> Iterator[tuple[Any, Fraction, Fraction]]:
        """Every frame of the file, its seconds after the first one, and how long it is shown."""
        first: Fraction | None = None
        expected = Fraction(0)
        for shown in self._file.frames():
            lasts = 1 / self._own_rate
            if shown.lasts is not None:
                lasts = self._unrounded(shown.lasts, shown.grain)
            seconds = expected
            if shown.seconds is not None:
                first = shown.seconds if first is None else first
                seconds = self._unrounded(shown.seconds - first, shown.grain)
            # a frame that goes back in time comes when it comes
            seconds = max(seconds, Fraction(0))
            if seconds > LONGEST:
                wrong = f"a frame is shown {float(seconds) / 3600:,.0f} hours after the first"
                raise InputError(f"{self.path}: {wrong}; encode it again")
            yield shown.frame, seconds, lasts
            expected = seconds + lasts

    def _unrounded(self, seconds: Fraction, grain: Fraction) -> Fraction:
        """What a time is at a constant rate, where a file's ticks can have rounded it.

        Without, the frames that are seen would depend on the kind of file.
        """
        exact = round(seconds * self._own_rate) / self._own_rate
        return exact if abs(seconds - exact) < grain else seconds

    def _repeated(self, frame: Any, times: int) -> Iterator[tuple[int, Frame]]:
        """What is seen of a frame, so many times; converted once, and only if it is needed."""
        array = None
        for _ in range(times):
            k = self.count
            self.count += 1
            if self._is_needed(k):
                if array is None:
                    array = self._seen(frame)
                yield k, array

    def _seen(self, frame: Any) -> Frame:
        """The pixels (H, W, 3) of a frame, as it is shown, resized and cut."""
        self.is_on_its_side = self._file.is_on_its_side(frame)
        pixels = self._file.pixels(frame, self._resize, antialias=self._antialias)
        if self._crop is not None:
            height, width, _ = pixels.shape
            # of two middles the later one, as the authors of SlowFast and TSP cut
            top, left = (height - self._crop + 1) // 2, (width - self._crop + 1) // 2
            pixels = pixels[top : top + self._crop, left : left + self._crop]
        return np.ascontiguousarray(pixels)

    def _refuse_truncated(self) -> None:
        found = self._end
        if not self.count:
            raise InputError(f"{self.path}: not one frame of it can be decoded; get it again")
        promised = self._file.seconds
        if promised is None:
            promised = self._file.seconds_in_all
            found = max(found, self._file.sound_until)
        if promised is not None and found < promised * Fraction(1 - MISSING):
            wrong = f"ends after {float(found):.1f} of {float(promised):.1f} s"
            raise InputError(f"{self.path}: {wrong}; is it truncated? get it again")


def _nearest(value: Fraction) -> int:
    """The nearest whole number; of two the later one."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)
