"""What happens in synthetic videos, and what a feature extractor would see of it.

An action adds its class's pattern to the features of the steps that it covers, and a start and an
end pattern at its boundaries, under noise. So actions, classes and boundaries can be learnt, and
what makes real videos hard is there, too:

    boundaries are fuzzy      what is seen begins and ends a little apart from what is annotated,
                              in some classes more than in others
    classes resemble          those of one kin share most of their pattern
    actions are short         most of them; a few are long
    actions come in strokes   some pause in the middle, as if there were two
    background resembles      parts of videos look like an action, weakly, and nobody annotated one

Everything is drawn as integers and combined by exactly rounded operations: the same bytes
everywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Generator = np.random.Generator
Array = NDArray[np.floating[Any]]

YOUTUBE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HEX = "0123456789abcdef"
# how many patterns are kept
PATTERNS = 2000
# how often a place is drawn per action that is wanted
TRIALS = 40
# standard deviation of the sum of four numbers from -128 to 127
DICE = 148
# kins of classes, and in how many of eight channels those of one kin look alike
KINS, ALIKE = 3, 5
# of what resembles an action: how strongly, where an action itself is shown with 0.75 to 1.25
RESEMBLING = 0.6
# one of so many actions pauses in the middle, and is seen so weakly there
PAUSES, PAUSED = 6, 0.25


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
    # what resembles an action and is none
    lookalikes: tuple[Action, ...] = ()
    # how far boundaries are seen from where they are annotated, as a share of the action's length
    fuzziness: float = 0.0

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
    # as in `Recording`; standard deviation, in the mean over classes
    fuzziness: float = 0.1
    # of background that resembles an action, per action
    lookalikes: float = 0.3


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
        length = min(scale * _short(rng, *content.length), 0.8 * duration)
        # some are cut off by the video's ends, so that no place in a video is likelier than another
        begin = uniform(rng, -0.4 * length, duration - 0.6 * length)
        start = round(max(begin, 0.0), content.decimals)
        end = round(min(begin + length, duration - 0.1), content.decimals)
        if _has_room(actions, start, end, label, 0.25 * length, content):
            actions.append(Action(start, end, label))
    actions.sort(key=_in_time)
    lookalikes = _lookalikes(rng, actions, duration, content)
    return Recording(name, subset, duration, fps, tuple(actions), lookalikes, content.fuzziness)


def _in_time(action: Action) -> tuple[float, float, str]:
    return action.start, action.end, action.label


def _short(rng: Generator, low: float, high: float) -> float:
    """One of the numbers from `low` on, below `high`, of which the smaller ones are likelier."""
    share = uniform(rng, 0.0, 1.0)
    return low + (high - low) * share * share


def _lookalikes(
    rng: Generator, actions: Sequence[Action], duration: float, content: Content
) -> tuple[Action, ...]:
    """Stretches of background that resemble an action, apart from all actions."""
    found: list[Action] = []
    scale = duration if content.relative_length else 1.0
    wanted = len(actions) * content.lookalikes
    apart = replace(content, overlapping=False)
    for _ in range(TRIALS):
        if len(found) >= wanted:
            break
        label = content.classes[int(rng.integers(len(content.classes)))]
        length = scale * _short(rng, *content.length)
        start = uniform(rng, 0.0, duration)
        end = start + length
        if end < duration and _has_room(
            [*actions, *found], start, end, label, 0.25 * length, apart
        ):
            found.append(Action(round(start, 2), round(end, 2), label))
    return tuple(sorted(found, key=_in_time))


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


def features(recording: Recording, key: str, centres_T: Array, dim: int, *, noise: float) -> Array:
    """(T, dim): what a feature extractor would see of the recording at times `centres_T`.

    Args:
        key: names the extractor; another one sees other patterns.
        noise: standard deviation, where an action shows with 1.
    """
    rng = generator(f"features/{key}/{recording.name}")
    # four dice give a bell
    dice_TC = rng.integers(-128, 128, (4, len(centres_T), dim)).sum(0)
    features_TC = dice_TC * (noise / DICE)
    half = centres_T[1] - centres_T[0] if len(centres_T) > 1 else recording.duration
    for action in recording.actions:
        strokes = _strokes(recording, action)
        strength = uniform(rng, 0.75, 1.25)
        pattern_C = _class_pattern(key, action.label, dim)
        for start, end, share in strokes:
            _add(features_TC, strength * share * _covered(centres_T, half, start, end), pattern_C)
        for time, boundary in ((strokes[0][0], "start"), (strokes[-1][1], "end")):
            bump_T = (1 - np.abs(centres_T - time) / (2 * half)).clip(0)
            _add(features_TC, bump_T, _pattern(f"{key}/{boundary}", dim))
    for alike in recording.lookalikes:
        shown_T = RESEMBLING * _covered(centres_T, half, alike.start, alike.end)
        _add(features_TC, shown_T, _class_pattern(key, alike.label, dim))
    return features_TC


def _add(features_TC: Array, shown_T: Array, pattern_C: Array) -> None:
    """Add a pattern where it is shown at all: a few of thousands of steps."""
    steps = np.flatnonzero(shown_T)
    features_TC[steps] += shown_T[steps, None] * pattern_C


def _strokes(recording: Recording, action: Action) -> list[tuple[float, float, float]]:
    """What is seen of an action: start, end and strength of its parts, the same to every extractor.

    It begins and ends where somebody who annotates it may well see it begin and end elsewhere.
    """
    rng = generator(f"seen/{recording.name}/{action.start}/{action.end}")
    length = action.end - action.start
    # from 0.4 to 1.6 times what the content says, by class
    deviation = recording.fuzziness * length * (0.4 + 0.3 * (_number(action.label) % 5))
    shifts = rng.integers(-128, 128, (2, 4)).sum(1) / DICE
    start = action.start + deviation * float(shifts[0])
    end = max(action.end + deviation * float(shifts[1]), start + 0.3 * length)
    if int(rng.integers(PAUSES)):
        return [(start, end, 1.0)]
    third = (end - start) / 3
    middle = (start + third, end - third)
    return [(start, middle[0], 1.0), (*middle, PAUSED), (middle[1], end, 1.0)]


def _covered(centres_T: Array, half: float, start: float, end: float) -> Array:
    """How much of every step lies between two times."""
    covered_T = np.minimum(end, centres_T + half) - np.maximum(start, centres_T - half)
    return (covered_T / (2 * half)).clip(0, 1)


@lru_cache(PATTERNS)
def _class_pattern(key: str, label: str, dim: int) -> Array:
    """What an extractor sees of a class: in most channels the same as of others of its kin."""
    kin = _number(label) % KINS
    alike_C = generator(f"alike/{key}/{dim}").integers(0, 8, dim) < ALIKE
    of_kin_C = _pattern(f"{key}/kin {kin}", dim)
    return np.where(alike_C, of_kin_C, _pattern(f"{key}/{label}", dim))


def _number(label: str) -> int:
    """A number that belongs to a class, the same everywhere."""
    return zlib.crc32(label.encode())


@lru_cache(PATTERNS)
def _pattern(name: str, dim: int) -> Array:
    """-1 and +1 per channel, of this name."""
    return 2.0 * generator(f"pattern/{name}/{dim}").integers(0, 2, dim) - 1.0


def probabilities(recording: Recording, classes: Sequence[str]) -> list[float]:
    """Probabilities of an imperfect classifier: right in about nine of ten videos."""
    rng = generator(f"classifier/{recording.name}")
    weights = [float(rng.integers(1, 10)) for _ in classes]
    truth = classes.index(recording.actions[0].label) if recording.actions else 0
    best = truth if int(rng.integers(10)) else int(rng.integers(len(classes)))
    # as sure among many classes as among eight
    weights[best] += 7.5 * len(classes)
    weights[truth] += 1.875 * len(classes)
    return [round(weight / sum(weights), 6) for weight in weights]
