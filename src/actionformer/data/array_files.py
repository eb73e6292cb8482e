"""Arrays of npy, npz, pt and h5 files, by their keys. Nothing in a file is run: no pickles."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import h5py
import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from actionformer.data.extracted import DESCRIPTION
from actionformer.data.members import BEGINS_ZIP, PICKLED, Member, refuse_huge
from actionformer.errors import InputError, first_line
from actionformer.files.archives import check_sums

NPY = b"\x93NUMPY"
_BROKEN_HDF5 = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError)


def loaded_numpy(
    member: Member, where: str, choose: Callable[[Sequence[str]], Sequence[str]] = list
) -> dict[str, NDArray[Any]]:
    """Arrays of an npz file by their keys, of which some are chosen; an npy file's has none.

    Raises:
        InputError: another file, a damaged or huge one, pickled objects.
    """
    content = member.read()
    if not content.startswith((NPY, *BEGINS_ZIP)):
        raise InputError(f"{where}: not an npy or npz file; fetch it again")
    return arrays_in(io.BytesIO(content), where, choose)


def arrays_in(
    stream: IO[bytes], where: str, choose: Callable[[Sequence[str]], Sequence[str]]
) -> dict[str, NDArray[Any]]:
    """Of an npz file those that are chosen, by their keys; of an npy file its own."""
    try:
        stream.seek(0)
        if stream.read(len(NPY)) == NPY:
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
        raise InputError(f"{where}: {PICKLED}") from None
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


def text_in(array: NDArray[Any]) -> str | None:
    """The text that an array of one is."""
    return str(array[()]) if array.shape == () and array.dtype.kind == "U" else None


def loaded_torch(member: Member, where: str) -> dict[str, Any]:
    """Everything that a pt file holds by its key; a tensor alone has none.

    Raises:
        InputError: another file, a damaged one, or what only a pickle can bring.
    """
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
        raise InputError(f"{where}: {wrong}; {PICKLED}") from None
    if not isinstance(loaded, dict):
        return {"": loaded}
    return {str(key): value for key, value in loaded.items()}


def array_of(tensor: Any, where: str) -> NDArray[Any]:
    """The array that a tensor is.

    Raises:
        InputError: no tensor, or not a plain one of floats.
    """
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


@contextmanager
def opened_hdf5(member: Member) -> Iterator[h5py.File]:
    """An h5 file; whatever HDF5 says of damage is one line."""
    try:
        with member.open() as stream, h5py.File(stream, "r") as file:
            yield file
    except _BROKEN_HDF5 as error:
        wrong = f"not a complete h5 file ({error})"
        raise InputError(f"{member.source}: {member.name}: {wrong}; fetch it again") from None


def data_sets(file: h5py.File) -> list[str]:
    """Names of all data sets, however deep."""
    names = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    file.visititems(visit)
    return names


def data_set(file: h5py.File, name: str, where: str) -> tuple[NDArray[Any], Any]:
    """A data set of an h5 file and what is said of it; it is looked at before it is read.

    Raises:
        InputError: a damaged or huge one.
    """
    try:
        found = file[name]
        refuse_huge(found.size * found.dtype.itemsize, where)
        return np.asarray(found[()]), found.attrs.get(DESCRIPTION)
    except _BROKEN_HDF5 as error:
        wrong = f"damaged ({error})"
        raise InputError(f"{where}: {wrong}; fetch it again") from None
