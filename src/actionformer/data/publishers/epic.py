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

from pathlib import Path
from typing import Any

from actionformer.data.publishers import database_json
from actionformer.errors import InputError
from actionformer.files.csv_files import read_table
from actionformer.files.values import number

SUBSETS = {"train": "train", "validation": "val"}
JSON_SUBSETS = {"training": "train", "validation": "val"}
INFO_COLUMNS = ("video_id", "duration")
COLUMNS = ("video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database with `verb` and `noun` per annotation, from the files named above."""
    if all(path.suffix == ".json" for path in paths):
        return _merged(paths)
    informed = [path for path in paths if "video_info" in path.name]
    durations = _durations(informed)
    database: dict[str, Any] = {}
    for path in paths:
        if "video_info" in path.name:
            continue
        subset = _subset(path)
        for line, row in read_table(path, COLUMNS):
            video = row["video_id"]
            if video not in durations:
                lacks = f"video '{video}' is not in {', '.join(map(str, informed))}"
                raise InputError(f"{line}: {lacks}")
            empty = {"subset": subset, "duration": durations[video], "annotations": []}
            entry = database.setdefault(video, empty)
            if entry["subset"] != subset:
                raise InputError(f"{line}: video '{video}' is in another subset, too")
            where = f"{line}: segment {row.get('narration_id', '?')}"
            start, end = row["start_timestamp"], row["stop_timestamp"]
            annotation = {
                "segment": [seconds(start, where), seconds(end, where)],
                "verb": _label(row["verb_class"], where),
                "noun": _label(row["noun_class"], where),
            }
            entry["annotations"].append(annotation)
    return database


def _durations(paths: list[Path]) -> dict[str, float]:
    """Seconds of every video."""
    durations = {}
    for path in paths:
        for where, row in read_table(path, INFO_COLUMNS):
            video = row["video_id"]
            if video in durations:
                raise InputError(f"{where}: video '{video}' occurs twice; get the file again")
            try:
                durations[video] = number(row["duration"])
            except ValueError as error:
                raise InputError(f"{where}: video '{video}': {error}") from None
    return durations


def _subset(path: Path) -> str:
    """The subset that a file's name tells."""
    for word, subset in SUBSETS.items():
        if word in path.name:
            return subset
    raise InputError(f"{path}: expected 'train' or 'validation' in the file's name")


def _merged(paths: list[Path]) -> dict[str, Any]:
    """Database from one JSON per field; segments stand in the same order in both."""
    database: dict[str, Any] = {}
    for path in paths:
        fields = [field for field in ("noun", "verb") if field in path.stem]
        if not fields:
            raise InputError(f"{path}: expected 'noun' or 'verb' in the file's name")
        field = fields[0]
        converted = database_json.convert([path], subsets=JSON_SUBSETS, label_from_id="id_{:03d}")
        for video, entry in converted.items():
            annotations = []
            for annotation in entry["annotations"]:
                annotations.append({"segment": annotation["segment"], field: annotation["label"]})
            if video in database:
                wrong = f"{path}: video '{video}' has other segments than in {paths[0]}"
                annotations = _both(database[video]["annotations"], annotations, wrong)
            database[video] = entry | {"annotations": annotations}
    return database


def _both(
    known: list[dict[str, Any]], more: list[dict[str, Any]], wrong: str
) -> list[dict[str, Any]]:
    """Annotations with the fields of both files; `wrong` says that their segments differ."""
    if [one["segment"] for one in known] != [one["segment"] for one in more]:
        raise InputError(wrong)
    return [{**one, **other} for one, other in zip(known, more, strict=True)]


def seconds(timestamp: str, where: str) -> float:
    """HH:mm:ss.SS -> seconds, to the hundredth of a millisecond that the sum could lose."""
    try:
        hours, minutes, rest = map(number, timestamp.split(":"))
        return round(hours * 3600 + minutes * 60 + rest, 5)
    except ValueError:
        raise InputError(f"{where}: expected a time as HH:mm:ss.SS, found '{timestamp}'") from None


def _label(digits: str, where: str) -> str:
    """A class's number as the published rows write it."""
    try:
        return f"id_{int(number(digits)):03d}"
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
