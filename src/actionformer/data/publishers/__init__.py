"""One module per publisher's annotation format; each gives the one database of `data.annotations`.

Every data set is read in its publisher's own files, and in the JSON that others made of them
(`database_json`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actionformer.data.publishers import (
    charades,
    class_list,
    database_json,
    ego4d,
    epic,
    multithumos,
    thumos14,
)
from actionformer.errors import InputError
from actionformer.files.reading import brings, read_json
from actionformer.params.dataset import Dataset

VIDEO_INFO = "*video_info*.csv"
THUMOS_ZIPS = ("*emporal_annotations_validation.zip", "*emporal_annotations_test.zip")
THUMOS_TEXTS = ("*_val.txt", "*_test.txt")
THUMOS_JSON = "*thumos*14*.json"
EPIC_CSVS = ("EPIC_100_train.csv", "EPIC_100_validation.csv", "EPIC_100_video_info.csv")
CHARADES_CSVS = ("Charades_v1_train.csv", "Charades_v1_test.csv")

# format -> the forms that a folder may hold it in, best first: patterns that must match
FORMS: dict[str, list[tuple[str, ...]]] = {
    "thumos14": [
        (*THUMOS_ZIPS, VIDEO_INFO),
        (*THUMOS_ZIPS, THUMOS_JSON),
        (*THUMOS_TEXTS, VIDEO_INFO),
        (*THUMOS_TEXTS, THUMOS_JSON),
        (THUMOS_JSON,),
    ],
    "multithumos": [
        ("multithumos.zip", VIDEO_INFO),
        ("multithumos.zip", "multithumos_anno*.json"),
        ("annotation*/*.txt", VIDEO_INFO),
        ("multithumos*.json",),
    ],
    "activitynet": [("activity_net*.json",), ("anet1.3*.json",)],
    "hacs": [("HACS_segments*.json",)],
    "epic": [
        EPIC_CSVS,
        ("epic_kitchens*verb.json", "epic_kitchens*noun.json"),
        ("epic_kitchens*.json",),
    ],
    "ego4d": [("moments_train.json", "moments_val.json"), ("ego4d*.json",)],
    "charades": [CHARADES_CSVS, ("charades*.json",)],
    "fineaction": [("annotations_gt*.json",), ("*fineaction*.json",)],
    "database": [("annotations.json",), ("*.json",)],
}
# a form -> patterns of files that belong to it, where they are there
OPTIONAL: dict[tuple[str, ...], tuple[str, ...]] = {
    ("multithumos*.json",): ("class_ids.json", "class_list.txt"),
    CHARADES_CSVS: ("Charades_v1_classes.txt",),
}


def convert(dataset: Dataset, root: Path) -> dict[str, Any]:
    """The database of a data set from the publisher's files that its params name, under `root`.

    Raises:
        InputError: a missing file, or one that is not in the publisher's format.
    """
    paths = [root / name for name in dataset.annotations]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such annotation file; {brings(path)}")
    lists = {field: root / name for field, name in dataset.class_lists.items()}
    blocked = None if dataset.blocked is None else root / dataset.blocked
    return convert_files(dataset, paths, class_lists=lists, blocked=blocked)


def convert_folder(
    dataset: Dataset, folder: Path, video_info: Path | None = None
) -> dict[str, Any]:
    """The database of a data set from whatever form of its annotations a folder holds.

    Class lists (`category_idx*.txt`) and the blocked list (`blocked.json`) are used where they are.

    Args:
        video_info: csv or JSON of durations, for THUMOS-14 and MultiTHUMOS, whose own files lack
            them.
    """
    if folder.is_file():
        paths = [folder] if video_info is None else [folder, video_info]
    elif folder.is_dir():
        paths = found_in(folder, dataset.format, video_info)
    else:
        raise InputError(f"{folder}: no such folder or file")
    class_lists = {}
    for path in sorted(folder.rglob("category_idx*.txt")):
        fields = [field for field in ("noun", "verb") if field in path.stem]
        class_lists[fields[0] if fields else "label"] = path
    blocked = sorted(folder.rglob("blocked.json"))
    first_blocked = blocked[0] if blocked else None
    return convert_files(dataset, paths, class_lists=class_lists, blocked=first_blocked)


def found_in(folder: Path, form: str, video_info: Path | None = None) -> list[Path]:
    """The annotation files of one form in a folder, the publisher's own before others'."""
    for patterns in FORMS[form]:
        matches = []
        for pattern in patterns:
            found = sorted(folder.rglob(pattern))
            if pattern == VIDEO_INFO and video_info is not None:
                found = [video_info]
            matches.append(found)
        if all(matches):
            optional = [sorted(folder.rglob(name)) for name in OPTIONAL.get(patterns, ())]
            return _first_of_each(matches, optional)
    expected = "; or ".join(", ".join(patterns) for patterns in FORMS[form])
    hint = ", or give the durations with --video-info" if VIDEO_INFO in expected else ""
    raise InputError(f"{folder}: no {form} annotations in it; expected {expected}{hint}")


def _first_of_each(needed: list[list[Path]], optional: list[list[Path]]) -> list[Path]:
    """One file per pattern; several where there is one per class."""
    chosen: dict[Path, None] = {}  # in their order, each once
    for found in needed:
        is_per_class = found[0].suffix == ".txt"
        chosen |= dict.fromkeys(found if is_per_class else found[:1])
    for found in optional:
        chosen |= dict.fromkeys(found[:1])
    return list(chosen)


def convert_files(
    dataset: Dataset, paths: list[Path], *, class_lists: dict[str, Path], blocked: Path | None
) -> dict[str, Any]:
    """The database from annotation files of any form, under the protocol of the params."""
    match dataset.format:
        case "thumos14":
            database = thumos14.convert(paths)
        case "multithumos":
            database = multithumos.convert(paths)
        case "epic":
            database = epic.convert(paths)
        case "ego4d":
            database = ego4d.convert(paths)
        case "charades":
            database = charades.convert(paths)
        case "activitynet" | "hacs" | "fineaction" | "database":
            database = database_json.convert(paths)
    for video in dataset.excluded_videos:
        database.pop(video, None)
    if dataset.drop_segments_past_end:
        for entry in database.values():
            entry["annotations"] = _within(entry["annotations"], entry["duration"])
    if not database:
        raise InputError(f"no video in {', '.join(map(str, paths))}")
    content: dict[str, Any] = {"database": database}
    if dataset.format == "database":
        content |= database_json.lists(paths)
    classes = {field: class_list.read(path) for field, path in class_lists.items()}
    if dataset.format == "charades" and not classes:
        listed = charades.class_list(paths)
        classes = {"label": listed} if listed else {}
    if classes:
        content["classes"] = classes["label"] if set(classes) == {"label"} else classes
    if blocked is not None:
        content["blocked"] = _video_names(blocked)
    return content


def _video_names(path: Path) -> list[str]:
    """The list of names that a file holds."""
    names = read_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: expected a list of video names")
    return names


def _within(annotations: list[dict[str, Any]], end: float) -> list[dict[str, Any]]:
    """The instances that start before a time."""
    return [annotation for annotation in annotations if annotation["segment"][0] < end]
