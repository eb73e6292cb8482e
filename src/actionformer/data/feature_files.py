"""Publishers' feature files and archives, read one video at a time.

npy, npz, pt and h5, as they lie or inside zip and tar. A video is one (T, C) array of floats.
Nothing is unpacked to disk and nothing in a file is run: pickles are refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import h5py
import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from actionformer.data.extracted import DESCRIPTION, Description, parsed
from actionformer.errors import InputError, first_line
from actionformer.files.archives import BROKEN_ZIP, check_sums
from actionformer.files.md5 import files_of
from actionformer.files.reading import brings, decoded

MISSING_LIST = "missing_files.txt"
# keys of arrays in npz and pt files that hold more than one
KEYS = ("feats", "features")
_NPY = b"\x93NUMPY"
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", (b"PK\x03\x04", b"PK\x05\x06")
_MAGIC: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# how names end: of files with arrays, of those with several, of archives, of what is never read
ARRAYS = (".npy", ".npz", ".pt", ".pth")
HDF5 = (".h5", ".hdf5")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")
_PICKLES = (".pkl", ".pickle")
# what features are made from
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
_BROKEN_HDF5 = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError)
_BROKEN = (*BROKEN_ZIP, tarfile.TarError, lzma.LZMAError)
# bytes of a video's features: at 2,048 channels and 4 steps a second, 17 hours
LARGEST = 2_000_000_000
# zeros after the last member of a tar: a block of the largest size that tar pads to
LONGEST_END = 100_000_000


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
    if start.startswith(_HDF5):
        yield Member.of_file(source, name=source.with_suffix(".h5").name)
        return
    _refuse_what_is_no_archive(source, start)
    with _complete(source):
        yield from _zip_members(source) if start.startswith(_ZIP) else _tar_members(source, start)


def _refuse_what_is_no_archive(source: Path, start: bytes) -> None:
    """One line that says what a file is, where its name and its first bytes are no archive's."""
    suffix = source.suffix.lower()
    if suffix in VIDEOS:
        wrong = "a video; what is read are features, one (steps, channels) array per video"
        raise InputError(
            f"{source}: {wrong}, which `actionformer extract` makes of it (docs/video.md)"
        )
    if suffix in _PICKLES:
        raise InputError(f"{source}: {_PICKLED}")
    packed = start.startswith((*_ZIP, *_MAGIC))
    if packed or suffix in ARCHIVES or tarfile.is_tarfile(source):
        return
    wanted = "expected npy, npz, pt or h5, or a zip, a tar or a folder of these"
    raise InputError(f"{source}: not features that are read here; {wanted}")


def features_in(member: Member, form: Form) -> Iterator[Features]:
    """The videos that a file holds: one, or in h5 one per data set; none in files of other kinds.

    Raises:
        InputError: on `load`, an array that is truncated, pickled, not (T, dim), empty or not
            finite; names the file and the video.
    """
    path = PurePosixPath(member.name)
    if _is_of_macos(path):
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
        case suffix if suffix in _PICKLES:
            raise InputError(f"{where}: {_PICKLED}")


def _is_of_macos(path: PurePosixPath) -> bool:
    """Is this what macOS adds to archives?"""
    return "__MACOSX" in path.parts or path.name.startswith("._")


def shapes_in(source: Path) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    """File or data set by file or data set what it is called, and the shape of each of its arrays.

    For a look at features of which nothing is known yet.
    """
    for member in members(source):
        path = PurePosixPath(member.name)
        if _is_of_macos(path):
            continue
        where = f"{member.source}: {member.name}"
        match path.suffix:
            case ".npy" | ".npz":
                yield path.stem, _shapes(_loaded_numpy(member, where))
            case ".pt" | ".pth":
                yield path.stem, _shapes(_loaded_torch(member, where))
            case ".h5" | ".hdf5":
                with _opened_hdf5(member) as file:
                    for name in _datasets(file):
                        yield PurePosixPath(name).name, {name: file[name].shape}


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(array.shape) for key, array in arrays.items() if hasattr(array, "shape")}


_PICKLED = (
    "pickled, which can run code and is not read; where you trust it: "
    'python -c "import numpy, pickle, sys; '
    "numpy.save(sys.argv[1] + '.npy', "
    "numpy.asarray(pickle.load(open(sys.argv[1], 'rb')), 'float32'))\" FILE"
)


# ---------------------------------------------------------------------------------------- archives


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
    for magic, decompressing in _MAGIC.items():
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


# ------------------------------------------------------------------------------------------ arrays


def _numpy(member: Member, form: Form, where: str) -> Loaded:
    def choose(keys: Sequence[str]) -> Sequence[str]:
        arrays = [key for key in keys if key != DESCRIPTION]
        told = [key for key in keys if key == DESCRIPTION]
        return [*_chosen(arrays, form, where), *told]

    loaded = _loaded_numpy(member, where, choose)
    told = loaded.pop(DESCRIPTION, None)
    array_TC = _side_by_side(list(loaded.values()), form, where)
    return Loaded(
        checked(array_TC, form, where), None if told is None else parsed(_text(told), where)
    )


def _text(array: NDArray[Any]) -> str | None:
    """The text that an array of one is."""
    return str(array[()]) if array.shape == () and array.dtype.kind == "U" else None


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


def _described_npz(stream: IO[bytes], where: str) -> Description | None:
    """What an npz file says of itself; its features are not read."""

    def choose(keys: Sequence[str]) -> Sequence[str]:
        return [key for key in keys if key == DESCRIPTION]

    if stream.read(len(_NPY)) == _NPY:
        return None
    loaded = _arrays(stream, where, choose)
    if DESCRIPTION not in loaded:
        return None
    return parsed(_text(loaded[DESCRIPTION]), where)


def _loaded_numpy(
    member: Member, where: str, choose: Callable[[Sequence[str]], Sequence[str]] = list
) -> dict[str, NDArray[Any]]:
    """Arrays of an npz file by their keys, of which some are chosen; an npy file's has none."""
    content = member.read()
    if not content.startswith((_NPY, *_ZIP)):
        raise InputError(f"{where}: not an npy or npz file; fetch it again")
    return _arrays(io.BytesIO(content), where, choose)


def _arrays(
    stream: IO[bytes], where: str, choose: Callable[[Sequence[str]], Sequence[str]]
) -> dict[str, NDArray[Any]]:
    """Of an npz file those that are chosen, by their keys; of an npy file its own."""
    try:
        stream.seek(0)
        if stream.read(len(_NPY)) == _NPY:
            stream.seek(0)
            return {"": _array(stream.read())}
        with zipfile.ZipFile(stream) as archive:
            infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(infos) < len(archive.infolist()):
                raise ValueError("an array occurs twice")
            chosen = {key: infos[key] for key in choose(list(infos))}
            for key, info in chosen.items():
                refuse_huge(info.file_size, f"{where}: {key}")
            return {key: _array(archive.read(info)) for key, info in chosen.items()}
    except InputError:
        raise
    except _Pickled:
        raise InputError(f"{where}: {_PICKLED}") from None
    except Exception as error:  # a damaged header can raise anything
        reason = first_line(error)
        raise InputError(f"{where}: not a complete array ({reason}); fetch it again") from None


class _Pickled(Exception):
    """An array of Python objects."""


def _array(content: bytes) -> NDArray[Any]:
    """The array of an npy file, which holds what its header promises and nothing else."""
    stream = io.BytesIO(content)
    is_first = npy_format.read_magic(stream) == (1, 0)
    read_header = npy_format.read_array_header_1_0 if is_first else npy_format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise _Pickled
    promised, found = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if promised != found:
        raise ValueError(f"its header promises {promised:,} bytes, it holds {found:,}")
    flat = np.frombuffer(content, dtype, offset=stream.tell()).copy()
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _torch(member: Member, form: Form, where: str) -> NDArray[Any]:
    loaded = _loaded_torch(member, where)
    arrays = []
    for key in _chosen(list(loaded), form, where):
        arrays.append(_of_tensor(loaded[key], where))
    return _side_by_side(arrays, form, where)


def _described_hdf5(path: Path) -> Iterator[Description | None]:
    """What the data sets of an h5 file, which may be a store, say of themselves."""
    with _opened_hdf5(Member.of_file(path)) as file:
        for name in _datasets(file):
            told = file[name].attrs.get(DESCRIPTION)
            yield None if told is None else parsed(told, str(path))


def description_in(source: Path) -> Description | None:
    """What the first array of a folder, an archive or a file says of itself, if it does."""
    return next(descriptions_in(source), None)


def descriptions_in(source: Path) -> Iterator[Description | None]:
    """What the arrays of a folder, an archive or a file say of themselves, one after the other."""
    if source.is_dir():
        for path in files_of(source):
            if path.suffix in (*ARRAYS, *HDF5) and not _is_of_macos(PurePosixPath(path.name)):
                yield from descriptions_in(path)
    elif source.is_file() and h5py.is_hdf5(source):
        yield from _described_hdf5(source)
    elif source.suffix in ARRAYS:
        yield described(source)
    else:
        for member in members(source):
            name = PurePosixPath(member.name)
            if name.suffix in ARRAYS and not _is_of_macos(name):
                # as a whole: to look for its end would unpack an archive from its beginning
                content = io.BytesIO(member.read())
                where = f"{member.source}: {member.name}"
                yield _described_npz(content, where) if name.suffix == ".npz" else None


def _of_tensor(tensor: Any, where: str) -> NDArray[Any]:
    """The array that a tensor is, where it is a plain one."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{where}: holds {type(tensor).__name__}, expected one tensor")
    if tensor.layout != torch.strided:
        raise InputError(f"{where}: a sparse tensor, expected a dense one")
    if tensor.is_quantized or tensor.is_meta or tensor.dtype not in _torch_floats():
        wanted = "expected float64, float32, float16 or bfloat16"
        raise InputError(f"{where}: a {tensor.device} tensor of {tensor.dtype}, {wanted}")
    tensor = tensor.detach()
    return np.asarray(tensor.float() if tensor.dtype is torch.bfloat16 else tensor)


def _torch_floats() -> tuple[Any, ...]:
    import torch

    return torch.float64, torch.float32, torch.float16, torch.bfloat16


def _loaded_torch(member: Member, where: str) -> dict[str, Any]:
    """Everything that a pt file holds by its key; a tensor alone has none."""
    import torch

    content = io.BytesIO(member.read())
    try:
        check_sums(content, lambda part: True)
        content.seek(0)
        # torch warns of kinds of tensors that nobody writes any more; what is wrong is said below
        with warnings.catch_warnings(action="ignore"):
            loaded = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        reason = first_line(error)
        wrong = f"not a tensor that can be read safely ({reason})"
        raise InputError(f"{where}: {wrong}; {_PICKLED}") from None
    if not isinstance(loaded, dict):
        return {"": loaded}
    return {str(key): value for key, value in loaded.items()}


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


def _hdf5(member: Member, form: Form) -> Iterator[Features]:
    """One video per data set, as TSP's official release has them; the file's own order."""
    with _opened_hdf5(member) as file:
        for name in _datasets(file):
            video = form.video(PurePosixPath(name).name)
            where = f"{member.source}: video '{video}' ({member.name}/{name})"

            def load(name: str = name, where: str = where) -> Loaded:
                array_TC, told = _of_hdf5(file, name, where)
                description = None if told is None else parsed(told, where)
                return Loaded(checked(array_TC, form, where), description)

            yield Features(video, load)


@contextmanager
def _opened_hdf5(member: Member) -> Iterator[h5py.File]:
    """An h5 file; whatever HDF5 says of damage is one line."""
    try:
        with member.open() as stream, h5py.File(stream, "r") as file:
            yield file
    except _BROKEN_HDF5 as error:
        wrong = f"not a complete h5 file ({error})"
        raise InputError(f"{member.source}: {member.name}: {wrong}; fetch it again") from None


def _of_hdf5(file: h5py.File, name: str, where: str) -> tuple[NDArray[Any], Any]:
    """A data set, which is looked at before it is read, and what is said of it."""
    try:
        found = file[name]
        refuse_huge(found.size * found.dtype.itemsize, where)
        return np.asarray(found[()]), found.attrs.get(DESCRIPTION)
    except _BROKEN_HDF5 as error:
        wrong = f"damaged ({error})"
        raise InputError(f"{where}: {wrong}; fetch it again") from None


def _datasets(file: h5py.File) -> list[str]:
    """Names of all data sets, however deep."""
    names = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    file.visititems(visit)
    return names


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
