"""What is in a file of video, frame by frame from its start to its end, as a library decodes it.

PyAV brings its codecs with it. torchcodec is an extra that decodes with the machine's FFmpeg; the
two differ by what rounding of colours and resizing make of a pixel.

Nothing is sought: what a seek finds depends on where a codec's key frames lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from actionformer.errors import InputError, first_line
from actionformer.params.extractor import Decoder

Frame = NDArray[np.uint8]
Size = int | tuple[int, int] | None

# to what torchcodec's seconds, which are floats, may have been rounded by a kind of file
COARSEST = Fraction(1, 1000)


@dataclass(frozen=True)
class Shown:
    """A frame of a file, which `Reader.pixels` reads, and when it is shown, where the file says."""

    frame: Any
    # after the file's own beginning
    seconds: Fraction | None
    lasts: Fraction | None
    # what the file rounds times to
    grain: Fraction


class Reader(Protocol):
    """An opened file of video.

    Attributes:
        stream_index: of its pictures, among all streams.
        rate: frames per second as the file says it, on average; None where it doesn't.
        seconds: of its pictures, as it says; None where it doesn't.
        seconds_in_all: the same of all of it from the first picture on: sound may go on.
        sound_until: seconds after the first picture that sound has come to; known at the end.
        broken: packets that could not be decoded.
    """

    stream_index: int
    rate: Fraction | None
    seconds: Fraction | None
    seconds_in_all: Fraction | None
    sound_until: Fraction
    broken: int

    def frames(self) -> Iterator[Shown]:
        """All that can be decoded, in order; once."""
        ...

    def is_on_its_side(self, frame: Any) -> bool:
        """Is this frame coded with a quarter of a turn?"""
        ...

    def pixels(self, frame: Any, resize: Size, *, antialias: bool) -> Frame:
        """The pixels (H, W, 3) of a frame, as players show it, in the size that is wanted."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def opened(path: Path, decoder: Decoder) -> Reader:
    """A file of video.

    Raises:
        InputError: no such file, none that is decoded here, one without pictures, or no torchcodec.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such video")
    return OfPyAV(path) if decoder == "pyav" else OfTorchcodec(path)


def resized(height: int, width: int, resize: Size) -> tuple[int, int]:
    """Height and width of a picture whose shorter side is to have so many pixels."""
    if resize is None:
        return height, width
    if isinstance(resize, tuple):
        return resize
    if height < width:
        return resize, max(resize, round(width * resize / height))
    return max(resize, round(height * resize / width)), resize


class OfPyAV:
    """A file that PyAV decodes."""

    def __init__(self, path: Path) -> None:
        try:
            self._container = av.open(str(path))
        except (av.FFmpegError, ValueError, UnicodeError) as error:
            raise InputError(f"{path}: {_not_readable(error)}") from None
        self._stream = self._pictures(path)
        self._stream.thread_type = "AUTO"
        self._sounds = self._container.streams.audio
        self.has_sound = bool(self._sounds)
        self.stream_index: int = self._stream.index
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate: Fraction | None = Fraction(rate) if rate else None
        self._start = Fraction(0)
        if self._stream.start_time and self._stream.time_base:
            self._start = self._stream.start_time * self._stream.time_base
        self.seconds: Fraction | None = _seconds_of(self._stream, self._start)
        whole = Fraction(self._container.duration or 0, av.time_base)
        before = self._start - Fraction(self._container.start_time or 0, av.time_base)
        self.seconds_in_all: Fraction | None = whole - before if whole > before else None
        self.sound_until = Fraction(0)
        self.broken = 0

    def _pictures(self, path: Path) -> Any:
        """The first stream of moving pictures."""
        for stream in self._container.streams.video:
            # the cover of a piece of music is a stream, too
            if not stream.disposition & av.stream.Disposition.attached_pic:
                return stream
        self._container.close()
        raise InputError(f"{path}: has no pictures; expected a video")

    def frames(self) -> Iterator[Shown]:
        try:
            for packet in self._container.demux(self._stream, *self._sounds):
                if packet.stream.index != self.stream_index:
                    self._hear(packet)
                    continue
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    self.broken += 1
                    continue
                for frame in frames:
                    yield _shown(frame)
        except av.FFmpegError:
            # the container breaks off
            self.broken += 1

    def _hear(self, packet: Any) -> None:
        """Note how far the sound has come, which is not decoded."""
        if packet.pts is not None and packet.time_base is not None:
            until = (packet.pts + (packet.duration or 0)) * packet.time_base
            self.sound_until = max(self.sound_until, until - self._start)

    def is_on_its_side(self, frame: Any) -> bool:
        return _quarters(frame.rotation) % 2 == 1

    def pixels(self, frame: Any, resize: Size, *, antialias: bool) -> Frame:
        if not antialias:
            picture_HWC = upright(frame.to_ndarray(format="rgb24"), frame.rotation)
            return _interpolated(_tensor(picture_HWC), resize, antialias=False)
        is_on_its_side = self.is_on_its_side(frame)
        shape = (frame.width, frame.height) if is_on_its_side else (frame.height, frame.width)
        height, width = resized(*shape, resize)
        if is_on_its_side:
            height, width = width, height
        coded = frame.to_ndarray(
            format="rgb24", height=height, width=width, interpolation="BILINEAR"
        )
        return upright(coded, frame.rotation)

    def close(self) -> None:
        self._container.close()


def _shown(frame: Any) -> Shown:
    """A frame of PyAV's."""
    if frame.pts is None or frame.time_base is None:
        return Shown(frame, None, None, Fraction(0))
    grain = frame.time_base
    lasts = frame.duration * grain if frame.duration else None
    return Shown(frame, frame.pts * grain, lasts, grain)


def _seconds_of(stream: Any, start: Fraction) -> Fraction | None:
    """How long a file says that a stream is, which begins at `start`.

    Matroska says in a tag when it ends, or nothing.
    """
    if stream.duration and stream.time_base:
        return Fraction(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return None
    end = 3600 * Fraction(tag[1]) + 60 * Fraction(tag[2]) + Fraction(tag[3])
    return end - start if end > start else None


class OfTorchcodec:
    """A file that torchcodec decodes, on the CPU; it turns frames as players do."""

    def __init__(self, path: Path) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        # RuntimeError, OSError: no FFmpeg on this machine, or a build for another torch
        except (ImportError, RuntimeError, OSError) as error:
            raise InputError(
                f"decoder torchcodec isn't there ({first_line(error)}); docs/video.md says how to "
                "install it"
            ) from None
        # what a file says of itself PyAV reads in fractions
        told = OfPyAV(path)
        told.close()
        self.stream_index: int = told.stream_index
        self.rate: Fraction | None = told.rate
        self.seconds: Fraction | None = told.seconds
        # of a file with sound nobody sees here how far that has come
        self.seconds_in_all: Fraction | None = None if told.has_sound else told.seconds_in_all
        self.sound_until = Fraction(0)
        self.broken = 0
        try:
            self._decoder = VideoDecoder(
                str(path),
                stream_index=self.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=0,
                seek_mode="exact",
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: {_not_readable(error)}") from None
        self._quarters = _quarters(self._decoder.metadata.rotation or 0)

    def frames(self) -> Iterator[Shown]:
        for k in range(len(self._decoder)):
            try:
                frame = self._decoder.get_frame_at(k)
            except RuntimeError:
                self.broken += 1
                continue
            lasts = _exact(frame.duration_seconds)
            yield Shown(frame.data, _exact(frame.pts_seconds), lasts or None, COARSEST)

    def is_on_its_side(self, frame: Tensor) -> bool:
        return self._quarters % 2 == 1

    def pixels(self, frame: Tensor, resize: Size, *, antialias: bool) -> Frame:
        return _interpolated(frame, resize, antialias=antialias)

    def close(self) -> None:
        del self._decoder


def _exact(seconds: float | None) -> Fraction | None:
    return None if seconds is None else Fraction(seconds).limit_denominator(1_000_000)


def upright(pixels: Frame, rotation: float) -> Frame:
    """The pixels (H, W, 3) of a frame as players show it, which a phone may have coded otherwise.

    Args:
        rotation: degrees counterclockwise, as the file says.
    """
    return np.rot90(pixels, _quarters(rotation))


def _quarters(rotation: float) -> int:
    return round(rotation / 90) % 4


def _tensor(pixels: Frame) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _interpolated(picture_HWC: Tensor, resize: Size, *, antialias: bool) -> Frame:
    """Bilinear; of a picture that becomes smaller between the nearest four pixels, or of all."""
    height, width = resized(picture_HWC.shape[0], picture_HWC.shape[1], resize)
    if (height, width) == picture_HWC.shape[:2]:
        return picture_HWC.numpy()
    resized_CHW = functional.interpolate(
        picture_HWC.permute(2, 0, 1)[None].float(),
        size=(height, width),
        mode="bilinear",
        align_corners=False,
        antialias=antialias,
    )[0]
    return resized_CHW.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _not_readable(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or first_line(error)
    return f"not a video that can be decoded ({reason}); get it again, or encode it anew"
