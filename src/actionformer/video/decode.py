"""Frames of a video file at a constant rate, upright, resized and cut: PyAV, from start to end.

Nothing is sought: what a seek finds depends on where a codec's key frames lie.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from actionformer.errors import InputError, first_line

Frame = NDArray[np.uint8]
FrameAt = Literal["nearest", "before"]

# share of the length which a file promises that may be lacking: containers round, and count audio
MISSING = 0.1
# seconds: a video that claims more has timestamps that mean nothing
LONGEST = 48 * 3600
# a rate that no camera has comes from such timestamps, too
FASTEST = 1000


class VideoFrames:
    """Frames of a video in RGB, one after the other, at a constant rate.

    Frame k is what is shown at k / fps seconds after the first frame: of a video at another or at
    no constant rate frames are repeated or left out, as ffmpeg's filter `fps` does.

    Args:
        fps: frames per second; None: the video's own, on average.
        frame_at: 'nearest': frame k is the one that begins nearest to its time, 'before': the last
            one that has begun by then.
        resize: pixels of the shorter side, or (height, width); None: as they are.
        antialias: does every pixel count where a picture becomes smaller?
        crop: pixels of a square in the middle; None: all of it.
        is_needed: frames that are not are counted, and neither converted nor yielded.

    Attributes:
        fps: frames per second of what is yielded.
        promised: how many frames the file says it has at that rate; None where it doesn't say.
        count: how many there were, needed or not; known at the end.
        stream_index: of the pictures, among all streams of the file.
        broken: packets that could not be decoded, for which the frame before stands.
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
        resize: int | tuple[int, int] | None = None,
        antialias: bool = True,
        crop: int | None = None,
        is_needed: Callable[[int], bool] = lambda k: True,
    ) -> None:
        self.path = path
        self._tick_of = _nearest if frame_at == "nearest" else math.ceil
        self._resize, self._antialias = resize, antialias
        self._crop, self._is_needed = crop, is_needed
        if not path.is_file():
            raise InputError(f"{path}: no such video")
        try:
            self._container = av.open(str(path))
        except (av.FFmpegError, ValueError, UnicodeError) as error:
            raise InputError(f"{path}: {_not_readable(error)}") from None
        self._stream = self._pictures()
        self.stream_index = self._stream.index
        self._sounds = self._container.streams.audio
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        if not rate or not 0 < rate <= FASTEST:
            self._container.close()
            raise InputError(f"{path}: says no frame rate that can be ({rate}); encode it again")
        # of the video itself
        self._own_rate = Fraction(rate)
        self._rate = self._own_rate if fps is None else Fraction(fps).limit_denominator(1_000_000)
        self.fps = float(self._rate)
        # what the file says of its pictures, and of all of it: sound may go on
        self._seconds = _seconds_of(self._stream)
        self._seconds_in_all = Fraction(self._container.duration or 0, av.time_base) or None
        # as far as packets of sound have come
        self._sound_until = Fraction(0)
        self.promised = None
        promised = self._seconds or self._seconds_in_all
        if promised is not None:
            self.promised = max(1, round(promised * self._rate))
        self.count = 0
        self.broken = 0
        self.is_on_its_side = False

    def _pictures(self) -> Any:
        """The first stream of moving pictures."""
        for stream in self._container.streams.video:
            # the cover of a piece of music is a stream, too
            if not stream.disposition & av.stream.Disposition.attached_pic:
                return stream
        self._container.close()
        raise InputError(f"{self.path}: has no pictures; expected a video")

    def __iter__(self) -> Generator[tuple[int, Frame], None, None]:
        """The frames (H, W, 3) that are needed, each with its number; once."""
        try:
            yield from self._at_constant_rate()
        finally:
            self._container.close()
        self._refuse_truncated()

    def _at_constant_rate(self) -> Iterator[tuple[int, Frame]]:
        held, tick = None, 0
        end = Fraction(0)
        for frame, seconds, lasts in self._timed():
            arrived = max(tick, self._tick_of(seconds * self._rate))
            if held is not None:
                yield from self._repeated(held, arrived - tick)
            held, tick = frame, arrived
            end = seconds + lasts
        if held is not None:
            # one frame, however short the video is
            least = 1 if self.count == 0 else 0
            yield from self._repeated(held, max(least, self._tick_of(end * self._rate) - tick))

    def _timed(self) -> Iterator[tuple[Any, Fraction, Fraction]]:
        """Every frame of the file, its seconds after the first one, and how long it is shown."""
        first: Fraction | None = None
        expected = Fraction(0)
        usual = 1 / self._own_rate
        for i, frame in enumerate(self._decoded()):
            lasts = usual
            seconds = expected
            if frame.pts is not None and frame.time_base is not None:
                grain = frame.time_base
                if frame.duration:
                    lasts = _unrounded(frame.duration * grain, usual, grain)
                shown = frame.pts * grain
                first = shown if first is None else first
                seconds = _unrounded(shown - first, i * usual, grain)
            # a frame that goes back in time comes when it comes
            seconds = max(seconds, Fraction(0))
            if seconds > LONGEST:
                wrong = f"a frame is shown {float(seconds) / 3600:,.0f} hours after the first"
                raise InputError(f"{self.path}: {wrong}; encode it again")
            yield frame, seconds, lasts
            expected = seconds + lasts

    def _decoded(self) -> Iterator[Any]:
        """Frames as the file has them; what can't be decoded is counted."""
        try:
            for packet in self._container.demux(self._stream, *self._sounds):
                if packet.stream is not self._stream:
                    self._hear(packet)
                    continue
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    self.broken += 1
                    continue
                yield from frames
        except av.FFmpegError:
            # the container breaks off
            self.broken += 1

    def _hear(self, packet: Any) -> None:
        """Note how far the sound has come, which is not decoded."""
        if packet.pts is not None and packet.time_base is not None:
            until = (packet.pts + (packet.duration or 0)) * packet.time_base
            self._sound_until = max(self._sound_until, until)

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
        self.is_on_its_side = _quarters(frame.rotation) % 2 == 1
        height, width = frame.height, frame.width
        if self.is_on_its_side:
            height, width = width, height
        height, width = resized(height, width, self._resize)
        if self._antialias:
            coded = (width, height) if self.is_on_its_side else (height, width)
            pixels = frame.to_ndarray(
                format="rgb24", height=coded[0], width=coded[1], interpolation="BILINEAR"
            )
            pixels = upright(pixels, frame.rotation)
        else:
            pixels = upright(frame.to_ndarray(format="rgb24"), frame.rotation)
            pixels = _interpolated(pixels, height, width)
        if self._crop is not None:
            # of two middles the later one, as the authors of SlowFast and TSP cut
            top, left = (height - self._crop + 1) // 2, (width - self._crop + 1) // 2
            pixels = pixels[top : top + self._crop, left : left + self._crop]
        return np.ascontiguousarray(pixels)

    def _refuse_truncated(self) -> None:
        found = Fraction(self.count) / self._rate
        if not self.count:
            raise InputError(f"{self.path}: not one frame of it can be decoded; get it again")
        promised = self._seconds
        if promised is None:
            found, promised = max(found, self._sound_until), self._seconds_in_all
        if promised is not None and found < promised * Fraction(1 - MISSING):
            wrong = f"ends after {float(found):.1f} of {float(promised):.1f} s"
            raise InputError(f"{self.path}: {wrong}; is it truncated? get it again")


def _seconds_of(stream: Any) -> Fraction | None:
    """How long a file says that a stream is; Matroska says it in a tag, or not at all."""
    if stream.duration and stream.time_base:
        return Fraction(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return None
    seconds = 3600 * Fraction(tag[1]) + 60 * Fraction(tag[2]) + Fraction(tag[3])
    return seconds or None


def _unrounded(seconds: Fraction, exact: Fraction, grain: Fraction) -> Fraction:
    """What a time is at a constant rate, where a file's ticks can have rounded it to what it says.

    Without, the frames that are seen would depend on the kind of file.
    """
    return exact if abs(seconds - exact) <= grain else seconds


def upright(pixels: Frame, rotation: int) -> Frame:
    """The pixels (H, W, 3) of a frame as players show it, which a phone may have coded otherwise.

    Args:
        rotation: degrees counterclockwise, as the file says.
    """
    return np.rot90(pixels, _quarters(rotation))


def _interpolated(pixels: Frame, height: int, width: int) -> Frame:
    """Bilinear between the nearest four pixels, as networks were trained whose code resizes so."""
    picture_CHW = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float()
    resized_CHW = functional.interpolate(
        picture_CHW[None], size=(height, width), mode="bilinear", align_corners=False
    )[0]
    return resized_CHW.round().byte().permute(1, 2, 0).numpy()


def _quarters(rotation: int) -> int:
    return round(rotation / 90) % 4


def resized(height: int, width: int, resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of a picture whose shorter side is to have so many pixels."""
    if resize is None:
        return height, width
    if isinstance(resize, tuple):
        return resize
    if height < width:
        return resize, max(resize, round(width * resize / height))
    return max(resize, round(height * resize / width)), resize


def _nearest(value: Fraction) -> int:
    """The nearest whole number; of two the later one."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _not_readable(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or first_line(error)
    return f"not a video that can be decoded ({reason}); get it again, or encode it anew"
