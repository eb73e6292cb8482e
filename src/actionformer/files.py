"""Files: written whole or not at all, read in one line's words where something is wrong; checksums.

The one reader of every text format stands here, so that damage of any kind (nesting without end,
numbers of 5,000 digits, a key that stands twice, encrypted archives) is one line wherever it comes.
Arrays are read by `data.feature_files`, weights by `training.checkpoint`.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

import orjson
from filelock import FileLock

from actionformer.errors import InputError

# a text of an archive of annotations: the largest published one has 4 MB
LARGEST_TEXT = 200_000_000
# a number as text: float() would take `1_0` and the digits of every script
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# names of temporary files of one target, for as many processes that write it at the same time
AT_ONCE = 8
# what is read at once of a file that is only checked
BLOCK = 1 << 20
# what a full disk refuses bytes for, and reading never fails for
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# and what else it may refuse them for
REFUSED = (*NO_ROOM, errno.EIO, errno.EROFS)
# what a formula begins with; not "-", with which names of videos begin
FORMULA = ("=", "+", "@", "\t", "\r")
# of a JSON text, the end of every key; at times of a value that begins with a colon
KEY_END = re.compile(rb'"\s*:')


# ----------------------------------------------------------------------------------------- writing


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
            f"{target}: needs {_megabytes(size)}, {_megabytes(free)} are free there; "
            "free some, then run the same command again"
        )


def not_written(target: Path, error: OSError) -> OSError | NoRoom:
    """What to say of a write that failed; an error about another file stays as it is."""
    if error.errno not in REFUSED or error.filename is not None:
        return error
    reason, todo = os.strerror(error.errno), "see to the disk"
    if error.errno in NO_ROOM:
        free = shutil.disk_usage(target.parent).free
        reason, todo = f"{reason}; {_megabytes(free)} are free there", "free some"
    return NoRoom(f"{target}: not written ({reason}); {todo}, then run the same command again")


def _megabytes(size: int) -> str:
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


# ----------------------------------------------------------------------------------------- reading


def read_bytes(path: Path) -> bytes:
    """The content of a file, or one line that says why not."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, expected a file") from None
    except ValueError as error:
        raise InputError(f"{str(path)!r}: no name of a file ({error})") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or one line that says why not."""
    return decoded(read_bytes(path), str(path))


def decoded(content: bytes, where: str) -> str:
    """Bytes as UTF-8 text; a mark of the byte order is left out."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not readable as UTF-8 text ({error.reason}); get the file again"
        ) from None


def read_json(path: Path) -> Any:
    """The content of a JSON file, or one line that says why not.

    A key that stands twice is an error, NaN is not: who checks the content says where it stands.
    """
    text = read_bytes(path)
    try:
        # several times faster than json, and the same value bit for bit
        content = orjson.loads(text)
        if sum(1 for _ in KEY_END.finditer(text)) == _keys_in(content):
            return content
    except orjson.JSONDecodeError:
        pass
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_one_of_each)
        # half of a pair of surrogates is no text, which nothing could write
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except RecursionError:
        reason = "nested too deep"
    except UnicodeEncodeError:
        reason = "a string holds half of a character"
    # json's own and those of digits without end are ValueErrors
    except ValueError as error:
        reason = str(error)
    raise InputError(f"{path}: not readable as JSON ({reason}); get the file again")


def _keys_in(content: Any) -> int:
    """How many keys the objects of a JSON value have in all."""
    count = 0
    level = [content]
    # level by level: value by value it would take as long as reading them
    while level:
        objects = [value for value in level if type(value) is dict]
        lists = [value for value in level if type(value) is list]
        count += sum(map(len, objects))
        below = chain(chain.from_iterable(map(dict.values, objects)), chain.from_iterable(lists))
        level = [value for value in below if type(value) in (dict, list)]
    return count


def _one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice in one object")
            seen.add(key)
    return content


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """The object that a JSON file holds, with at least these keys."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, expected a JSON object")
    for key in keys:
        if key not in content:
            raise InputError(f"{path}: lacks the key '{key}'; make or get the file again")
    return content


def read_table(
    path: Path, columns: Sequence[str], *, empty: bool = False
) -> list[tuple[str, dict[str, str]]]:
    """Lines of a csv file with a header: where each stands, for messages, and its values.

    Raises:
        InputError: a column that isn't there, no line (unless it may be `empty`), one with too few
            or too many values.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    lines = []
    try:
        named = reader.fieldnames or []
        twice = [column for column, count in Counter(named).items() if count > 1]
        if twice:
            raise InputError(f"{path}: the column {twice[0]!r} stands twice; get the file again")
        lacking = [column for column in columns if column not in named]
        if lacking:
            wanted = f"expected the columns {', '.join(columns)}"
            raise InputError(f"{path}: {wanted}; missing {', '.join(lacking)}")
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if None in values or None in values.values():
                raise InputError(f"{where}: expected {len(named)} values, as the header has")
            lines.append((where, values))
    except csv.Error as error:
        wrong = f"not readable as csv ({error})"
        raise InputError(f"{path}, line {reader.line_num}: {wrong}; get the file again") from None
    if not lines and not empty:
        raise InputError(f"{path}: no line below its header; get the file again")
    return lines


def csv_cell(value: Any) -> Any:
    """A cell of a csv file; a text that a spreadsheet would run as a formula says that it is text.

    See https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA else value


def read_zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """(name, text) of some members of a zip archive.

    Raises:
        InputError: a damaged or encrypted archive, a member that occurs twice, or one that says of
            itself that it is larger than any text of annotations.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if wanted(info.filename)]
            _refuse_unusual(path, members)
            for info in members:
                yield info.filename, decoded(archive.read(info), f"{path}: {info.filename}")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except BROKEN_ZIP as error:
        wrong = f"corrupt, truncated or encrypted archive ({error})"
        raise InputError(f"{path}: {wrong}; delete it and fetch it again") from None


def check_sums(path: Path | IO[bytes], wanted: Callable[[str], bool]) -> None:
    """Compare parts of a zip archive, such as torch writes, with the checksums that it has of them.

    torch itself reads a file in which a byte has changed as if nothing were wrong. Files of the
    years before it wrote archives have no checksums, and pass.

    Raises:
        BROKEN_ZIP: a part that differs from its checksum, or other damage.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if wanted(info.filename):
                with archive.open(info) as part:
                    while part.read(BLOCK):
                        pass


# what `zipfile` raises of damage: NotImplementedError of methods that it doesn't know
BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
)


def _refuse_unusual(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    total = 0
    for info in members:
        if info.filename in seen:
            raise InputError(f"{path}: {info.filename} occurs twice; get the archive again")
        seen.add(info.filename)
        total += info.file_size
    if total > LARGEST_TEXT:
        size = f"{_megabytes(total)} of text, expected at most {_megabytes(LARGEST_TEXT)}"
        raise InputError(f"{path}: holds {size}; get the archive again")


def number(value: Any) -> float:
    """A finite number from a JSON number or from the text of one.

    Raises:
        ValueError: anything else, also a truth value, which Python takes for 0 or 1.
    """
    if type(value) is float and math.isfinite(value):
        return value  # nearly all are
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {_as_said(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"expected a finite number, found {_as_said(value)}")
    return found


def as_given(value: Any) -> int | float:
    """`number`, but a whole one stays whole: what is written again keeps its digits."""
    found = number(value)
    return value if isinstance(value, int | float) else found


def text_of(value: Any, *, empty: bool = False) -> str:
    """A name or label that is a text, and not empty unless it may be.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, str) or not (empty or value.strip()):
        raise ValueError(f"expected a text, found {_as_said(value)}")
    return value


def items_of(value: Any) -> list[Any]:
    """A list that is one.

    Raises:
        ValueError: anything else, also a text, of which Python would give the letters.
    """
    if not isinstance(value, list):
        raise ValueError(f"expected a list, found {_as_said(value)}")
    return value


def _as_said(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


# --------------------------------------------------------------------------------------- checksums


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
