"""md5 of files, folders and JSON values; of large files, remembered while they stay as they are."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json


def digest(content: Any) -> str:
    """A short name of a JSON value."""
    return hashlib.md5(
        json.dumps(content, sort_keys=True).encode(), usedforsecurity=False
    ).hexdigest()


def files_of(path: Path) -> list[Path]:
    """A file, or all files of a folder in the order of their paths."""
    if not path.is_dir():
        return [path]
    return sorted(item for item in path.rglob("*") if item.is_file())


def file_md5(path: Path) -> str:
    """md5 of a file's content; of a folder: of its sorted relative names and their md5s."""
    if path.is_dir():
        digest = hashlib.md5(usedforsecurity=False)
        for item in files_of(path):
            digest.update(f"{item.relative_to(path).as_posix()} {file_md5(item)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def cached_md5(path: Path, cache: Path) -> str:
    """`file_md5`, remembered by path, size, mtime and inode: large files are read once."""
    stamp = _stamp(path)
    known = _read_cache(cache).get(str(path))
    if isinstance(known, list) and known[:1] == [stamp]:
        return str(known[1])
    md5 = file_md5(path)
    _remember(path, stamp, md5, cache)
    return md5


def remember(path: Path, md5: str, cache: Path) -> None:
    """Let `cached_md5` know what a file's md5 is."""
    _remember(path, _stamp(path), md5, cache)


def _remember(path: Path, stamp: list[list[Any]], md5: str, cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache.with_suffix(".lock")):
        write_json(cache, _read_cache(cache) | {str(path): [stamp, md5]})


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    # a damaged one is made anew
    with suppress(InputError):
        return read_object(cache)
    return {}


def _stamp(path: Path) -> list[list[Any]]:
    stamps = []
    for item in files_of(path):
        status = item.stat()
        stamps.append([str(item), status.st_size, status.st_mtime_ns, status.st_ino])
    return stamps
