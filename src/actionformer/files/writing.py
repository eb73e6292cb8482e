"""Files written whole or not at all: a kill, a full disk or a power loss leaves the old one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from actionformer.errors import InputError

# names of temporary files of one target, for as many processes that write it at the same time
AT_ONCE = 8
# what a full disk refuses bytes for, and reading never fails for
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# and what else it may refuse them for
REFUSED = (*NO_ROOM, errno.EIO, errno.EROFS)


class NoRoom(InputError):
    """A file that the disk didn't take; what was there before still is."""


@contextmanager
def atomic_path(target: Path, size: int = 0) -> Iterator[Path]:
    """A temporary path that becomes `target` on success and disappears on failure.

    A link is replaced, never what it points to. What is no file but a device or a pipe, such as
    /dev/stdout, is written to. What a killed process has left goes with the next call.

    Args:
        size: bytes that the file will have, as far as that is known: refused beforehand where the
            disk has less.

    Raises:
        NoRoom: the disk is full or fails.
        InputError: the target is a folder.
    """
    if _is_stream(target):
        with _streamed(target) as part:
            yield part
        return
    if target.is_dir() and not target.is_symlink():
        raise InputError(f"{target}: a folder, expected the name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    needs_room(target, size)
    handle, part = _new_part(target)
    try:
        yield part
        # mkstemp makes files that only their owner can read
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        put_in_place(part, target)
    except OSError as error:
        raise not_written(target, error) from None
    finally:
        # once it is in its place, another process may have one of this name
        if _is_still(handle, part):
            part.unlink()
        os.close(handle)


def put_in_place(part: Path, target: Path) -> None:
    """Give a finished file its name, so that a power loss leaves the old one or the new one.

    Also a folder or a link, of which the names alone are synced.

    Raises:
        NoRoom: the disk fails.
    """
    try:
        if part.is_file() and not part.is_symlink():
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise not_written(target, error) from None
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # some network file systems sync no folders
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def needs_room(target: Path, size: int) -> None:
    """Refuse what doesn't fit on the disk before it begins.

    Raises:
        NoRoom: fewer than `size` bytes are free where the target will lie.
    """
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise NoRoom(
            f"{target}: needs {megabytes(size)}, {megabytes(free)} are free there; "
            "free some, then run the same command again"
        )


def not_written(target: Path, error: OSError) -> OSError | NoRoom:
    """What to say of a write that failed; an error about another file stays as it is."""
    if error.errno not in REFUSED or error.filename is not None:
        return error
    reason, todo = os.strerror(error.errno), "see to the disk"
    if error.errno in NO_ROOM:
        free = shutil.disk_usage(target.parent).free
        reason, todo = f"{reason}; {megabytes(free)} are free there", "free some"
    return NoRoom(f"{target}: not written ({reason}); {todo}, then run the same command again")


def megabytes(size: int) -> str:
    """How messages name a size."""
    return f"{size / 1e6:,.1f} MB"


def _is_stream(target: Path) -> bool:
    """Is this a device, a pipe, or a name for one, which nothing may replace?"""
    # `..` in it, and links to its folder, are followed; the last name is not
    target = target.parent.resolve() / target.name
    # /dev/stdout is a link, which leads to a plain file where a shell sends it to one
    if target.absolute().parts[1:2] in (("dev",), ("proc",)) and target.exists():
        return not target.is_dir() and not _is_shared_memory(target)
    if not target.exists():
        return False
    mode = target.stat().st_mode
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _is_shared_memory(target: Path) -> bool:
    """Does this lie in the file system of memory that Linux has under /dev?"""
    return target.absolute().parts[1:3] == ("dev", "shm")


@contextmanager
def _streamed(target: Path) -> Iterator[Path]:
    """A temporary path whose content goes to a device or a pipe in the end."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / target.name
        yield part
        with part.open("rb") as content, target.open("ab", buffering=0) as stream:
            shutil.copyfileobj(content, stream)


def _new_part(target: Path) -> tuple[int, Path]:
    """An empty temporary file beside the target, locked for as long as the handle is open.

    The first of a few names that no other process has locked: what a killed one has left is then
    written over by the next, or removed by it, without a look at all that lies in the folder.
    """
    parts = [target.with_name(f".{target.name}.{number}.part") for number in range(AT_ONCE)]
    for number, part in enumerate(parts):
        handle = _locked(part)
        if handle is not None:
            for left in parts[number + 1 :]:
                _remove_abandoned(left)
            return handle, part
    # more writers at once than names, or a file system without locks
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    return handle, Path(name)


def _locked(part: Path) -> int | None:
    """Open and lock a temporary file, and empty it; None where another process has it."""
    try:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None  # another user's, or a link
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        part.unlink(missing_ok=True)  # a file system without locks
        os.close(handle)
        return None
    if not _is_still(handle, part):
        os.close(handle)
        return None
    os.ftruncate(handle, 0)
    return handle


def _is_still(handle: int, part: Path) -> bool:
    """Is an open file the one that lies there, and a plain one with no other name?

    Whoever had it locked may have moved it into its place meanwhile.
    """
    opened = os.fstat(handle)
    try:
        there = part.lstat()
    except FileNotFoundError:
        return False
    is_plain = stat.S_ISREG(opened.st_mode) and opened.st_nlink == 1
    return is_plain and os.path.samestat(opened, there)


def _remove_abandoned(part: Path) -> None:
    """Remove what a killed process has left: a temporary file that nobody has locked."""
    try:
        handle = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # there is none
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_still(handle, part):
            part.unlink()
    os.close(handle)


def write_text(target: Path, text: str) -> None:
    write_bytes(target, text.encode("utf-8"))


def write_bytes(target: Path, content: bytes) -> None:
    with atomic_path(target, len(content)) as part:
        part.write_bytes(content)


def write_json(target: Path, content: Any, *, indent: int | None = 1) -> None:
    write_text(target, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")
