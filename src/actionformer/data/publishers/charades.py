"""Charades: one csv per subset and a class list.

Publisher: Allen Institute for AI, https://prior.allenai.org/projects/charades (`Charades.zip`;
README and csv headers). `Charades_v1_train.csv`, `Charades_v1_test.csv`:

    id, subject, scene, quality, relevance, verified, script, objects, descriptions, actions, length

`length` is in seconds; `actions` holds `class start end`, in seconds, separated by semicolons:
`c092 11.90 21.20;c147 0.00 12.60`. `Charades_v1_classes.txt` has one line per class,
`c000 Holding some clothes`. Also read: OpenTAD's `charades.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actionformer.data.publishers import database_json
from actionformer.errors import InputError
from actionformer.files.csv_files import read_table
from actionformer.files.reading import read_text
from actionformer.files.values import number

COLUMNS = ("id", "actions", "length")
SUBSETS = {"_train": "training", "_test": "testing"}


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database from the csv files or the JSON; videos without actions are kept."""
    if all(path.suffix == ".json" for path in paths):
        return database_json.convert(paths)
    database: dict[str, Any] = {}
    for path in paths:
        if path.suffix == ".txt":
            continue
        subset = _subset(path)
        for where, row in read_table(path, COLUMNS):
            video = row["id"]
            if video in database:
                raise InputError(f"{where}: video '{video}' occurs twice; get the files again")
            try:
                database[video] = _entry(row, subset)
            except ValueError as error:
                raise InputError(f"{where}: video '{video}': malformed line ({error})") from None
    return database


def class_list(paths: list[Path]) -> list[str]:
    """Class order of the publisher's list, if it is there."""
    listed = [path for path in paths if path.suffix == ".txt"]
    lines = read_text(listed[0]).splitlines() if listed else []
    return [line.split()[0] for line in lines if line.strip()]


def _subset(path: Path) -> str:
    """The subset that a file's name tells."""
    for ending, subset in SUBSETS.items():
        if path.stem.endswith(ending):
            return subset
    raise InputError(f"{path}: expected a name that ends with {' or '.join(SUBSETS)}")


def _entry(row: dict[str, str], subset: str) -> dict[str, Any]:
    annotations = []
    for action in row["actions"].split(";"):
        if action:
            label, start, end = action.split()
            annotations.append({"segment": [number(start), number(end)], "label": label})
    return {"subset": subset, "duration": number(row["length"]), "annotations": annotations}
