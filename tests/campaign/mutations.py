"""Damage to files of outside data: by structure where the format is known, and by bytes.

A mutation says whether numbers may differ afterwards without a word: `may_change` is the rule by
which they may (RULES), or empty. No rule excuses a traceback.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import h5py
import numpy as np
import torch

from actionformer.data.extracted import DESCRIPTION

# when a damaged file may give other numbers without a word: nothing in it says that it is damaged
RULES = {
    "number": "a number is another number: a time, a score, a count",
    "text": "a text is another text: a label, a subset, a video's name",
    "gone": "a video, an instance, a class or a line is not there, or there again",
    "optional": "a key that publishers leave out of some files is left out",
    "bytes": "a byte changed in a file without a checksum: text, a bare npy, h5, a video",
}

NUMBERS = (0, -1, 1, 3, 0.5, -7.25, 1e-300, 1e300, 10**12)
# what no reader may take for a number
NO_NUMBERS = (True, None, "x", "²", "1_0", "", [], {}, [1], "١٢", "nan", "0x10", "1e999")
NO_TEXTS = (None, True, 5, 1.5, [], ["a"], {}, {"a": 1})
NO_LISTS = (None, "ab", "", 3, {}, {"0": 1}, True)
NO_OBJECTS = (None, [], [1], "text", 7, True)
TEXTS = ("other", "a b", "'", '"', "=1+1", "a,b", "ä", "../x", "x" * 300_000, "a\nb", "{x}", "\0")
CELLS = (*TEXTS, "²", "1_0", "nan", "inf", "-5", "0", "1e300", "1:30", "٣", "", "9" * 200_000)
# keys that publishers leave out of some files or videos, and what our own files may lack
OPTIONAL = frozenset(
    [
        *("frame", "fps", "annotations", "clips", "classes", "class", "blocked", "label_id"),
        *("primary", "root", "homepage", "licence", "table", "row", "published", "files"),
        *("training", "inference", "evaluation", "model", "data", "offset_frames"),
    ]
)
# keys without which a file is another one
ROOTS = frozenset(["database", "results", "videos"])


@dataclass(frozen=True)
class Mutation:
    """A damaged file."""

    content: bytes
    # the damage, in words
    what: str
    # the rule by which numbers may differ; none: the same numbers, or one line
    may_change: str = ""


def mutate(name: str, content: bytes, rng: random.Random) -> Mutation:
    """A damaged version of a file, by what its name says that it is."""
    kinds: Mapping[str, Callable[[bytes, random.Random], Mutation]] = {
        ".json": _json,
        ".csv": _lines,
        ".txt": _lines,
        ".yaml": _yaml,
        ".zip": _zip,
        ".gz": _tar,
        ".npy": _npy,
        ".npz": _npz,
        ".pt": _torch,
        ".pth": _torch,
        ".h5": _hdf5,
        **dict.fromkeys((".mp4", ".mkv", ".avi"), _video),
    }
    kind = kinds[PurePosixPath(name).suffix]
    if rng.random() < 0.2:
        return _bytes(content, rng, has_checksum=kind in (_zip, _tar, _npz, _torch))
    return kind(content, rng)


# ------------------------------------------------------------------------------------------- bytes


def _bytes(content: bytes, rng: random.Random, *, has_checksum: bool) -> Mutation:
    rule = "" if has_checksum else "bytes"
    place = rng.randrange(max(len(content), 1))
    before, after = content[:place], content[place:]
    match rng.randrange(7):
        case 0:
            return Mutation(before + rng.randbytes(1) + after[1:], f"byte {place} is another", rule)
        case 1:
            return Mutation(before, f"cut after {place} bytes", rule)
        case 2:
            return Mutation(before + after[1:], f"without byte {place}", rule)
        case 3:
            odd = rng.choice([b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"{", b"\n", b"9" * 5000])
            return Mutation(before + odd + after, f"{odd[:4]!r} at {place}", rule)
        case 4:
            return Mutation(b"", "empty", rule)
        case 5:
            return Mutation(b"\xff\xfe" + rng.randbytes(300), "noise")
        case _:
            return Mutation(b"<html><title>Sign in</title></html>", "a web page", rule)


def _video(content: bytes, rng: random.Random) -> Mutation:
    """Many bytes at once: of a few a codec makes something."""
    damaged = bytearray(content)
    # headers stand at the beginning or at the end
    first, last = rng.choice([(0, len(content)), (0, 500), (len(content) - 500, len(content))])
    count = 1 << rng.randrange(11)
    for _ in range(count):
        damaged[rng.randrange(max(first, 0), last)] = rng.randrange(256)
    return Mutation(bytes(damaged), f"{count} bytes from {first} to {last} are others", "bytes")


# -------------------------------------------------------------------------------------------- JSON


def _json(content: bytes, rng: random.Random) -> Mutation:
    value = json.loads(content)
    if rng.random() < 0.12:
        return _odd_json(value, rng)
    holder, key = _place(value, rng)
    if rng.random() < 0.25:
        what, rule = _moved(holder, key, rng)
    else:
        what, rule = _replaced(holder, key, rng)
    return Mutation(json.dumps(value).encode(), what, rule)


def _place(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """A container within a JSON value, and a key or an index of it."""
    holder = value
    while True:
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = rng.choice(keys)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.15:
            return holder, key
        holder = inner


def _moved(holder: Any, key: Any, rng: random.Random) -> tuple[str, str]:
    """Remove, rename or repeat something; says what, and by which rule numbers may differ."""
    old = holder[key]
    if isinstance(holder, list):
        if rng.random() < 0.5:
            holder.insert(key, old)
            return f"item {key} twice", "gone"
        del holder[key]
        return f"item {key} is gone", "gone"
    rule = ""
    if key in OPTIONAL:
        rule = "optional"
    elif isinstance(old, dict | list) and key not in ROOTS:
        # a video, by its name
        rule = "gone"
    if rng.random() < 0.5:
        del holder[key]
        return f"{_short(key)} is gone", rule
    holder[f"{key}x"] = holder.pop(key)
    # a list under a misspelt key must not pass for none
    is_lost = isinstance(old, list) and key == "annotations" and len(old) > 0
    return f"{_short(key)} is called {_short(key)}x", "" if is_lost else rule


def _replaced(holder: Any, key: Any, rng: random.Random) -> tuple[str, str]:
    """Put something else in the place of a value; says what, and by which rule numbers may."""
    old = holder[key]
    same_kind, others, rule = _others(old)
    if same_kind and rng.random() < 0.5:
        new = rng.choice(same_kind)
    else:
        new = rng.choice(others)
        # publishers write some numbers as texts
        is_number = type(new) in (int, float) and isinstance(old, str) and _is_number(old)
        rule = "number" if is_number else ""
    if new is None and key in OPTIONAL:
        rule = "optional"
    holder[key] = new
    return f"{_short(key)}: {_short(old)} -> {_short(new)}", rule


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _others(old: Any) -> tuple[Any, Any, str]:
    """What may stand for a value, what may not, and the rule of the first."""
    if isinstance(old, bool) or old is None:
        return (True, False, None), ("true", 5, [], {}), "number"
    if isinstance(old, int | float):
        infinite = (float("nan"), float("inf"), -float("inf"))
        return (*NUMBERS, str(old)), (*NO_NUMBERS, *infinite), "number"
    if isinstance(old, str):
        return TEXTS, NO_TEXTS, "text"
    if isinstance(old, list):
        return (old[::-1], old[1:], old + old), (*NO_LISTS, [old]), "gone"
    return (), NO_OBJECTS, ""


def _odd_json(value: Any, rng: random.Random) -> Mutation:
    """What is no value of JSON's, or none that a reader expects."""
    holder, key = _place(value, rng)
    text = json.dumps(value)
    match rng.randrange(7):
        case 0:
            root = rng.choice(NO_OBJECTS)
            # of a list of videos: none of them
            rule = "gone" if root == [] and isinstance(value, list) else ""
            return Mutation(json.dumps(root).encode(), f"another root: {_short(root)}", rule)
        case 1:
            return Mutation(b"[" * 100_000 + b"]" * 100_000, "100,000 deep")
        case 2:
            return Mutation(b'{"a":' * 2000 + b"1" + b"}" * 2000, "2,000 deep")
        case 3:
            old, holder[key] = holder[key], 987654321
            many = json.dumps(value).replace("987654321", "9" * 5000, 1)
            return Mutation(many.encode(), f"{_short(key)}: {_short(old)} -> 5,000 digits")
        case 4 if isinstance(holder, dict):
            whole = json.dumps(holder)
            twice = f"{{{json.dumps(key)}: {json.dumps(holder[key])}, {whole[1:]}"
            return Mutation(text.replace(whole, twice, 1).encode(), f"{_short(key)} twice")
        case 5 if isinstance(holder, dict):
            holder["\ud800"] = holder.pop(key)
            return Mutation(json.dumps(value).encode(), f"{_short(key)} is half a character")
        case _:
            return Mutation((text + text).encode(), "twice, one after the other")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 30 else f"{text[:27]}..."


# -------------------------------------------------------------------------------------------- text


def _lines(content: bytes, rng: random.Random) -> Mutation:
    lines = content.decode().splitlines()
    at = rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[at]
            what, rule = f"line {at + 1} is gone", "gone"
        case 1:
            lines.insert(at, lines[at])
            what, rule = f"line {at + 1} twice", "gone"
        case 2:
            lines = lines[: rng.randrange(2)]
            # without any class a list says nothing; without lines a csv has lost them all
            what, rule = f"{len(lines)} lines are left", "gone"
        case 3:
            lines[at] = lines[at].replace(rng.choice([",", " ", ";", ":", '"']), "")
            what, rule = f"line {at + 1} has lost what separates its values", "bytes"
        case _:
            parts = lines[at].replace(" ", ",").split(",")
            cell = rng.choice(parts)
            new = rng.choice(CELLS)
            lines[at] = lines[at].replace(cell, new, 1) if cell else lines[at] + new
            what, rule = f"line {at + 1}: {_short(cell)} -> {_short(new)}", "text"
    return Mutation("\n".join([*lines, ""]).encode(), what, rule)


def _yaml(content: bytes, rng: random.Random) -> Mutation:
    text = content.decode()
    if rng.random() < 0.25:
        odd = {
            "nested": "a: " + "[" * 5000 + "]" * 5000,
            "nested without end": f"{text}\nx: &x [*x]",
            "a key twice": f"{text}\n{text.splitlines()[0]}",
            "a code": f"{text}\nx: !!python/object/apply:os.system [true]",
            "a list": "- a\n- b",
            "a tab": text.replace("  ", "\t", 1),
            "a list for a key": f"{text}\n? [a]\n: b",
        }
        what = rng.choice(list(odd))
        return Mutation(odd[what].encode(), what)
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    key = lines[at].partition(": ")[0]
    values = (
        *("x; touch PWNED #", ".inf", "1:30", "2020-01-01", "~", "[]", "{}", "-1", "0", "1e400"),
        *("'$(touch PWNED)'", "../..", "text", "[1, 2]", "{a: 1}", "9" * 5000, "true", "!!set {a}"),
    )
    if rng.random() < 0.3:
        del lines[at]
        return Mutation("\n".join(lines).encode(), f"without {_short(lines and key)}", "optional")
    new = rng.choice(values)
    lines[at] = f"{key}: {new}"
    return Mutation("\n".join(lines).encode(), f"{_short(key)}: {_short(new)}", "number")


# ---------------------------------------------------------------------------------------- archives


def _zip(content: bytes, rng: random.Random) -> Mutation:
    """Another member, or an archive that is none."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice([name for name in members if not name.endswith("/")])
    kind = rng.randrange(9)
    if kind < 4:
        inner = mutate(name, members[name], rng)
        members[name] = inner.content
        # in the archive it has a checksum: but one of what it is now
        return Mutation(_zipped(members), f"{name}: {inner.what}", inner.may_change)
    match kind:
        case 4:
            del members[name]
            return Mutation(_zipped(members), f"{name} is gone", "gone")
        case 5:
            return Mutation(_zipped(members, twice=name), f"{name} twice")
        case 6:
            members[f"../{name}"] = members.pop(name)
            return Mutation(_zipped(members), f"{name} outside the archive", "text")
        case 7:
            return _odd_entry(members, rng)
        case _:
            return Mutation(_zipped({}), "an archive of nothing")


def _zipped(members: Mapping[str, bytes], *, twice: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if twice is not None:
            with warnings.catch_warnings(action="ignore"):
                archive.writestr(twice, members[twice])
    return buffer.getvalue()


def _odd_entry(members: Mapping[str, bytes], rng: random.Random) -> Mutation:
    """Entries that say of themselves that they are encrypted, packed in an unknown way, or huge."""
    packed = bytearray(_zipped(members))
    directory = packed.rindex(b"PK\x01\x02")
    match rng.randrange(3):
        case 0:
            packed[directory + 8] |= 1
            return Mutation(bytes(packed), "an encrypted member")
        case 1:
            packed[directory + 10] = 77
            return Mutation(bytes(packed), "an unknown compression")
        case _:
            packed[directory + 24 : directory + 28] = (4_000_000_000).to_bytes(4, "little")
            return Mutation(bytes(packed), "a member of 4 GB")


def _tar(content: bytes, rng: random.Random) -> Mutation:
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for info in archive:
            reader = archive.extractfile(info)
            members.append((info, b"" if reader is None else reader.read()))
    at = rng.choice([n for n, (info, _) in enumerate(members) if info.isfile()])
    info, old = members[at]
    match rng.randrange(5):
        case 0 | 1:
            inner = mutate(info.name, old, rng)
            members[at] = (info, inner.content)
            return Mutation(_tarred(members), f"{info.name}: {inner.what}", inner.may_change)
        case 2:
            members.append(members[at])
            return Mutation(_tarred(members), f"{info.name} twice")
        case 3:
            del members[at]
            return Mutation(_tarred(members), f"{info.name} is gone", "gone")
        case _:
            link = tarfile.TarInfo(info.name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            members[at] = (link, b"")
            return Mutation(_tarred(members), f"{info.name} is a link")


def _tarred(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue())


# ------------------------------------------------------------------------------------------ arrays


def _odd_array(array: np.ndarray, rng: random.Random) -> tuple[Any, str, str]:
    """Another array, what it is, and the rule by which numbers may differ."""
    wide = array.astype(np.float64)
    wide.flat[rng.randrange(wide.size)] = 1e300
    odd = {
        "a NaN": np.where(np.arange(array.size).reshape(array.shape) == 3, np.nan, array),
        "an infinite value": np.where(array == array.flat[0], np.inf, array),
        "1e300": wide,
        "transposed": array.T,
        "a channel less": array[:, 1:],
        "no steps": array[:0],
        "numbers without fractions": array.astype(np.int32),
        "texts": array.astype(str),
        "objects": array.astype(object),
        "complex numbers": array.astype(np.complex64),
        "one dimension": array.ravel(),
        "four dimensions": array[None, None],
        "truth values": array > 0,
        "dates": array.astype("datetime64[s]"),
    }
    fine = {
        "a step less": array[1:],
        "doubles": array.astype(np.float64),
        "half the precision": array.astype(np.float16),
        "the other byte order": array.astype(array.dtype.newbyteorder()),
        "a batch of one": array[None],
        "Fortran's order": np.asfortranarray(array),
    }
    what = rng.choice([*odd, *fine])
    return (odd | fine)[what], what, "number" if what in fine else ""


def _npy(content: bytes, rng: random.Random) -> Mutation:
    array = np.load(io.BytesIO(content))
    if rng.random() < 0.75:
        other, what, rule = _odd_array(array, rng)
        return Mutation(_saved(other), what, rule)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"
    shapes = {
        "a row less in its header": b"%d, %d" % (len(array) - 1, array.shape[1]),
        "a row more in its header": b"%d, %d" % (len(array) + 1, array.shape[1]),
        "a shape without end": b"99999999999, 99999999999",
        "a negative shape": b"-1, 4",
        "no shape": b"'x', 4",
        "a shape that runs": b"__import__('os').getcwd(), 4",
    }
    what = rng.choice(list(shapes))
    text = header % shapes[what]
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    data = array.astype("<f4").tobytes()
    start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
    return Mutation(start + text + data, what)


def _saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _npz(content: bytes, rng: random.Random) -> Mutation:
    """An array of features, and in some files a text that says what they are."""
    with np.load(io.BytesIO(content)) as arrays:
        told = {name: arrays[name] for name in arrays.files if name == DESCRIPTION}
        (key,) = set(arrays.files) - set(told)
        array = arrays[key]
    buffer = io.BytesIO()
    if told and rng.random() < 0.5:
        text = _json(str(told[DESCRIPTION]).encode(), rng)
        # a text that numpy cannot hold ends before its zeros
        said = np.array(text.content.decode(errors="replace"))
        np.savez(buffer, **{key: array, DESCRIPTION: said})
        return Mutation(buffer.getvalue(), text.what, text.may_change)
    if rng.random() < 0.3:
        more = {"others": array} if rng.random() < 0.5 else {}
        np.savez(buffer, **({"x": array} | more | told))
        return Mutation(buffer.getvalue(), f"keys x and {list(more)}", "text")
    other, what, rule = _odd_array(array, rng)
    np.savez_compressed(buffer, **{key: other}, **told)
    return Mutation(buffer.getvalue(), what, rule)


def _torch(content: bytes, rng: random.Random) -> Mutation:
    """Features as one tensor, or weights and what stands beside them in a mapping."""
    value = torch.load(io.BytesIO(content), weights_only=True)
    if isinstance(value, torch.Tensor):
        other, what, rule = _odd_tensor(value, rng)
        return Mutation(_torch_saved(other), what, rule)
    weights = next(key for key in ("state_dict", "state_dict_ema", "ema") if key in value)
    if rng.random() < 0.5:
        name = rng.choice(list(value[weights]))
        other, what, rule = _odd_tensor(value[weights][name], rng)
        value[weights][name] = other
        return Mutation(_torch_saved(value), f"{name}: {what}", rule)
    holder = value if rng.random() < 0.5 else value[weights]
    key = rng.choice(list(holder))
    match rng.randrange(3):
        case 0:
            del holder[key]
            return Mutation(_torch_saved(value), f"{key} is gone", "optional")
        case 1:
            holder[f"{key}x"] = holder[key]
            return Mutation(_torch_saved(value), f"{key}x beside {key}")
        case _:
            new = rng.choice([*NO_OBJECTS, 1.5, {"a": 1}])
            holder[key] = new
            return Mutation(_torch_saved(value), f"{key}: {_short(new)}", "optional")


def _odd_tensor(tensor: Any, rng: random.Random) -> tuple[Any, str, str]:
    double = tensor.double()
    flat = double.flatten().clone()
    if flat.numel():
        flat[rng.randrange(flat.numel())] = float("nan")
    odd = {
        "a NaN": flat.reshape(tensor.shape).to(tensor.dtype),
        "1e300": double.clone().fill_(1e300),
        "a meta tensor": torch.empty_like(tensor, device="meta"),
        "sparse": tensor.to_sparse() if tensor.ndim else tensor.clone().fill_(float("nan")),
        "8-bit floats": tensor.to(torch.float8_e4m3fn),
        "complex": tensor.to(torch.complex64),
        "another shape": tensor[None][None][None],
        "quantised": torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        "a list": tensor.tolist(),
        "a text": "tensor",
    }
    fine = {
        "doubles": double,
        "bfloat16": tensor.bfloat16(),
        "other values": tensor * 0.5,
    }
    what = rng.choice([*odd, *fine])
    return (odd | fine)[what], what, "number" if what in fine else ""


def _torch_saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _hdf5(content: bytes, rng: random.Random) -> Mutation:
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        name = rng.choice([name for name in names if file[name].ndim == 2])
        array = file[name][()]
        kind = rng.randrange(6)
        what, rule = f"{name} is gone", "gone"
        if kind < 3:
            other, what, rule = _odd_array(array, rng)
            if other.dtype.kind in "OUM":
                other, what, rule = np.zeros((2, 2), np.int8), "bytes", ""
        del file[name]
        if kind < 3:
            file[name] = other
        elif kind == 3:
            file[name] = h5py.SoftLink("/nowhere")
            what = f"{name} leads nowhere"
        elif kind == 4:
            file.create_dataset(name, shape=(10**9, 10**6), dtype="f4", chunks=(1, 10**4))
            what, rule = f"{name} has 10**15 values", ""
    return Mutation(buffer.getvalue(), what, rule)
