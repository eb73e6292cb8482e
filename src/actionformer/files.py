"""Writing files so that a reader sees the old one or the new one, never half of it; checksums."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock

from actionformer.errors import InputError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path that becomes `target` on success and disappears on failure."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        # mkstemp makes files that only their owner can read
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        # a power loss must not leave an empty file under the final name
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(target: Path, content: bytes) -> None:
    with atomic_path(target) as part:
        part.write_bytes(content)


def write_json(target: Path, content: Any, *, indent: int | None = 1) -> None:
    write_text(target, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or one line that says why not."""
    try:
        text = path.read_bytes()
        try:
            # several times faster than json, and the same value bit for bit
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            # json takes NaN: whoever checks the content says in one line where it stands
            return json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, expected a JSON file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); get the file again") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or one line that says why not."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not readable as UTF-8 text ({error}); get the file again"
        ) from None


def digest(content: Any) -> str:
    """A short name of a JSON value."""
    return hashlib.md5(
        json.dumps(content, sort_keys=True).encode(), usedforsecurity=False
    ).hexdigest()


def brings(path: Path) -> str:
    """What to do about a file that isn't there: the project's own come by themselves."""
    if path.parts[:1] == ("data",):
        return "`dvc pull` or the fetch rule brings it"
    return "check the path"


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
    if known is not None and known[0] == stamp:
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
    try:
        entries: dict[str, list[Any]] = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return entries


def _stamp(path: Path) -> list[list[Any]]:
    stamps = []
    for item in files_of(path):
        status = item.stat()
        stamps.append([str(item), status.st_size, status.st_mtime_ns, status.st_ino])
    return stamps
