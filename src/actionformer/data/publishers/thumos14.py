"""THUMOS-14 temporal annotations: one text file per class, without durations.

Publisher: THUMOS Challenge 2014, http://crcv.ucf.edu/THUMOS14/ ("Temporal annotations of the 20
classes"). `TH14_Temporal_annotations_validation.zip` holds `annotation/{Class}_val.txt`,
`TH14_Temporal_annotations_test.zip` holds `.../annotation/{Class}_test.txt` (its readme.txt);
`Ambiguous_*.txt` marks stretches that the challenge leaves out. A line is

    video name   start (s)   end (s)      separated by blanks: `video_validation_0000690  13.9 20.3`

Durations are not published with them. They come from a csv `video_id,duration_s,fps,frames`, or
from a JSON database (OpenTAD's `thumos_14_anno.json`, the authors' `thumos14.json`); such a JSON
alone is a whole database, too. By the field's convention the challenge's validation set is the
training subset, its test set the validation subset.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from actionformer.data.annotations import AMBIGUOUS
from actionformer.data.publishers import database_json
from actionformer.errors import InputError
from actionformer.files.archives import read_zip
from actionformer.files.csv_files import read_table
from actionformer.files.reading import read_object, read_text
from actionformer.files.values import number

SUBSETS = {"video_validation": "training", "video_test": "validation"}
INFO_COLUMNS = ("video_id", "duration_s", "frames")
SUFFIXES = ("_val", "_test")


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database from zips, folders or text files and durations; or from a JSON alone.

    Class files count in the order of their names.
    """
    informed = [path for path in paths if path.suffix in (".csv", ".json")]
    classes = [path for path in paths if path not in informed]
    if not classes:
        return _renamed(database_json.convert(informed))
    durations = read_video_info(informed)
    files = []
    for path in classes:
        of_path = [(name, path, text) for name, text in class_files(path)]
        if not of_path:
            raise InputError(f"{path}: no text file of a class in it; get it again")
        files += of_path
    database: dict[str, Any] = {}
    for name, path, text in sorted(files, key=lambda file: file[0]):
        label = PurePosixPath(name).stem
        for suffix in SUFFIXES:
            label = label.removesuffix(suffix)
        if label == AMBIGUOUS:
            continue
        for video, start, end in lines(text, f"{path}: {name}"):
            if video not in durations:
                lacks = f"video '{video}' is not in {informed[0]}, which gives the durations"
                raise InputError(f"{path}: {name}: {lacks}")
            duration, frames = durations[video]
            entry = database.setdefault(video, _entry(video, duration, frames))
            entry["annotations"].append({"segment": [start, end], "label": label})
    return dict(sorted(database.items()))


def _renamed(database: dict[str, Any]) -> dict[str, Any]:
    """The subsets as the published rows call them, which the videos' names tell."""
    return {video: entry | {"subset": _subset(video)} for video, entry in database.items()}


def _subset(video: str) -> str:
    for prefix, subset in SUBSETS.items():
        if video.startswith(prefix):
            return subset
    wanted = f"expected a name that begins with {' or '.join(SUBSETS)}"
    raise InputError(f"video '{video}': {wanted}")


def _entry(video: str, duration: float, frames: float) -> dict[str, Any]:
    return {"subset": _subset(video), "duration": duration, "frame": frames, "annotations": []}


def class_files(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of the class files of a zip, a folder or a single file."""
    if path.is_dir():
        for item in path.rglob("*.txt"):
            yield item.name, read_text(item)
    elif path.suffix == ".zip":
        yield from read_zip(path, _is_class_file)
    else:
        yield path.name, read_text(path)


def _is_class_file(name: str) -> bool:
    """Does a member of an archive hold the segments of a class?"""
    return name.endswith(".txt") and "/annotation" in f"/{name}"


def lines(text: str, where: str) -> Iterator[tuple[str, float, float]]:
    """(video, start, end) of every line of a class file."""
    for place, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            video, start, end = fields[0], number(fields[1]), number(fields[2])
        except (IndexError, ValueError):
            wrong = f"expected 'video start end', found '{line.strip()}'"
            raise InputError(f"{where}, line {place}: {wrong}") from None
        yield video, start, end


def read_video_info(paths: list[Path]) -> dict[str, tuple[float, float]]:
    """Video -> (duration in seconds, number of frames), from the first file that gives them."""
    if not paths:
        raise InputError(
            "durations are missing, which the publisher's text files lack: give a csv "
            "(video_id,duration_s,fps,frames) or a JSON database with --video-info"
        )
    path = paths[0]
    found = {}
    try:
        if path.suffix == ".json":
            for video, entry in read_object(path, "database")["database"].items():
                duration = number(entry["duration"])
                if "frame" in entry:
                    frames = number(entry["frame"])
                else:
                    frames = round(duration * number(entry["fps"]))
                found[video] = (duration, frames)
        else:
            for where, row in read_table(path, INFO_COLUMNS):
                if row["video_id"] in found:
                    raise InputError(f"{where}: video '{row['video_id']}' occurs twice")
                found[row["video_id"]] = (number(row["duration_s"]), number(row["frames"]))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        wanted = "columns video_id,duration_s,fps,frames, or a JSON database with fps"
        raise InputError(f"{path}: expected {wanted} ({error})") from None
    return found
