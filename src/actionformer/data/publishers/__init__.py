"""One module per publisher's annotation format; each gives the one database of `data.annotations`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actionformer.data.publishers import activitynet, charades, ego4d, epic, multithumos, thumos14
from actionformer.errors import InputError
from actionformer.experiment import Dataset
from actionformer.files import read_json


def convert(dataset: Dataset, root: Path) -> dict[str, Any]:
    """The database of a data set from the publisher's files under `root`.

    Raises:
        InputError: a missing file, or one that is not in the publisher's format.
    """
    paths = [root / name for name in dataset.annotations]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such annotation file; `dvc pull` or the fetch rule brings it")
    match dataset.format:
        case "database":
            content = _database(paths)
        case "thumos14":
            content = thumos14.convert(paths, drop_past_end=dataset.drop_segments_past_end)
        case "multithumos":
            content = multithumos.convert(paths)
        case "activitynet" | "hacs" | "fineaction":
            content = activitynet.convert(paths)
        case "epic":
            content = epic.convert(paths)
        case "ego4d":
            content = ego4d.convert(paths)
        case "charades":
            content = charades.convert(paths)
    for video in dataset.excluded_videos:
        content["database"].pop(video, None)
    if dataset.blocked is not None:
        content["blocked"] = read_json(root / dataset.blocked)
    if not content["database"]:
        raise InputError(f"{root}: no video in {', '.join(dataset.annotations)}")
    return content


def _database(paths: list[Path]) -> dict[str, Any]:
    """Files in our own form, merged."""
    content: dict[str, Any] = {"database": {}}
    for path in paths:
        read = read_json(path)
        if not isinstance(read, dict) or not isinstance(read.get("database"), dict):
            raise InputError(f"{path}: expected a JSON object with the key 'database'")
        content["database"] |= read["database"]
        content |= {key: read[key] for key in ("classes", "blocked") if key in read}
    return content
