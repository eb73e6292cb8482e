"""A copy of a video with what was found drawn in: labels while an action lasts, and a time line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from actionformer.data.detections import Detection
from actionformer.errors import InputError, first_line
from actionformer.files.writing import atomic_path
from actionformer.progress import progress
from actionformer.video.decode import VideoFrames
from actionformer.video.readers import upright

# codecs of audio that an mp4 file holds as it is; others become the first of these
IN_MP4 = ("aac", "mp3", "ac3", "eac3", "alac", "opus")
# samples per second of mp3 that FFmpeg puts into an mp4 file
SLOWEST_MP3 = 16000
# of Okabe and Ito, which eyes of every kind tell apart
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
SHADE, PLAYHEAD = (0, 0, 0, 160), "#FFFFFF"
# shares of a picture's height
LETTER, STRIP = 0.045, 0.05
# labels that stand on a picture at once, the best first
MOST_LABELS = 6


def write_labelled(source: Path, target: Path, detections: Sequence[Detection]) -> None:
    """Write `source` again, upright and with detections drawn in, as H.264 in an mp4 file.

    Its audio is kept. H.264 wants even sides: an odd one loses a row or column of pixels.

    Args:
        detections: those that are shown, with segments in seconds after the first frame.

    Raises:
        InputError: a video that cannot be decoded, a target that is the video itself, or no encoder
            for H.264 in this PyAV.
    """
    if target.resolve() == source.resolve():
        raise InputError(f"{source}: its labelled copy would take its place; name another folder")
    # which refuses what is no video; of it the first frame alone
    frames = VideoFrames(source)
    with closing(iter(frames)) as first:
        height, width = next(first)[1].shape[:2]
    size = (width // 2 * 2, height // 2 * 2)
    with atomic_path(target) as part:
        try:
            with (
                av.open(str(source)) as input_,
                av.open(str(part), "w", format="mp4") as output,
            ):
                _Copy(input_, output, detections, frames, size).run(source.name)
        except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
            raise InputError(f"{source}: no labelled copy of it ({first_line(error)})") from None


class _Copy:
    """What is read and what is written."""

    def __init__(
        self,
        input_: Any,
        output: Any,
        detections: Sequence[Detection],
        frames: VideoFrames,
        size: tuple[int, int],
    ) -> None:
        self._input, self._output = input_, output
        self._pictures = input_.streams[frames.stream_index]
        self._pictures.thread_type = "AUTO"
        self._size = size
        self._written = output.add_stream("libx264", rate=Fraction(frames.fps).limit_denominator())
        self._written.width, self._written.height = size
        self._written.pix_fmt = "yuv420p"
        self._written.codec_context.time_base = self._pictures.time_base
        # pixels that are no squares; 0 where the file says nothing
        width_of_pixel = self._pictures.sample_aspect_ratio
        if width_of_pixel:
            if frames.is_on_its_side:
                width_of_pixel = 1 / width_of_pixel
            self._written.codec_context.sample_aspect_ratio = width_of_pixel
        self._sound = next(iter(input_.streams.audio), None)
        ends = [found["segment"][1] for found in detections]
        seconds = max((frames.promised or 0) / frames.fps, *ends, 1.0)
        self._overlay = _Overlay(*size, detections, seconds)
        # when the first frame is shown
        self._first: float | None = None
        self._last_pts: int | None = None
        self._written_sound: Any = None
        self._resampler: AudioResampler | None = None
        if self._sound is not None:
            self._open_sound(self._sound)

    def _open_sound(self, sound: Any) -> None:
        # its decoder may be called otherwise: mp3float
        name, rate = sound.codec_context.codec.canonical_name, sound.codec_context.sample_rate
        if name in IN_MP4 and (name != "mp3" or rate >= SLOWEST_MP3):
            self._written_sound = self._output.add_stream_from_template(sound)
            return
        self._written_sound = self._output.add_stream(IN_MP4[0], rate=rate)
        self._resampler = AudioResampler("fltp", sound.codec_context.layout, rate)

    def run(self, name: str) -> None:
        """Copy all of it."""
        wanted = [stream for stream in (self._pictures, self._sound) if stream is not None]
        packets = self._input.demux(*wanted)
        for packet in progress(packets, f"label {name}", unit="packet"):
            if packet.stream.index == self._pictures.index:
                for frame in _frames_of(packet):
                    self._draw(frame)
            elif self._resampler is not None:
                for frame in _frames_of(packet):
                    for resampled in self._resampler.resample(frame):
                        self._output.mux(self._written_sound.encode(resampled))
            elif packet.dts is not None:
                packet.stream = self._written_sound
                self._output.mux(packet)
        self._output.mux(self._written.encode())
        if self._resampler is not None:
            for resampled in self._resampler.resample(None):
                self._output.mux(self._written_sound.encode(resampled))
            self._output.mux(self._written_sound.encode())

    def _draw(self, frame: Any) -> None:
        pixels = upright(frame.to_ndarray(format="rgb24"), frame.rotation)
        width, height = self._size
        shown = 0.0 if frame.time is None else frame.time
        self._first = shown if self._first is None else self._first
        image = Image.fromarray(np.ascontiguousarray(pixels[:height, :width]))
        drawn = av.VideoFrame.from_image(self._overlay.on(image, shown - self._first))
        drawn.pts, drawn.time_base = self._next_pts(frame), self._pictures.time_base
        self._output.mux(self._written.encode(drawn))

    def _next_pts(self, frame: Any) -> int:
        """When a frame is shown; later than the one before, which H.264 wants of every file."""
        earliest = None if self._last_pts is None else self._last_pts + 1
        told = [one for one in (frame.pts, earliest) if one is not None]
        pts: int = max(told, default=0)
        self._last_pts = pts
        return pts


def _frames_of(packet: Any) -> list[Any]:
    """What a packet decodes to; nothing of a damaged one."""
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []


class _Overlay:
    """What is drawn on every picture of a video."""

    def __init__(
        self, width: int, height: int, detections: Sequence[Detection], seconds: float
    ) -> None:
        self._size, self._seconds = (width, height), seconds
        self._detections = sorted(detections, key=lambda found: -found["score"])
        labels = sorted({found["label"] for found in detections})
        self._colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
        self._letter = max(8, round(LETTER * height))
        # matplotlib brings DejaVu, which has most alphabets: no font of the machine is needed
        font = Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
        self._font = ImageFont.truetype(font, self._letter)
        self._strip = max(4, round(STRIP * height))
        self._line = self._time_line(labels)

    def _time_line(self, labels: Sequence[str]) -> Image.Image:
        """All actions along the lower edge, a row for every label."""
        width, height = self._size[0], self._strip
        line = Image.new("RGBA", (width, height), SHADE)
        draw = ImageDraw.Draw(line)
        row = height / max(1, len(labels))
        # the best last, above the others
        for found in reversed(self._detections):
            left, right = (self._x(seconds) for seconds in found["segment"])
            top = labels.index(found["label"]) * row
            box = (left, top, max(left + 1, right), max(top + 1, top + row - 1))
            draw.rectangle(box, fill=self._colours[found["label"]])
        return line

    def _x(self, seconds: float) -> float:
        return (self._size[0] - 1) * min(max(seconds / self._seconds, 0.0), 1.0)

    def on(self, image: Image.Image, seconds: float) -> Image.Image:
        """The picture with what is seen at this time."""
        width, height = self._size
        image.paste(self._line, (0, height - self._strip), self._line)
        draw = ImageDraw.Draw(image, "RGBA")
        x = self._x(seconds)
        draw.line((x, height - self._strip, x, height), fill=PLAYHEAD, width=max(1, width // 300))
        now = [
            found
            for found in self._detections
            if found["segment"][0] <= seconds <= found["segment"][1]
        ]
        margin = self._letter // 3
        top = margin
        for found in now[:MOST_LABELS]:
            text = f"{found['label']} {found['score']:.2f}"
            left, upper, right, lower = draw.textbbox((2 * margin, top), text, font=self._font)
            box = (left - margin, upper - margin, right + margin, lower + margin)
            draw.rectangle(box, fill=SHADE)
            draw.text((2 * margin, top), text, font=self._font, fill=self._colours[found["label"]])
            top = round(lower) + 2 * margin
        return image
