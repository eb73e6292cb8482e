"""Publishers' feature files, read one video at a time: a video is one (T, C) array of floats.

npy, npz, pt and h5, as they lie or inside zip and tar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.data.array_files import (
    array_of,
    data_set,
    data_sets,
    loaded_numpy,
    loaded_torch,
    opened_hdf5,
    text_in,
)
from actionformer.data.extracted import DESCRIPTION, Description, parsed
from actionformer.data.members import PICKLED, PICKLES, Member, is_of_macos, members
from actionformer.errors import InputError
from actionformer.files.reading import decoded

MISSING_LIST = "missing_files.txt"
# keys of arrays in npz and pt files that hold more than one
KEYS = ("feats", "features")


@dataclass(frozen=True)
class Form:
    """What a publisher's files look like (`params.dataset.FeatureSet`)."""

    # channels
    dim: int
    # what stands before and after a video's name
    prefix: str = ""
    suffix: str = ""
    # arrays are (channels, steps)
    transposed: bool = False
    # keys of arrays that are put side by side
    arrays: Sequence[str] = ()

    def video(self, name: str) -> str:
        """The video that something is called after."""
        return name.removeprefix(self.prefix).removesuffix(self.suffix)


@dataclass(frozen=True)
class Loaded:
    """Features (T, C) as they are read, and what their file says of itself, if it does."""

    features_TC: NDArray[Any]
    description: Description | None = None


@dataclass(frozen=True)
class Features:
    """One video's features; `load` reads and checks them."""

    video: str
    load: Callable[[], Loaded]


def missing_list(member: Member, form: Form) -> list[str]:
    """Videos that the publisher lists as missing."""
    lines = decoded(member.read(), f"{member.source}: {member.name}").splitlines()
    return sorted(form.video(line.strip()) for line in lines if line.strip())


def features_in(member: Member, form: Form) -> Iterator[Features]:
    """The videos that a file holds: one, or in h5 one per data set; none in files of other kinds.

    Raises:
        InputError: on `load`, an array that is truncated, pickled, not (T, dim), empty or not
            finite; names the file and the video.
    """
    path = PurePosixPath(member.name)
    if is_of_macos(path):
        return
    video = form.video(path.stem)
    where = f"{member.source}: video '{video}' ({member.name})"
    match path.suffix:
        case ".npy" | ".npz":
            yield Features(video, lambda: _numpy(member, form, where))
        case ".pt" | ".pth":
            yield Features(video, lambda: Loaded(checked(_torch(member, form, where), form, where)))
        case ".h5" | ".hdf5":
            yield from _hdf5(member, form)
        case suffix if suffix in PICKLES:
            raise InputError(f"{where}: {PICKLED}")


def shapes_in(source: Path) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    """File or data set by file or data set what it is called, and the shape of each of its arrays.

    For a look at features of which nothing is known yet.
    """
    for member in members(source):
        path = PurePosixPath(member.name)
        if is_of_macos(path):
            continue
        where = f"{member.source}: {member.name}"
        match path.suffix:
            case ".npy" | ".npz":
                yield path.stem, _shapes(loaded_numpy(member, where))
            case ".pt" | ".pth":
                yield path.stem, _shapes(loaded_torch(member, where))
            case ".h5" | ".hdf5":
                with opened_hdf5(member) as file:
                    for name in data_sets(file):
                        yield PurePosixPath(name).name, {name: file[name].shape}


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(array.shape) for key, array in arrays.items() if hasattr(array, "shape")}


def _numpy(member: Member, form: Form, where: str) -> Loaded:
    def choose(keys: Sequence[str]) -> Sequence[str]:
        arrays = [key for key in keys if key != DESCRIPTION]
        told = [key for key in keys if key == DESCRIPTION]
        return [*_chosen(arrays, form, where), *told]

    loaded = loaded_numpy(member, where, choose)
    told = loaded.pop(DESCRIPTION, None)
    array_TC = _side_by_side(list(loaded.values()), form, where)
    return Loaded(
        checked(array_TC, form, where), None if told is None else parsed(text_in(told), where)
    )


def _torch(member: Member, form: Form, where: str) -> NDArray[Any]:
    loaded = loaded_torch(member, where)
    arrays = []
    for key in _chosen(list(loaded), form, where):
        arrays.append(array_of(loaded[key], where))
    return _side_by_side(arrays, form, where)


def _hdf5(member: Member, form: Form) -> Iterator[Features]:
    """One video per data set, as TSP's official release has them; the file's own order."""
    with opened_hdf5(member) as file:
        for name in data_sets(file):
            video = form.video(PurePosixPath(name).name)
            where = f"{member.source}: video '{video}' ({member.name}/{name})"

            def load(name: str = name, where: str = where) -> Loaded:
                array_TC, told = data_set(file, name, where)
                description = None if told is None else parsed(told, where)
                return Loaded(checked(array_TC, form, where), description)

            yield Features(video, load)


def _chosen(keys: Sequence[str], form: Form, where: str) -> Sequence[str]:
    """The keys that the form names, the only one, or the one that is called as features are."""
    listed = ", ".join(sorted(keys))
    if not keys:
        raise InputError(f"{where}: holds no array")
    if form.arrays and list(keys) != [""]:
        absent = [key for key in form.arrays if key not in keys]
        if absent:
            raise InputError(f"{where}: holds no array '{absent[0]}'; there are {listed}")
        return form.arrays
    if len(keys) > 1:
        keys = [key for key in keys if key in KEYS]
    if len(keys) != 1:
        wanted = f"expected one, or one called {' or '.join(KEYS)}"
        joined = f"`arrays: [{listed}]` in the params of the feature set puts them side by side"
        raise InputError(f"{where}: holds several arrays, {wanted}; {joined}")
    return keys


def _side_by_side(arrays: Sequence[NDArray[Any]], form: Form, where: str) -> NDArray[Any]:
    """Arrays of the same steps, channels after channels."""
    if len(arrays) == 1:
        return np.asarray(arrays[0])
    flat = [_without_batch(np.asarray(array)) for array in arrays]
    axis = 0 if form.transposed else 1
    lengths = [array.shape[1 - axis] if array.ndim == 2 else None for array in flat]
    if len(set(lengths)) > 1 or None in lengths:
        shapes = ", ".join(str(array.shape) for array in flat)
        wrong = f"arrays of shapes {shapes} cannot be put side by side"
        raise InputError(f"{where}: {wrong}; expected as many steps in each")
    return np.concatenate(flat, axis=axis)


def _without_batch(array: NDArray[Any]) -> NDArray[Any]:
    """(1, T, C), as some extractors write it, is (T, C)."""
    if array.ndim == 3 and len(array) == 1:
        return np.asarray(array[0])
    return array


def checked(array: NDArray[Any], form: Form, where: str) -> NDArray[Any]:
    """Features (T, C) in single precision or less."""
    found = f"shape {array.shape}, expected (steps, {form.dim})"
    array = _without_batch(array)
    if form.transposed:
        array = array.T
    if array.ndim != 2 or array.shape[1] != form.dim:
        reason = "other features, or another `dim` in the params of the feature set?"
        if array.ndim == 2 and array.shape[0] == form.dim:
            known = "false" if form.transposed else "true"
            reason = f"`transposed: {known}` in the params of the feature set reads it"
        raise InputError(f"{where}: {found}: {reason}")
    if len(array) == 0 or array.dtype.kind != "f":
        found = f"{len(array)} steps of type {array.dtype}"
        raise InputError(f"{where}: {found}, expected floats and at least one step")
    # in the byte order of this machine, which torch wants
    kept = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 4 else np.dtype(np.float32)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, kept)
    # only now: 1e300 is finite, and infinite in single precision
    if not np.isfinite(array).all():
        wrong = "contains NaN or infinite values, or such as single precision cannot hold"
        raise InputError(f"{where}: {wrong}")
    return array
