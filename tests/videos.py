"""Small videos that tests write: shapes that move, in all the ways that files of videos differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import yaml
from numpy.typing import NDArray

from actionformer.params.extractor import Extractor
from actionformer.params.files import load_extractor

Picture = NDArray[np.uint8]

# of sound
RATE = 16000


def write_video(
    path: Path,
    pictures: Callable[[int], Picture],
    count: int,
    *,
    fps: int | Fraction = 25,
    codec: str = "mpeg4",
    shown_at: Sequence[Fraction] | None = None,
    ticks: int = 1000,
    rotation: int | None = None,
    sound: str | None = None,
    sound_seconds: float | None = None,
    sound_rate: int = RATE,
    pixel: Fraction | None = None,
) -> None:
    """Write `count` pictures (H, W, 3) as a video.

    Args:
        codec: mpeg4 is the fastest; odd sides need libx264.
        shown_at: seconds at which each picture is shown; default: one after the other.
        ticks: of a second, that these are rounded to.
        rotation: degrees counterclockwise by which players turn it.
        sound: codec of a tone; None: without.
        sound_seconds: how long that is; None: as long as the pictures.
        sound_rate: its samples per second.
        pixel: width of a pixel to its height; None: the file says nothing of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = pictures(0).shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = width, height
        is_odd = height % 2 or width % 2
        stream.pix_fmt = "yuv444p" if is_odd else "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 2_000_000
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if shown_at is not None:
            stream.codec_context.time_base = Fraction(1, ticks)
        tone = (
            None if sound is None else container.add_stream(sound, rate=sound_rate, layout="mono")
        )
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(pictures(k), format="rgb24")
            if shown_at is not None:
                frame.time_base = Fraction(1, ticks)
                frame.pts = round(shown_at[k] * ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone is not None:
            form = str(tone.codec_context.format.name)
            for frame in _tone(sound_seconds or float(count / fps), form, sound_rate):
                container.mux(tone.encode(frame))
            container.mux(tone.encode())


def _tone(seconds: float, form: str, rate: int) -> list[av.AudioFrame]:
    samples = np.sin(np.arange(round(seconds * rate)) * 0.2).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return av.AudioResampler(form, "mono", rate, frame_size=1024).resample(frame)


def growing_bar(k: int, *, count: int, height: int = 48, width: int = 64) -> Picture:
    """A bar from the left that has grown to k / count of the width."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : k * width // count] = 255
    return picture


def brightness(frame: Picture) -> float:
    """How far the bar has grown, from 0 to 1."""
    return float(frame.mean()) / 255


# class -> colour of the shape that moves while the action lasts
ACTIONS = {"Slide": (255, 40, 40), "Rise": (40, 255, 40)}


def acted(
    k: int, fps: int, actions: Sequence[tuple[float, float, str]], *, side: int = 40
) -> Picture:
    """Grey, and while an action lasts a shape that moves: a square to the right, a bar upwards."""
    picture = np.full((side, side, 3), 90, np.uint8)
    for start, end, label in actions:
        if start <= k / fps < end:
            share = (k / fps - start) / (end - start)
            place = int(share * (side - 16))
            rows, columns = slice(12, 28), slice(place, place + 16)
            if label == "Rise":
                rows, columns = slice(side - 12 - place, side - place), slice(6, 34)
            picture[rows, columns] = ACTIONS[label]
    return picture


def tiny_extractor(folder: Path, **changes: object) -> tuple[str, Extractor, Path]:
    """An extractor with small drawn weights, as the path of its YAML file gives it.

    A vision transformer, since deep convolutions with drawn weights give nearly the same features
    of everything.
    """
    import torch

    from actionformer.video.networks.build import built_for

    content = {
        "network": {
            "name": "videomae",
            "width": 48,
            "depth": 1,
            "heads": 4,
            "mlp_width": 96,
            "patch": 8,
            "layout": "hugging_face",
        },
        "weights": "tiny.pt",
        "file": {"licence": "drawn"},
        "dim": 48,
        "clip_frames": 8,
        "stride_frames": 4,
        "resize": 32,
        "crop": 32,
        "mean": [0.5, 0.5, 0.5],
        "deviation": [0.25, 0.25, 0.25],
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    name, extractor, weights = load_extractor(str(path))
    if not weights.exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.save(built_for(extractor).network.state_dict(), weights)
    return name, extractor, weights
