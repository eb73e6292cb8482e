"""What happens in synthetic videos, and what a feature extractor would see of it.

An action adds its class's pattern to the features of the steps that it covers, and a start and an
end pattern at its boundaries, under noise. So actions, classes and boundaries can be learnt.
Everything is drawn as integers and combined by exactly rounded operations: the same bytes
everywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Generator = np.random.Generator
Array = NDArray[np.floating[Any]]

YOUTUBE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HEX = "0123456789abcdef"
# how often a place is drawn per action that is wanted
TRIALS = 40
# standard deviation of the sum of four numbers from -128 to 127
DICE = 148


@dataclass(frozen=True)
class Action:
    """One annotated action, times in seconds."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Recording:
    """A synthetic video: its actions, annotated or not, are what its features show."""

    name: str
    subset: str
    duration: float
    fps: float
    actions: tuple[Action, ...]

    @property
    def frames(self) -> int:
        return int(self.duration * self.fps)


@dataclass(frozen=True)
class Content:
    """What the recordings of a data set look like; ranges are uniform, times in seconds."""

    classes: Sequence[str]
    duration: tuple[float, float]
    actions: tuple[int, int]
    length: tuple[float, float]
    overlapping: bool
    # of the publisher's times
    decimals: int
    # `length` is a share of the duration
    relative_length: bool = False
    # all actions of a video have the same class
    one_class: bool = False


def generator(name: str) -> Generator:
    """Random numbers of this name; the same everywhere."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def uniform(rng: Generator, low: float, high: float) -> float:
    """One of 65,536 numbers from `low` on, below `high`."""
    return low + (high - low) * (int(rng.integers(0, 65536)) / 65536)


def names(rng: Generator, count: int, length: int, alphabet: str) -> list[str]:
    """Names of videos, as sites give them."""
    drawn = []
    for _ in range(count):
        letters = [alphabet[int(i)] for i in rng.integers(0, len(alphabet), length)]
        drawn.append("".join(letters))
    return drawn


def draw(
    rng: Generator,
    name: str,
    subset: str,
    fps: float,
    content: Content,
    duration: float | None = None,
) -> Recording:
    """A recording with actions at random places; actions of the same class keep apart."""
    if duration is None:
        duration = round(uniform(rng, *content.duration), 2)
    wanted = int(rng.integers(content.actions[0], content.actions[1] + 1))
    only = content.classes[int(rng.integers(len(content.classes)))]
    scale = duration if content.relative_length else 1.0
    actions: list[Action] = []
    for _ in range(TRIALS * wanted):
        if len(actions) == wanted:
            break
        label = only
        if not content.one_class:
            label = content.classes[int(rng.integers(len(content.classes)))]
        length = min(scale * uniform(rng, *content.length), 0.8 * duration)
        # some are cut off by the video's ends, so that no place in a video is likelier than another
        begin = uniform(rng, -0.4 * length, duration - 0.6 * length)
        start = round(max(begin, 0.0), content.decimals)
        end = round(min(begin + length, duration - 0.1), content.decimals)
        if _has_room(actions, start, end, label, 0.25 * length, content):
            actions.append(Action(start, end, label))
    actions.sort(key=lambda action: (action.start, action.end, action.label))
    return Recording(name, subset, duration, fps, tuple(actions))


def _has_room(
    actions: Sequence[Action], start: float, end: float, label: str, gap: float, content: Content
) -> bool:
    """Does an action keep `gap` seconds from those of its class, or from all?"""
    for action in actions:
        near = action.start - gap < end and start < action.end + gap
        if near and (action.label == label or not content.overlapping):
            return False
    return True


# ---------------------------------------------------------------------------------------- features


def at_frames(recording: Recording, *, stride: float, offset: float, fps: float) -> Array:
    """Times of the centres of all steps that a clip of the recording fits around."""
    frames = int(recording.duration * fps)
    steps = max(int((frames - offset) / stride) + 1, 2)
    return (offset + stride * np.arange(steps)) / fps


def evenly(recording: Recording, *, stride: float, fps: float) -> Array:
    """Times of the centres of steps that span the recording."""
    steps = max(int(recording.duration * fps / stride), 2)
    return (np.arange(steps) + 0.5) * (recording.duration / steps)


def features(
    recording: Recording, key: str, centres_T: Array, dim: int, *, noise: float
) -> NDArray[np.float16]:
    """(T, dim): what a feature extractor would see of the recording at times `centres_T`.

    Args:
        key: names the extractor; another one sees other patterns.
    """
    rng = generator(f"features/{key}/{recording.name}")
    # four dice give a bell
    dice_TC = rng.integers(-128, 128, (4, len(centres_T), dim)).sum(0)
    features_TC = dice_TC * (noise / DICE)
    half = centres_T[1] - centres_T[0] if len(centres_T) > 1 else recording.duration
    for action in recording.actions:
        strength = uniform(rng, 0.75, 1.25)
        last_T = np.minimum(action.end, centres_T + half)
        covered_T = last_T - np.maximum(action.start, centres_T - half)
        shown_T = strength * (covered_T / (2 * half)).clip(0, 1)
        features_TC += shown_T[:, None] * _pattern(f"{key}/{action.label}", dim)
        for time, boundary in ((action.start, "start"), (action.end, "end")):
            bump_T = (1 - np.abs(centres_T - time) / (2 * half)).clip(0)
            features_TC += bump_T[:, None] * _pattern(f"{key}/{boundary}", dim)
    return features_TC.astype(np.float16)


def _pattern(name: str, dim: int) -> Array:
    """-1 and +1 per channel, of this name."""
    return 2.0 * generator(f"pattern/{name}/{dim}").integers(0, 2, dim) - 1.0


def probabilities(recording: Recording, classes: Sequence[str]) -> list[float]:
    """Probabilities of an imperfect classifier: right in about nine of ten videos."""
    rng = generator(f"classifier/{recording.name}")
    weights = [float(rng.integers(1, 10)) for _ in classes]
    truth = classes.index(recording.actions[0].label)
    best = truth if int(rng.integers(10)) else int(rng.integers(len(classes)))
    weights[best] += 60.0
    weights[truth] += 15.0
    return [round(weight / sum(weights), 6) for weight in weights]
