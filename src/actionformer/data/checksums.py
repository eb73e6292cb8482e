"""What is remembered of the files in a data set's folder: checksums.json.

Which source gave a file, and which md5 it had when a stage had first read it to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from actionformer.files.reading import read_object
from actionformer.files.writing import write_json

RECORD = "checksums.json"


def recorded(folder: Path) -> dict[str, dict[str, str]]:
    """File name -> which source gave it and, once it was read to its end, its md5.

    Of the files of a data set's folder.
    """
    path = folder / RECORD
    return dict(read_object(path)) if path.exists() else {}


def record_source(folder: Path, name: str, source: str) -> None:
    """Remember where a file came from.

    Its md5 isn't yet what the file must have: an archive that came truncated would be right for
    ever, and the whole one wrong.
    """
    entries = recorded(folder)
    if "md5" not in entries.get(name, {}):
        _write_record(folder, entries | {name: {"source": source}})


def record_md5(folder: Path, name: str, md5: str) -> None:
    """Remember what a file was that was read to its end, the first time."""
    entries = recorded(folder)
    known = entries.get(name, {"source": "put there by hand"})
    if "md5" not in known:
        _write_record(folder, entries | {name: {"md5": md5, **known}})


def _write_record(folder: Path, entries: Mapping[str, Mapping[str, str]]) -> None:
    write_json(folder / RECORD, dict(sorted(entries.items())))
