"""Files in the publishers' containers, with the same bytes wherever they are written."""

from __future__ import annotations

import csv
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.files import atomic_path, write_text

# bytes of a block that deflate stores as it is
STORED = 65535


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """A zip without compression (whose bytes would depend on the library) and with fixed times."""
    with atomic_path(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(members.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)


def write_tar_gz(path: Path, members: Mapping[str, bytes]) -> None:
    """A tar.gz of stored (uncompressed) blocks with fixed times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    raw = buffer.getvalue()
    with atomic_path(path) as part, part.open("wb") as file:
        # a header without name and time, then blocks of deflate, then checksum and size
        file.write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
        for start in range(0, len(raw), STORED):
            block = raw[start : start + STORED]
            is_last = start + STORED >= len(raw)
            file.write(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
        file.write(struct.pack("<II", zlib.crc32(raw), len(raw) & 0xFFFFFFFF))


def feature_members(
    folder: str,
    features: Mapping[str, NDArray[np.float16]],
    *,
    prefix: str = "",
    missing: Sequence[str] | None = None,
) -> dict[str, bytes]:
    """Members of a feature archive: one npy per video, and the list of videos without features."""
    members = {}
    for name, array_TC in features.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array_TC, version=(1, 0), allow_pickle=False)
        members[f"{folder}/{prefix}{name}.npy"] = buffer.getvalue()
    if missing is not None:
        listed = "".join(f"{prefix}{name}\n" for name in missing)
        members[f"{folder}/missing_files.txt"] = listed.encode()
    return members


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
