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
from actionformer.files import read_json


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database from the class files (zip, folder or files) and durations, or from a JSON; every
    instance is kept.
    """
    names = [path for path in paths if path.name in ("class_list.txt", "class_ids.json")]
    rest = [path for path in paths if path not in names]
    if len(rest) == 1 and rest[0].suffix == ".json" and "database" not in read_json(rest[0]):
        return _numbered(rest[0], names)
    return thumos14.convert(rest)


def _numbered(path: Path, names: list[Path]) -> dict[str, Any]:
    """Database from the JSON with class numbers."""
    if not names:
        raise InputError(
            f"{path}: has class numbers; expected class_list.txt or class_ids.json beside it, which names them"
        )
    if names[0].suffix == ".json":
        content = read_json(names[0])
        label_of = {
            int(number): str(label) for number, label in content.get("map", content).items()
        }
    else:
        label_of = dict(enumerate(class_list.read(names[0]), 1))
    database: dict[str, Any] = {}
    for video, entry in sorted(read_json(path).items()):
        try:
            annotations = [
                {"segment": [float(start), float(end)], "label": label_of[number]}
                for number, start, end in entry["actions"]
            ]
            subset = "training" if entry["subset"] == "training" else "validation"
            database[video] = {
                "subset": subset,
                "duration": float(entry["duration"]),
                "annotations": annotations,
            }
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: video '{video}': missing or malformed key ({error})"
            ) from None
    return database
