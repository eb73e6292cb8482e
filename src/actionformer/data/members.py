"""The files of a folder or an archive (zip, tar), one after the other and not unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from actionformer.errors import InputError
from actionformer.files.archives import BROKEN_ZIP
from actionformer.files.md5 import files_of
from actionformer.files.reading import brings

# how files begin: h5, zip, and what is compressed
BEGINS_HDF5 = b"\x89HDF\r\n\x1a\n"
BEGINS_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# how names end: of files with arrays, of those with several, of archives, of what is never read
ARRAYS = (".npy", ".npz", ".pt", ".pth")
HDF5 = (".h5", ".hdf5")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")
PICKLES = (".pkl", ".pickle")
# what features are made from
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
_BROKEN = (*BROKEN_ZIP, tarfile.TarError, lzma.LZMAError)
# bytes of a video's features: at 2,048 channels and 4 steps a second, 17 hours
LARGEST = 2_000_000_000
# zeros after the last member of a tar: a block of the largest size that tar pads to
LONGEST_END = 100_000_000
# what is said of a file that holds Python objects
PICKLED = (
    "pickled, which can run code and is not read; where you trust it: "
    'python -c "import numpy, pickle, sys; '
    "numpy.save(sys.argv[1] + '.npy', "
    "numpy.asarray(pickle.load(open(sys.argv[1], 'rb')), 'float32'))\" FILE"
)


@dataclass(frozen=True)
class Member:
    """One file of an archive or folder; `open` gives its bytes, and can be left uncalled."""

    source: Path
    name: str
    # bytes, as the archive has it
    size: int
    open: Callable[[], IO[bytes]]

    @classmethod
    def of_file(cls, path: Path, source: Path | None = None, name: str = "") -> Member:
        """A file that lies by itself, or in a folder `source`; `name`, if not its own."""
        return cls(source or path, name or path.name, path.stat().st_size, lambda: path.open("rb"))

    def read(self) -> bytes:
        """All of it; archives check their checksums here."""
        refuse_huge(self.size, f"{self.source}: {self.name}")
        with _complete(self.source), self.open() as file:
            return file.read()


def refuse_huge(size: int, where: str) -> None:
    """Refuse what says of itself that it is larger than any video's features."""
    if size > LARGEST:
        wanted = f"expected at most {LARGEST / 1e9:g} GB for the features of a video"
        raise InputError(f"{where}: holds {size / 1e9:,.1f} GB, {wanted}")


def members(source: Path) -> Iterator[Member]:
    """Every file of a folder or an archive, or the file itself.

    In the order of names, where that costs nothing.

    Raises:
        InputError: no such file, one of another kind, a corrupt or truncated archive, a member that
            lies outside the archive's folder.
    """
    if source.is_dir():
        for path in files_of(source):
            name = path.relative_to(source).as_posix()
            yield Member.of_file(path, source, name)
        return
    if not source.exists():
        raise InputError(f"{source}: no such file; {brings(source)}")
    with source.open("rb") as file:
        start = file.read(8)
    # by its first bytes: an archive of archives would pass for what it holds
    if start.startswith(BEGINS_HDF5):
        yield Member.of_file(source, name=source.with_suffix(".h5").name)
        return
    _refuse_what_is_no_archive(source, start)
    with _complete(source):
        if start.startswith(BEGINS_ZIP):
            yield from _zip_members(source)
        else:
            yield from _tar_members(source, start)


def _refuse_what_is_no_archive(source: Path, start: bytes) -> None:
    """One line that says what a file is, where its name and its first bytes are no archive's."""
    suffix = source.suffix.lower()
    if suffix in VIDEOS:
        wrong = "a video; what is read are features, one (steps, channels) array per video"
        raise InputError(
            f"{source}: {wrong}, which `actionformer extract` makes of it (docs/video.md)"
        )
    if suffix in PICKLES:
        raise InputError(f"{source}: {PICKLED}")
    packed = start.startswith((*BEGINS_ZIP, *_COMPRESSED))
    if packed or suffix in ARCHIVES or tarfile.is_tarfile(source):
        return
    wanted = "expected npy, npz, pt or h5, or a zip, a tar or a folder of these"
    raise InputError(f"{source}: not features that are read here; {wanted}")


def is_of_macos(path: PurePosixPath) -> bool:
    """Is this what macOS adds to archives?"""
    return "__MACOSX" in path.parts or path.name.startswith("._")


def holds_videos(path: Path) -> bool:
    """Is this a video, or a folder that holds videos?

    Raises:
        InputError: a folder that holds features, too.
    """
    if not path.is_dir():
        return path.suffix.lower() in VIDEOS
    kinds = {file.suffix.lower() for file in files_of(path)}
    if not kinds & set(VIDEOS):
        return False
    if kinds & {*ARRAYS, *HDF5}:
        raise InputError(f"{path}: holds videos and features; give one kind at a time")
    return True


@contextmanager
def _complete(source: Path) -> Iterator[None]:
    """Says of any failure to read an archive that the archive is broken."""
    try:
        yield
    except _BROKEN as error:
        wrong = f"corrupt or truncated archive ({error})"
        raise InputError(f"{source}: {wrong}; delete it and fetch it again") from None


def _zip_members(source: Path) -> Iterator[Member]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                name = _inside(info.filename, source)
                # compares its name in the archive's list with that before its content: a changed
                # one would make it something that nobody reads
                archive.open(info).close()
                yield Member(source, name, info.file_size, partial(archive.open, info))


def _tar_members(source: Path, start: bytes) -> Iterator[Member]:
    """Members of a tar, compressed or not."""
    opener: Any = open
    for magic, decompressing in _COMPRESSED.items():
        if start.startswith(magic):
            opener = decompressing
    with opener(source, "rb") as stream:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = _inside(member.name, source)
                reader = archive.extractfile(member) if member.isfile() else None
                if reader is None:
                    wrong = f"member '{name}' is not a plain file; get the archive again"
                    raise InputError(f"{source}: {wrong}")
                # one that nobody reads is decompressed all the same, on the way to the next
                refuse_huge(member.size, f"{source}: {name}")
                yield Member(source, name, member.size, partial(_itself, reader))
                # it would keep a record of every member
                archive.members = []  # type: ignore[attr-defined]
        # to the very end: the checksum of the compression stands there
        after = 0
        while rest := stream.read(1 << 20):
            after += len(rest)
            if rest.strip(b"\0") or after > LONGEST_END:
                raise tarfile.TarError("something that is no member follows the last one")


def _itself(stream: IO[bytes]) -> IO[bytes]:
    return stream


def _inside(name: str, source: Path) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        wrong = f"member '{name}' lies outside the archive's folder"
        raise InputError(f"{source}: {wrong}; don't use this archive")
    return name
