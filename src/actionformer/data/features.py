"""Publishers' feature files -> one HDF5 store per feature set; and the store's reader.

A publisher gives one (T, C) array per video, as .npy in a zip, a tar or a folder. A store holds one data set
`videos/NAME` per video in the publisher's dtype and an `index` of lengths (JSON), and has a small manifest beside it:

    {"md5": of the content, "dim": C, "videos": how many, "missing": [videos that the publisher lists as missing],
     "sources": {raw file: md5}}

The manifest stays small, so that Snakemake compares its content and not its time.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.files import atomic_path, read_json, write_json
from actionformer.progress import progress

MISSING_LIST = "missing_files.txt"


def manifest_path(store: Path) -> Path:
    """The manifest beside a store."""
    return store.with_suffix(".json")


def pack(
    source: Path, store: Path, *, dim: int, prefix: str = "", sources: Callable[[], Mapping[str, str]] = dict
) -> dict[str, Any]:
    """Pack a publisher's archive or folder into `store`, one video in memory at a time; returns the manifest.

    `sources` gives the md5s of the raw files, and is asked once the store is complete.

    Raises:
        InputError: a corrupt archive, a member outside the archive's folder, an array that is truncated, pickled,
            not (T, dim), empty or not finite; names the file and the video.
    """
    lengths: dict[str, int] = {}
    digests: dict[str, str] = {}
    missing: list[str] = []
    with atomic_path(store) as part:
        with h5py.File(part, "w", track_order=False) as file:
            for name, content in progress(_members(source), f"pack {source.name}", unit="video"):
                path = PurePosixPath(name)
                if path.name == MISSING_LIST:
                    missing = sorted(line.strip() for line in content.decode().splitlines() if line.strip())
                    continue
                if path.suffix != ".npy":
                    continue
                video = path.stem.removeprefix(prefix)
                if video in lengths:
                    raise InputError(f"{source}: video '{video}' occurs twice; keep one of them")
                array_TC = _array(content, dim, f"{source}: video '{video}' ({name})")
                file.create_dataset(f"videos/{video}", data=array_TC)
                lengths[video] = len(array_TC)
                header = f"{array_TC.dtype.str} {array_TC.shape}".encode()
                digests[video] = hashlib.md5(header + array_TC.tobytes(), usedforsecurity=False).hexdigest()
            file["index"] = json.dumps(dict(sorted(lengths.items())))
        if not lengths:
            raise InputError(f"{source}: no .npy file in it; expected one array per video")
    whole = "".join(f"{video} {digests[video]}\n" for video in sorted(digests))
    manifest = {
        "md5": hashlib.md5(whole.encode(), usedforsecurity=False).hexdigest(),
        "dim": dim,
        "videos": len(lengths),
        "missing": [name.removeprefix(prefix) for name in missing],
        "sources": dict(sources()),
    }
    write_json(manifest_path(store), manifest)
    return manifest


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of an archive or a folder, in name order where that costs nothing."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    if not source.exists():
        raise InputError(f"{source}: no such file; `dvc pull` or the fetch rule brings it")
    try:
        yield from _zip_members(source) if zipfile.is_zipfile(source) else _tar_members(source)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{source}: corrupt or truncated archive ({error}); delete it and fetch it again") from None


def _zip_members(source: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield _inside(info.filename, source), archive.read(info)


def _tar_members(source: Path) -> Iterator[tuple[str, bytes]]:
    """Members of a tar, compressed or not, read to the very end: the compression's checksum stands there."""
    openers = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener: Any = openers.get(source.suffix, open)
    with opener(source, "rb") as stream:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = _inside(member.name, source)
                reader = archive.extractfile(member) if member.isfile() else None
                if reader is None:
                    raise InputError(f"{source}: member '{name}' is not a plain file; get the archive again")
                yield name, reader.read()
        while rest := stream.read(1 << 20):
            if rest.strip(b"\0"):
                raise tarfile.TarError("something that is no member follows the last one")


def _inside(name: str, source: Path) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{source}: member '{name}' lies outside the archive's folder; don't use this archive")
    return name


def _array(content: bytes, dim: int, where: str) -> NDArray[Any]:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{where}: not a complete .npy array ({error}); fetch it again") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{where}: an archive of arrays, expected one .npy array")
    if array.ndim != 2 or array.shape[1] != dim:
        raise InputError(f"{where}: shape {array.shape}, expected (steps, {dim}); check the feature set's 'dim'")
    if len(array) == 0 or array.dtype.kind != "f":
        raise InputError(f"{where}: {len(array)} steps of type {array.dtype}, expected floats and at least one step")
    if not np.isfinite(array).all():
        raise InputError(f"{where}: contains NaN or infinite values")
    return np.ascontiguousarray(array)


class FeatureStore(Mapping[str, Any]):
    """Video -> its features (T, C), sliced lazily from the store. Safe with many readers; open one per process."""

    def __init__(self, store: Path) -> None:
        self.path = store
        try:
            self._file = h5py.File(store, "r")
            self.lengths: dict[str, int] = json.loads(self._file["index"][()])
        except (OSError, KeyError) as error:
            raise InputError(f"{store}: not readable ({error}); delete it and pack it again") from None
        self._videos = self._file["videos"]

    def __getitem__(self, video: str) -> Any:
        return self._videos[video]

    def __iter__(self) -> Iterator[str]:
        return iter(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __contains__(self, video: object) -> bool:
        return video in self.lengths


def read_manifest(store: Path) -> dict[str, Any]:
    """The manifest of a store."""
    return dict(read_json(manifest_path(store)))
