"""`make croissant`: does mlcroissant take metadata of data sets, and read every record?

Run by the Python of an environment that has it:

    build/mlcroissant/bin/python tests/croissant.py FOLDER...
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import mlcroissant

RECORDS = ("videos", "instances")


def main(folders: list[Path]) -> int:
    """Exit code 0 where all records are there; what mlcroissant refuses, it raises."""
    for folder in folders:
        dataset = mlcroissant.Dataset(folder / "croissant.json")
        for name in RECORDS:
            read = sum(1 for _ in dataset.records(name))
            with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
                there = sum(1 for _ in csv.DictReader(file))
            if read != there or read == 0:
                print(f"{folder}: {read} of {there} {name} read", file=sys.stderr)
                return 1
            print(f"{folder}: all {read} {name} read")
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
