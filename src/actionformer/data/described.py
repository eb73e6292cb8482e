"""What feature files that `extract` has written say of themselves, wherever they lie."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import h5py

from actionformer.data.array_files import NPY, arrays_in, data_sets, opened_hdf5, text_in
from actionformer.data.extracted import DESCRIPTION, Description, parsed
from actionformer.data.members import ARRAYS, HDF5, Member, is_of_macos, members
from actionformer.files.md5 import files_of


def described(path: Path) -> Description | None:
    """What a feature file that `extract` has written says of itself; None of any other.

    Raises:
        InputError: a damaged file.
    """
    if path.is_file() and h5py.is_hdf5(path):
        told = (description for description in _described_hdf5(path) if description is not None)
        return next(told, None)
    if path.suffix != ".npz":
        return None
    with path.open("rb") as stream:
        return _described_npz(stream, str(path))


def description_in(source: Path) -> Description | None:
    """What the first array of a folder, an archive or a file says of itself, if it does."""
    return next(descriptions_in(source), None)


def descriptions_in(source: Path) -> Iterator[Description | None]:
    """What the arrays of a folder, an archive or a file say of themselves, one after the other."""
    if source.is_dir():
        for path in files_of(source):
            if path.suffix in (*ARRAYS, *HDF5) and not is_of_macos(PurePosixPath(path.name)):
                yield from descriptions_in(path)
    elif source.is_file() and h5py.is_hdf5(source):
        yield from _described_hdf5(source)
    elif source.suffix in ARRAYS:
        yield described(source)
    else:
        for member in members(source):
            name = PurePosixPath(member.name)
            if name.suffix in ARRAYS and not is_of_macos(name):
                # as a whole: to look for its end would unpack an archive from its beginning
                content = io.BytesIO(member.read())
                where = f"{member.source}: {member.name}"
                yield _described_npz(content, where) if name.suffix == ".npz" else None


def _described_npz(stream: IO[bytes], where: str) -> Description | None:
    """What an npz file says of itself; its features are not read."""

    def choose(keys: Sequence[str]) -> Sequence[str]:
        return [key for key in keys if key == DESCRIPTION]

    if stream.read(len(NPY)) == NPY:
        return None
    loaded = arrays_in(stream, where, choose)
    if DESCRIPTION not in loaded:
        return None
    return parsed(text_in(loaded[DESCRIPTION]), where)


def _described_hdf5(path: Path) -> Iterator[Description | None]:
    """What the data sets of an h5 file, which may be a store, say of themselves."""
    with opened_hdf5(Member.of_file(path)) as file:
        for name in data_sets(file):
            told = file[name].attrs.get(DESCRIPTION)
            yield None if told is None else parsed(told, str(path))
