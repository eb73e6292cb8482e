"""EPIC-KITCHENS-100 (https://github.com/epic-kitchens/epic-kitchens-100-annotations).

`EPIC_100_train.csv`, `EPIC_100_validation.csv` and `EPIC_100_video_info.csv`, in the columns below.
SlowFast features: zip of one npy per video, stride 16 at 30 fps, `missing_files.txt` inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actionformer.synthetic import archives
from actionformer.synthetic.recordings import (
    Action,
    Content,
    Recording,
    at_frames,
    draw,
    features,
    generator,
)

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
FEATURES = "slowfast_fps30_stride16_clip32"


def write(root: Path) -> None:
    """EPIC's files under `root`."""
    folder = root / "epic"
    recordings = _recordings()
    first = recordings[0].name
    for subset in ("train", "validation"):
        rows = []
        for recording in recordings:
            if recording.subset == subset:
                rows += _rows(recording)
            if recording.subset == subset and recording.name == first:
                rows.append(rows[-1])  # the real file has exact duplicates, too
        archives.write_csv(folder / f"annotations/EPIC_100_{subset}.csv", COLUMNS, rows)
    info = []
    for recording in recordings:
        info.append((recording.name, recording.duration, recording.fps, "1920x1080"))
    columns = ("video_id", "duration", "fps", "resolution")
    archives.write_csv(folder / "annotations/EPIC_100_video_info.csv", columns, info)
    for field, labels in (("verb", VERBS), ("noun", NOUNS)):
        ids = [f"id_{i:03d}" for i in labels]
        archives.write_classes(folder / f"annotations/category_idx_{field}.txt", ids)

    missing = [recordings[7].name]
    arrays = {}
    for recording in recordings:
        if recording.name not in missing:
            both = (_both(recording.actions), _both(recording.lookalikes))
            shown = replace(recording, actions=both[0], lookalikes=both[1])
            centres_T = at_frames(shown, stride=16, offset=16, fps=30)
            arrays[shown.name] = features(shown, "slowfast-epic", centres_T, 32, noise=1.1)
    members = archives.feature_members(FEATURES, arrays, missing=missing)
    archives.write_zip(folder / f"features/{FEATURES}.zip", members)


def _recordings() -> list[Recording]:
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


def _rows(recording: Recording) -> list[tuple[Any, ...]]:
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
            f"{VERBS[verb]} {NOUNS[noun]}",
            VERBS[verb],
            verb,
            NOUNS[noun],
            noun,
            f"['{NOUNS[noun]}']",
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
