"""Zip archives of texts, and the checksums that a zip archive has of its parts."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from actionformer.errors import InputError
from actionformer.files.reading import decoded
from actionformer.files.writing import megabytes

# a text of an archive of annotations: the largest published one has 4 MB
LARGEST_TEXT = 200_000_000
# what is read at once of a file that is only checked
BLOCK = 1 << 20
# what `zipfile` raises of damage: NotImplementedError of methods that it doesn't know
BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
)


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


def _refuse_unusual(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    total = 0
    for info in members:
        if info.filename in seen:
            raise InputError(f"{path}: {info.filename} occurs twice; get the archive again")
        seen.add(info.filename)
        total += info.file_size
    if total > LARGEST_TEXT:
        size = f"{megabytes(total)} of text, expected at most {megabytes(LARGEST_TEXT)}"
        raise InputError(f"{path}: holds {size}; get the archive again")
