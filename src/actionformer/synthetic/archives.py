"""Files in the publishers' containers, with the same bytes wherever they are written."""

from __future__ import annotations

import csv
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from actionformer.files.writing import atomic_path, write_text
from actionformer.progress import progress
from actionformer.synthetic.recordings import Array, Recording
from actionformer.synthetic.release import Extractor, Release

# bytes of a block that deflate stores as it is
STORED = 65535

# a member's name and its content; they come in the order of their names
Members = Iterable[tuple[str, bytes]]


def write_archive(path: Path, members: Members) -> None:
    """A zip or a tar.gz, whichever the path is called; one member is in memory at a time."""
    if path.suffix == ".zip":
        _write_zip(path, members)
    else:
        _write_tar_gz(path, members)


def _write_zip(path: Path, members: Members) -> None:
    """A zip without compression (whose bytes would depend on the library) and with fixed times."""
    with atomic_path(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)


def _write_tar_gz(path: Path, members: Members) -> None:
    """A tar.gz of stored (uncompressed) blocks with fixed times and owners."""
    with atomic_path(path) as part, part.open("wb") as file:
        stored = _Stored(file)
        stream = cast(BinaryIO, stored)  # it is written to, and that is all
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o644
                archive.addfile(info, io.BytesIO(content))
        stored.finish()


class _Stored:
    """A gzip file that is written to, of blocks that are stored as they are."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # a header without name and time, then blocks of deflate, then checksum and size
        file.write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
        self._waiting = bytearray()
        self._checksum = self._size = 0

    def write(self, content: bytes) -> int:
        self._checksum = zlib.crc32(content, self._checksum)
        self._size += len(content)
        self._waiting += content
        # one block stays behind: the last has to say that it is the last
        while len(self._waiting) > STORED:
            self._block(bytes(self._waiting[:STORED]), is_last=False)
            del self._waiting[:STORED]
        return len(content)

    def finish(self) -> None:
        self._block(bytes(self._waiting), is_last=True)
        self._file.write(struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF))

    def _block(self, block: bytes, *, is_last: bool) -> None:
        self._file.write(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)


def write_features(
    folder: Path,
    release: Release,
    extractor: Extractor,
    centres: Callable[[Recording], Array],
    *,
    shown: Callable[[Recording], Recording] | None = None,
    prefix: str = "",
    lists_missing: bool = True,
) -> None:
    """A feature archive under `folder`: one npy per video, and the list of those without features.

    Args:
        centres: gives the times of the steps of a recording.
        shown: gives what the features of a recording show, if that is not the recording itself.
        prefix: what the publisher puts before the video's name.
    """
    path = folder / extractor.file
    within = path.name.split(".")[0]

    def npy(recording: Recording) -> bytes:
        visible = recording if shown is None else shown(recording)
        buffer = io.BytesIO()
        array_TC = release.seen(visible, extractor, centres(recording))
        np.lib.format.write_array(buffer, array_TC, version=(1, 0), allow_pickle=False)
        return buffer.getvalue()

    makers: dict[str, Callable[[], bytes]] = {}
    for recording in release.with_features():
        makers[f"{within}/{prefix}{recording.name}.npy"] = partial(npy, recording)
    if lists_missing:
        listed = "".join(f"{prefix}{name}\n" for name in release.missing).encode()
        makers[f"{within}/missing_files.txt"] = lambda: listed
    ordered = progress(sorted(makers), path.name, unit="video", total=len(makers))
    write_archive(path, ((name, makers[name]()) for name in ordered))


def write_json(path: Path, content: Any) -> None:
    """JSON on one line, as publishers write it."""
    write_text(path, json.dumps(content) + "\n")


def write_classes(path: Path, labels: Sequence[str]) -> None:
    """A published class order, `category_idx.txt`: one class per line."""
    write_text(path, "".join(f"{label}\n" for label in sorted(labels)))


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A header and rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())
