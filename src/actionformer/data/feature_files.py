"""Publishers' feature files and archives, read one video at a time.

npy, npz, pt and h5, as they lie or inside zip and tar. A video is one (T, C) array of floats.
Nothing is unpacked to disk and nothing in a file is run: pickles are refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.files import brings, files_of

MISSING_LIST = "missing_files.txt"
# keys of arrays in npz and pt files that hold more than one
KEYS = ("feats", "features")
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", (b"PK\x03\x04", b"PK\x05\x06")
_MAGIC: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# how names end: of files with arrays, of archives, of what is never read, of what features are made
# from
ARRAYS = (".npy", ".npz", ".pt", ".pth")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")
_PICKLES = (".pkl", ".pickle")
_VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts")
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    OSError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class Member:
    """One file of an archive or folder; `open` gives its bytes, and can be left uncalled."""

    source: Path
    name: str
    open: Callable[[], IO[bytes]]

    @classmethod
    def of_file(cls, path: Path, source: Path | None = None, name: str = "") -> Member:
        """A file that lies by itself, or in a folder `source`; `name`, if not its own."""
        return cls(source or path, name or path.name, lambda: path.open("rb"))

    def read(self) -> bytes:
        """All of it; archives check their checksums here."""
        with _complete(self.source), self.open() as file:
            return file.read()


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
class Features:
    """One video's features; `load` reads and checks them."""

    video: str
    load: Callable[[], NDArray[Any]]


def missing_list(member: Member, form: Form) -> list[str]:
    """Videos that the publisher lists as missing."""
    try:
        lines = member.read().decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{member.source}: {member.name}: not readable as UTF-8 text ({error})"
        ) from None
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
    if suffix in _VIDEOS:
        wrong = "a video; what is read are features, one (steps, channels) array per video"
        raise InputError(f"{source}: {wrong}, which an extractor makes of it (docs/faq.md)")
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
            yield Features(video, lambda: checked(_numpy(member, form, where), form, where))
        case ".pt" | ".pth":
            yield Features(video, lambda: checked(_torch(member, form, where), form, where))
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
                with member.open() as stream, h5py.File(stream, "r") as file:
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
                yield Member(source, name, partial(archive.open, info))


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
                yield Member(source, name, partial(_itself, reader))
                # it would keep a record of every member
                archive.members = []  # type: ignore[attr-defined]
        # to the very end: the checksum of the compression stands there
        while rest := stream.read(1 << 20):
            if rest.strip(b"\0"):
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


def _numpy(member: Member, form: Form, where: str) -> NDArray[Any]:
    loaded = _loaded_numpy(member, where, lambda keys: _chosen(keys, form, where))
    return _side_by_side([loaded[key] for key in loaded], form, where)


def _loaded_numpy(
    member: Member, where: str, choose: Callable[[Sequence[str]], Sequence[str]] = list
) -> dict[str, NDArray[Any]]:
    """Arrays of an npz file by their keys, of which some are chosen; an npy file's has none."""
    content = io.BytesIO(member.read())
    if not content.getbuffer()[:6].tobytes().startswith((b"\x93NUMPY", *_ZIP)):
        raise InputError(f"{where}: not an npy or npz file; fetch it again")
    try:
        loaded = np.load(content, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        return {key: np.asarray(loaded[key]) for key in choose(loaded.files)}
    except (ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        if "pickle" in str(error):
            raise InputError(f"{where}: {_PICKLED}") from None
        raise InputError(f"{where}: not a complete array ({error}); fetch it again") from None


def _torch(member: Member, form: Form, where: str) -> NDArray[Any]:
    import torch

    loaded = _loaded_torch(member, where)
    arrays = []
    for key in _chosen(list(loaded), form, where):
        tensor = loaded[key]
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{where}: holds {type(tensor).__name__}, expected one tensor")
        if tensor.layout != torch.strided:
            raise InputError(f"{where}: a sparse tensor, expected a dense one")
        tensor = tensor.detach()
        arrays.append(tensor.float().numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy())
    return _side_by_side(arrays, form, where)


def _loaded_torch(member: Member, where: str) -> dict[str, Any]:
    """Everything that a pt file holds by its key; a tensor alone has none."""
    import torch

    content = io.BytesIO(member.read())
    try:
        loaded = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
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
    with member.open() as stream:
        try:
            file = h5py.File(stream, "r")
        except OSError as error:
            wrong = f"not a complete h5 file ({error})"
            raise InputError(f"{member.source}: {member.name}: {wrong}; fetch it again") from None
        with file:
            for name in _datasets(file):
                video = form.video(PurePosixPath(name).name)
                where = f"{member.source}: video '{video}' ({member.name}/{name})"

                def load(name: str = name, where: str = where) -> NDArray[Any]:
                    with _complete(member.source):
                        return checked(np.asarray(file[name][()]), form, where)

                yield Features(video, load)


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
    if not np.isfinite(array).all():
        raise InputError(f"{where}: contains NaN or infinite values")
    return np.ascontiguousarray(array if array.dtype.itemsize <= 4 else array.astype(np.float32))
