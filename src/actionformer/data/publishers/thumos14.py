"""THUMOS-14 temporal annotations: one text file per class, without durations.

Publisher: THUMOS Challenge 2014, http://crcv.ucf.edu/THUMOS14/ ("Temporal annotations of the 20 classes").
`TH14_Temporal_annotations_validation.zip` holds `annotation/{Class}_val.txt`, `TH14_Temporal_annotations_test.zip`
holds `.../annotation/{Class}_test.txt` (its readme.txt); `Ambiguous_*.txt` marks stretches that the challenge
leaves out. A line is

    video name   start (s)   end (s)          separated by blanks: `video_validation_0000690  13.9 20.3`

Durations are not published with them: a csv `video_id,duration_s,fps,frames` gives them (from the feature archives).
By the field's convention the challenge's validation set is the training subset, its test set the validation subset.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from actionformer.data.annotations import AMBIGUOUS
from actionformer.errors import InputError

SUBSETS = {"video_validation": "training", "video_test": "validation"}
SUFFIXES = ("_val", "_test")


def convert(paths: list[Path], *, drop_past_end: bool) -> dict[str, Any]:
    """Database from zips, folders or text files, and one csv of durations; class files in name order.

    `drop_past_end` leaves out instances that start at or after their video's end, as the published protocol does.
    """
    durations = read_video_info([path for path in paths if path.suffix == ".csv"])
    database: dict[str, Any] = {}
    for path in paths:
        if path.suffix == ".csv":
            continue
        for name, text in sorted(class_files(path)):
            label = PurePosixPath(name).stem
            for suffix in SUFFIXES:
                label = label.removesuffix(suffix)
            if label == AMBIGUOUS:
                continue
            for video, start, end in lines(text, f"{path}: {name}"):
                if video not in durations:
                    raise InputError(f"{path}: {name}: video '{video}' is not in the csv of durations")
                duration, frames = durations[video]
                if drop_past_end and start >= duration:
                    continue
                entry = database.setdefault(video, _entry(video, duration, frames))
                entry["annotations"].append({"segment": [start, end], "label": label})
    return {"database": dict(sorted(database.items()))}


def _entry(video: str, duration: float, frames: float) -> dict[str, Any]:
    subset = next((subset for prefix, subset in SUBSETS.items() if video.startswith(prefix)), None)
    if subset is None:
        raise InputError(f"video '{video}': expected a name that begins with {' or '.join(SUBSETS)}")
    return {"subset": subset, "duration": duration, "frame": frames, "annotations": []}


def class_files(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of the class files of a zip, a folder or a single file."""
    if path.is_dir():
        for item in path.rglob("*.txt"):
            yield item.name, item.read_text(encoding="utf-8")
    elif path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".txt") and "/annotation" in f"/{name}":
                        yield name, archive.read(name).decode("utf-8")
        except (zipfile.BadZipFile, OSError, zlib.error) as error:
            raise InputError(f"{path}: corrupt or truncated archive ({error}); delete it and fetch it again") from None
    else:
        yield path.name, path.read_text(encoding="utf-8")


def lines(text: str, where: str) -> Iterator[tuple[str, float, float]]:
    """(video, start, end) of every line of a class file."""
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            video, start, end = fields[0], float(fields[1]), float(fields[2])
        except (IndexError, ValueError):
            raise InputError(f"{where}, line {number}: expected 'video start end', found '{line.strip()}'") from None
        yield video, start, end


def read_video_info(paths: list[Path]) -> dict[str, tuple[float, float]]:
    """Video -> (duration in seconds, number of frames)."""
    if len(paths) != 1:
        raise InputError(f"expected one csv of durations (video_id,duration_s,fps,frames), found {len(paths)}")
    with paths[0].open(newline="", encoding="utf-8") as file:
        try:
            return {row["video_id"]: (float(row["duration_s"]), float(row["frames"])) for row in csv.DictReader(file)}
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{paths[0]}: expected columns video_id,duration_s,fps,frames ({error})") from None
