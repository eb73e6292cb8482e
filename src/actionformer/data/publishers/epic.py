"""EPIC-KITCHENS-100: csv files of segments and of videos.

Publisher: https://github.com/epic-kitchens/epic-kitchens-100-annotations.
`EPIC_100_train.csv`, `EPIC_100_validation.csv` (one line per segment):
    narration_id, participant_id, video_id, narration_timestamp, start_timestamp, stop_timestamp
    (HH:mm:ss.SS), start_frame, stop_frame, narration, verb, verb_class, noun, noun_class,
    all_nouns, all_noun_classes
`EPIC_100_video_info.csv` (one line per video):
    video_id, duration (s), fps, resolution

A segment has one verb and one noun: rows of the tables read one of the two. Labels are `id_` and
three digits. Also read: the converted JSON of OpenTAD (`epic_kitchens_noun.json`,
`epic_kitchens_verb.json`) and of the authors (`epic_kitchens_100_verb.json`, ...), one field per
file, both together or one alone.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from actionformer.data.publishers import database_json
from actionformer.errors import InputError
from actionformer.files import read_text

SUBSETS = {"train": "train", "validation": "val"}
JSON_SUBSETS = {"training": "train", "validation": "val"}


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database with `verb` and `noun` per annotation, from the files named above."""
    if all(path.suffix == ".json" for path in paths):
        return _merged(paths)
    durations: dict[str, float] = {}
    for path in paths:
        if "video_info" in path.name:
            for row in _rows(path, ("video_id", "duration")):
                durations[row["video_id"]] = _number(
                    row["duration"], f"{path}: video '{row['video_id']}'"
                )
    database: dict[str, Any] = {}
    for path in paths:
        if "video_info" in path.name:
            continue
        subset = next((name for word, name in SUBSETS.items() if word in path.name), None)
        if subset is None:
            raise InputError(f"{path}: expected 'train' or 'validation' in the file's name")
        for row in _rows(
            path, ("video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")
        ):
            video = row["video_id"]
            if video not in durations:
                raise InputError(f"{path}: video '{video}' is not in the video-info csv")
            entry = database.setdefault(
                video, {"subset": subset, "duration": durations[video], "annotations": []}
            )
            where = f"{path}: segment {row.get('narration_id', '?')}"
            entry["annotations"].append(
                {
                    "segment": [
                        seconds(row["start_timestamp"], where),
                        seconds(row["stop_timestamp"], where),
                    ],
                    "verb": f"id_{int(_number(row['verb_class'], where)):03d}",
                    "noun": f"id_{int(_number(row['noun_class'], where)):03d}",
                }
            )
    return database


def _merged(paths: list[Path]) -> dict[str, Any]:
    """Database from one JSON per field; segments stand in the same order in both."""
    database: dict[str, Any] = {}
    for path in paths:
        field = next((name for name in ("noun", "verb") if name in path.stem), None)
        if field is None:
            raise InputError(f"{path}: expected 'noun' or 'verb' in the file's name")
        for video, entry in database_json.convert(
            [path], subsets=JSON_SUBSETS, label_from_id="id_{:03d}"
        ).items():
            annotations = [
                {"segment": a["segment"], field: a["label"]} for a in entry["annotations"]
            ]
            known = database.get(video)
            if known is not None:
                if [a["segment"] for a in known["annotations"]] != [
                    a["segment"] for a in annotations
                ]:
                    raise InputError(
                        f"{path}: video '{video}' has other segments than in {paths[0]}"
                    )
                annotations = [
                    a | b for a, b in zip(known["annotations"], annotations, strict=True)
                ]
            database[video] = entry | {"annotations": annotations}
    return database


def seconds(timestamp: str, where: str) -> float:
    """HH:mm:ss.SS -> seconds, to the hundredth of a millisecond that the sum could lose."""
    try:
        hours, minutes, rest = timestamp.split(":")
        return round(int(hours) * 3600 + int(minutes) * 60 + float(rest), 5)
    except (ValueError, AttributeError):
        raise InputError(f"{where}: expected a time as HH:mm:ss.SS, found '{timestamp}'") from None


def _number(text: str, where: str) -> float:
    try:
        if math.isfinite(number := float(text)):
            return number
    except (TypeError, ValueError):
        pass
    raise InputError(f"{where}: expected a number, found '{text}'")


def _rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    missing = [column for column in needed if rows and column not in rows[0]]
    if missing or not rows:
        raise InputError(
            f"{path}: expected the columns {', '.join(needed)}; missing {', '.join(missing) or 'all lines'}"
        )
    return rows
