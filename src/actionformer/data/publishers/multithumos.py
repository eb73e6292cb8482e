"""MultiTHUMOS: dense labels of the THUMOS-14 videos, one text file per class.

Publisher: Yeung et al., "Every Moment Counts", IJCV 2018,
http://ai.stanford.edu/~syyeung/everymoment.html (`multithumos.zip`:
`multithumos/annotations/{Class}.txt`, `class_list.txt`, `README`). One file per class for both
subsets; a line is

    video name   start (s)   end (s)          `video_test_0000028 54.77 54.87`

Durations come from the same file as those of THUMOS-14. The name tells the subset, as there. Also
read: OpenTAD's `multithumos_anno.json`, and the JSON with class numbers that temporal-label work
passes around (`{video: {subset, duration, actions: [[number, start, end]]}}`), with the list that
names the numbers beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actionformer.data.publishers import class_list, thumos14
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.values import items_of, number, text_of

# as the JSON with class numbers calls them -> as the published rows do
SUBSETS = {"training": "training", "testing": "validation"}


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database from the class files (zip, folder or files) and durations, or from a JSON.

    Every instance is kept.
    """
    names = [path for path in paths if path.name in ("class_list.txt", "class_ids.json")]
    rest = [path for path in paths if path not in names]
    if len(rest) == 1 and rest[0].suffix == ".json" and "database" not in read_object(rest[0]):
        return _numbered(rest[0], names)
    return thumos14.convert(rest)


def _numbered(path: Path, names: list[Path]) -> dict[str, Any]:
    """Database from the JSON with class numbers."""
    if not names:
        wanted = "expected class_list.txt or class_ids.json beside it, which names them"
        raise InputError(f"{path}: has class numbers; {wanted}")
    label_of = _labels(names[0])
    database: dict[str, Any] = {}
    for video, entry in sorted(read_object(path).items()):
        annotations = []
        try:
            for label, start, end in map(items_of, items_of(entry["actions"])):
                segment = [number(start), number(end)]
                annotations.append({"segment": segment, "label": label_of[label]})
            subset = SUBSETS[text_of(entry["subset"])]
            duration = number(entry["duration"])
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"missing or malformed key ({error})"
            raise InputError(f"{path}: video '{video}': {wrong}") from None
        database[video] = {"subset": subset, "duration": duration, "annotations": annotations}
    return database


def _labels(path: Path) -> dict[int, str]:
    """Number -> class."""
    if path.suffix != ".json":
        return class_list.numbered(path)
    content = read_object(path)
    try:
        return {int(digits): text_of(name) for digits, name in content.get("map", content).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: expected class names by their numbers ({error})") from None
