"""One HDF5 store per feature set, packed from the publisher's files; and the store's reader.

A store holds one data set `videos/NAME` per video in the publisher's dtype (double becomes single),
in chunks of some 256 steps and at most 1,024 channels, and an `index` of lengths (JSON). A small
manifest lies beside it:

    {"md5": of the content, "dim": C, "videos": how many, "sources": {raw file: md5},
     "missing": [videos that the publisher lists as missing],
     "made_with": what makes it up to date,
     "extractor": {"extractor", "identity", "weights_md5"} of features that say so}

The manifest stays small, so that Snakemake compares its content and not its time.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from actionformer.data.extracted import DESCRIPTION, Description, agreed, as_text, parsed
from actionformer.data.feature_files import MISSING_LIST, Form, Loaded, features_in, missing_list
from actionformer.data.members import members, refuse_huge
from actionformer.errors import InputError
from actionformer.files.md5 import files_of
from actionformer.files.reading import read_object
from actionformer.files.writing import NoRoom, needs_room, not_written, put_in_place, write_json
from actionformer.progress import progress

# A crop reads whole chunks: smaller ones are more calls, larger ones more bytes that nobody wants.
# MultiTHUMOS' RGB row reads the first 1,024 of 2,048 channels.
CHUNK_STEPS, CHUNK_CHANNELS = 256, 1024
# how much may have to be packed again after an interruption
FLUSH_BYTES = 64_000_000
# bytes that a store and its journal take beside a video
ROOM_BESIDE = 4_000_000
# what HDF5 says of damage
_DAMAGED = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError)


def manifest_path(store: Path) -> Path:
    """The manifest beside a store."""
    return store.with_suffix(".json")


def pack(
    source: Path,
    store: Path,
    *,
    dim: int,
    prefix: str = "",
    suffix: str = "",
    transposed: bool = False,
    arrays: Sequence[str] = (),
    sources: Callable[[], Mapping[str, str]] = dict,
    made_with: Callable[[Mapping[str, str]], Mapping[str, Any]] = dict,
    check: Callable[[Description], None] = lambda description: None,
) -> dict[str, Any]:
    """Pack a publisher's archive, folder or file into a store; returns the manifest.

    One video is in memory at a time. Interrupted, the next call goes on after the last videos that
    were written out; the manifest is the same.

    Args:
        dim: channels; with the four others as in `params.dataset.FeatureSet`.
        sources: gives the md5s of the raw files; asked once everything is packed.
        made_with: gives, from those, the record of what the store is made with.
        check: is told what features say of themselves, where they do (`data.extracted`).

    Raises:
        InputError: what `feature_files` raises, a video that occurs twice, no features at all, or
            another process that packs the same store.
        NoRoom: a full disk. The store that was there stays; the next call goes on.
    """
    form = Form(dim, prefix, suffix, transposed, arrays)
    store.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.with_name(f".{store.name}.lock"))
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{store}: another process packs it; wait for it, or end it") from None
    with held:
        partial = _Partial(store, _stamp(source, form))
        try:
            missing = _pack_members(source, partial, form)
            made_from = dict(sources())
            description = partial.description()
            if description is not None:
                check(description)
            digests = partial.finish()
        except NoRoom:
            partial.keep()
            raise
        except InputError:
            partial.discard()  # what is wrong with the source will have to be mended first
            Path(lock.lock_file).unlink(missing_ok=True)
            raise
        except BaseException:
            partial.keep()
            raise
        manifest_path(store).unlink(missing_ok=True)  # it must never lie beside another store
        partial.put_in_place()
        Path(lock.lock_file).unlink(missing_ok=True)
    whole = "".join(f"{video} {digests[video]}\n" for video in sorted(digests))
    manifest = {
        "md5": hashlib.md5(whole.encode(), usedforsecurity=False).hexdigest(),
        "dim": dim,
        "videos": len(digests),
        "missing": missing,
        "sources": made_from,
        "made_with": dict(made_with(made_from)),
    }
    if description is not None:
        manifest["extractor"] = description.made_by
    write_json(manifest_path(store), manifest)
    return manifest


def _pack_members(source: Path, partial: _Partial, form: Form) -> list[str]:
    """Add every video that is not there yet; returns those that the publisher lists as missing."""
    missing: list[str] = []
    seen: set[str] = set()
    for member in progress(members(source), f"pack {source.name}", unit="file"):
        if PurePosixPath(member.name).name == MISSING_LIST:
            missing = missing_list(member, form)
            continue
        for features in features_in(member, form):
            video = features.video
            if video in seen:
                raise InputError(f"{source}: video '{video}' occurs twice; keep one of them")
            if not video:
                affixes = " and ".join(f"'{part}'" for part in (form.prefix, form.suffix) if part)
                wrong = f"no video's name is left without {affixes}"
                raise InputError(f"{source}: {member.name}: {wrong}")
            seen.add(video)
            if video not in partial.digests:
                partial.add(video, features.load())
    if not seen:
        wanted = "expected one npy, npz or pt file per video, or h5"
        raise InputError(f"{source}: no features in it; {wanted}")
    return missing


class _Partial:
    """A store in the making: videos beside a journal of those that are safely on disk."""

    def __init__(self, store: Path, stamp: Any) -> None:
        self._store, self._path = store, store.with_name(f".{store.name}.partial")
        self._journal = store.with_name(f".{store.name}.partial.json")
        self.digests: dict[str, str] = {}
        self._pending = 0
        self._stamp = stamp
        self._file: Any = self._reopened()
        if self._file is None:
            self._disk = _Disk(self._path, "w+b")
            self._file = h5py.File(self._disk, "w")

    def _reopened(self) -> h5py.File | None:
        """The file of an interrupted call on the same source, if its journal vouches for it."""
        if not (self._path.exists() and self._journal.exists()):
            return None
        file = None
        try:
            journal = read_object(self._journal)
            if journal["stamp"] == self._stamp:
                self._disk = _Disk(self._path, "r+b")
                file = h5py.File(self._disk, "r+")
                _remove_others(file, journal["digests"])
                if _holds(file, journal["digests"]):
                    self.digests = dict(journal["digests"])
                    return file
        except (InputError, OSError, KeyError, RuntimeError, TypeError, ValueError):
            pass  # an interruption may leave anything: begin anew
        if file is not None:
            file.close()  # what is open cannot be begun anew
        return None

    def add(self, video: str, loaded: Loaded) -> None:
        array_TC = loaded.features_TC
        needs_room(self._path, array_TC.nbytes + ROOM_BESIDE)
        T, C = array_TC.shape
        # chunks of one size, so that the last isn't mostly empty
        count = math.ceil(T / CHUNK_STEPS)
        chunks = math.ceil(T / count), min(C, CHUNK_CHANNELS)
        stored = self._file.create_dataset(f"videos/{video}", data=array_TC, chunks=chunks)
        if loaded.description is not None:
            stored.attrs[DESCRIPTION] = as_text(loaded.description)
        self._disk.check()
        self.digests[video] = _digest(array_TC)
        self._pending += array_TC.nbytes
        if self._pending > FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        # first the videos, then the journal that vouches for them
        self._file.flush()
        self._disk.check()
        os.fsync(self._disk.fileno())
        write_json(self._journal, {"stamp": self._stamp, "digests": self.digests}, indent=None)
        self._pending = 0

    def keep(self) -> None:
        """Leave what there is for the next call."""
        with suppress(NoRoom):  # what was written out before stays
            self._flush()
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._disk.close()

    def discard(self) -> None:
        self._close()
        self._path.unlink()
        self._journal.unlink(missing_ok=True)

    def description(self) -> Description | None:
        """What the features say of themselves, if they do: all were made alike."""
        told = []
        for video, stored in self._file["videos"].items():
            if DESCRIPTION in stored.attrs:
                told.append((video, parsed(stored.attrs[DESCRIPTION], f"video '{video}'")))
        if told and len(told) < len(self.digests):
            others = sorted(set(self.digests) - {video for video, _ in told})
            wrong = f"video '{others[0]}' does not say which extractor made it, others do"
            raise InputError(f"{self._store}: {wrong}; extract all videos alike")
        return agreed(told, str(self._store))

    def finish(self) -> dict[str, str]:
        """Write it out; returns the md5 of every video."""
        # sorted, so that the order of an archive changes nothing
        lengths = {video: len(self._file["videos"][video]) for video in sorted(self.digests)}
        self._file["index"] = json.dumps(lengths)
        self._flush()
        return self.digests

    def put_in_place(self) -> None:
        """Make it the store."""
        self._close()
        put_in_place(self._path, self._store)
        self._journal.unlink(missing_ok=True)


class _Disk(io.FileIO):
    """A file for HDF5, which dies of a write that fails (SIGSEGV): so failure is remembered."""

    _failed: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._failed is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._failed = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._failed = error
            return size or 0

    def check(self) -> None:
        """Raise what a write should have raised."""
        if self._failed is not None:
            raise not_written(Path(str(self.name)), self._failed)


def _remove_others(file: h5py.File, digests: Mapping[str, str]) -> None:
    """Remove what the journal does not vouch for: the process ended while it wrote that."""
    if "index" in file:
        del file["index"]
    for video in list(file.get("videos", {})):
        if video not in digests:
            del file["videos"][video]


def _holds(file: h5py.File, digests: Mapping[str, str]) -> bool:
    """Are these videos in a file as they were written?"""
    return all(_digest(file["videos"][video][()]) == md5 for video, md5 in digests.items())


def _digest(array_TC: NDArray[Any]) -> str:
    # equal bytes of another dtype or shape are other features
    header = f"{array_TC.dtype.str} {array_TC.shape}".encode()
    return hashlib.md5(header + array_TC.tobytes(), usedforsecurity=False).hexdigest()


def _stamp(source: Path, form: Form) -> list[Any]:
    """What an interrupted call and the next must have in common."""
    # sizes and times: the md5 of an archive of hundreds of gigabytes would take an hour
    files = []
    for path in files_of(source):
        if path.exists():
            status = path.stat()
            files.append([str(path), status.st_size, status.st_mtime_ns])
    form_now = asdict(form) | {"arrays": list(form.arrays)}
    return [hashlib.md5(json.dumps(files).encode(), usedforsecurity=False).hexdigest(), form_now]


class FeatureStore(Mapping[str, Any]):
    """Video -> its features (T, C), sliced lazily from the store.

    Safe with many readers; open one per process.
    """

    def __init__(self, store: Path) -> None:
        self.path = store
        try:
            self._file = h5py.File(store, "r")
            self.lengths: dict[str, int] = json.loads(self._file["index"][()])
            self._videos = self._file["videos"]
            if list(map(type, self.lengths.values())) != [int] * len(self._videos):
                raise ValueError("its index doesn't fit its videos")
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise InputError(
                f"{store}: not readable ({error}); delete it and pack it again"
            ) from None

    def __getitem__(self, video: str) -> Any:
        return self._videos[video]

    def array(self, video: str) -> NDArray[Any]:
        """All of a video's features; of a damaged store one line that says so."""
        try:
            found = self._videos[video]
            refuse_huge(found.size * found.dtype.itemsize, f"{self.path}: video '{video}'")
            return np.asarray(found)
        except _DAMAGED as error:
            raise self._not_readable(video, error) from None

    def _not_readable(self, video: str, error: Exception) -> InputError:
        wrong = f"video '{video}' is not readable ({error})"
        return InputError(f"{self.path}: {wrong}; delete it and pack it again")

    def descriptions(self) -> dict[str, Description]:
        """Video -> what its features say of themselves, of those that do."""
        found = {}
        for video in self.lengths:
            try:
                told = self._videos[video].attrs.get(DESCRIPTION)
            except _DAMAGED as error:
                raise self._not_readable(video, error) from None
            if told is not None:
                found[video] = parsed(told, f"{self.path}: video '{video}'")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __contains__(self, video: object) -> bool:
        return video in self.lengths


def read_manifest(store: Path) -> dict[str, Any]:
    """The manifest of a store."""
    return read_object(manifest_path(store), "md5", "missing", "sources")
