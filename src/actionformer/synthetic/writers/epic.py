"""EPIC-KITCHENS-100 (https://github.com/epic-kitchens/epic-kitchens-100-annotations).

`EPIC_100_train.csv`, `EPIC_100_validation.csv` and `EPIC_100_video_info.csv`, in the columns below.
SlowFast features: zip of one npy per video, stride 16 at 30 fps, `missing_files.txt` inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from actionformer.synthetic import archives
from actionformer.synthetic.recordings import (
    Action,
    Content,
    Recording,
    at_frames,
    draw,
    generator,
)
from actionformer.synthetic.release import Extractor, Release

# the publisher's numbers, which have gaps here
VERBS = {
    0: "take",
    1: "put",
    2: "wash",
    3: "open",
    4: "close",
    6: "turn-on",
    7: "cut",
    9: "mix",
    10: "pour",
    15: "throw",
}
NOUNS = {
    0: "tap",
    1: "spoon",
    2: "plate",
    3: "cupboard",
    4: "knife",
    7: "onion",
    8: "hob",
    12: "lid",
    17: "bin",
    20: "sponge",
    31: "bread",
    55: "kettle",
}
COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "narration_timestamp",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
    "narration",
    "verb",
    "verb_class",
    "noun",
    "noun_class",
    "all_nouns",
    "all_noun_classes",
)
EXTRACTORS = (
    Extractor("slowfast-epic", "features/slowfast_fps30_stride16_clip32.zip", 32, noise=1.1),
)


def write_demo(root: Path) -> None:
    """EPIC's files of the demo edition under `root`."""
    recordings = _demo_recordings()
    missing = [recordings[7].name]
    write(root, Release(recordings, (), EXTRACTORS, missing), VERBS, NOUNS)


def write(root: Path, release: Release, verbs: Mapping[int, str], nouns: Mapping[int, str]) -> None:
    """EPIC's files under `root`; actions are labelled `verb/noun`, by number.

    Args:
        verbs: the publisher's numbers and what they stand for, of those that occur.
        nouns: the same of nouns.
    """
    folder = root / "epic"
    recordings = release.recordings
    first = recordings[0].name
    for subset in ("train", "validation"):
        rows = []
        for recording in recordings:
            if recording.subset == subset:
                rows += _rows(recording, verbs, nouns)
            if recording.subset == subset and recording.name == first:
                rows.append(rows[-1])  # the real file has exact duplicates, too
        archives.write_csv(folder / f"annotations/EPIC_100_{subset}.csv", COLUMNS, rows)
    info = []
    for recording in recordings:
        info.append((recording.name, recording.duration, recording.fps, "1920x1080"))
    columns = ("video_id", "duration", "fps", "resolution")
    archives.write_csv(folder / "annotations/EPIC_100_video_info.csv", columns, info)
    for field, labels in (("verb", verbs), ("noun", nouns)):
        ids = [f"id_{i:03d}" for i in labels]
        archives.write_classes(folder / f"annotations/category_idx_{field}.txt", ids)
    centres = partial(at_frames, stride=16, offset=16, fps=30)
    for extractor in release.extractors:
        archives.write_features(folder, release, extractor, centres, shown=_verbs_and_nouns)


def _verbs_and_nouns(recording: Recording) -> Recording:
    """What features show: of every action its verb and its noun."""
    actions, lookalikes = _both(recording.actions), _both(recording.lookalikes)
    return replace(recording, actions=actions, lookalikes=lookalikes)


def _demo_recordings() -> list[Recording]:
    rng = generator("epic")
    pairs = [f"{verb}/{noun}" for verb in VERBS for noun in NOUNS]
    content = Content(
        pairs, (40.0, 150.0), (8, 13), (2.5, 7.0), overlapping=True, decimals=2, fuzziness=0.24
    )
    recordings = []
    for i in range(48):
        name = f"P{1 + i // 6:02d}_{1 + i % 6:02d}"
        subset = "validation" if i % 3 == 2 else "train"
        fps = 59.94 if i % 4 else 50.0
        # some are longer than the model's window
        duration = 175.0 if i % 12 == 5 else None
        recordings.append(draw(rng, name, subset, fps, content, duration))
    return recordings


def _rows(
    recording: Recording, verbs: Mapping[int, str], nouns: Mapping[int, str]
) -> list[tuple[Any, ...]]:
    """A line per action; the columns are `COLUMNS`."""
    rows: list[tuple[Any, ...]] = []
    for i, action in enumerate(recording.actions):
        verb, noun = (int(part) for part in action.label.split("/"))
        start, stop = _timestamp(action.start), _timestamp(action.end)
        row = (
            f"{recording.name}_{i}",
            recording.name[:3],
            recording.name,
            start,
            start,
            stop,
            int(action.start * recording.fps) + 1,
            int(action.end * recording.fps) + 1,
            f"{verbs[verb]} {nouns[noun]}",
            verbs[verb],
            verb,
            nouns[noun],
            noun,
            f"['{nouns[noun]}']",
            f"[{noun}]",
        )
        rows.append(row)
    return rows


def _both(actions: Sequence[Action]) -> tuple[Action, ...]:
    """A verb and a noun for every action `verb/noun`."""
    shown = []
    for action in actions:
        verb, noun = action.label.split("/")
        shown.append(replace(action, label=f"verb {verb}"))
        shown.append(replace(action, label=f"noun {noun}"))
    return tuple(shown)


def _timestamp(seconds: float) -> str:
    """HH:mm:ss.SS"""
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    time = f"{minutes // 60:02d}:{minutes % 60:02d}"
    return f"{time}:{hundredths // 100:02d}.{hundredths % 100:02d}"
