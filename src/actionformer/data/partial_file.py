"""Partial files: what a download or a copy has brought so far, and what it says meanwhile."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.params.dataset import Source

LINE_SECONDS = 30.0


def part_of(target: Path, source: Source) -> Path:
    """The partial file of a source: what one began another must not go on with."""
    address = f"{source.address}/{source.path}".encode()
    label = hashlib.md5(address, usedforsecurity=False).hexdigest()[:8]
    return target.with_name(f"{target.name}.{label}.part")


def name_of(part: Path) -> str:
    """The name of the file that a partial file becomes; of a file in a partial folder, its own."""
    return part.name.rsplit(".", 2)[0] if part.suffix == ".part" else part.name


def validator(part: Path) -> Path:
    """Beside a partial file: what tells whether the server still has the file that it began."""
    return part.with_suffix(".validator")


def told(part: Path) -> dict[str, Any]:
    """What the validator says; nothing where there is none, or a damaged one."""
    try:
        return read_object(validator(part))
    except InputError:
        return {}


def give_up(part: Path) -> None:
    """Begin anew next time."""
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    part.unlink(missing_ok=True)
    validator(part).unlink(missing_ok=True)


def refuse_without_room(part: Path, more: int) -> None:
    """Refuse what doesn't fit before it begins."""
    free = shutil.disk_usage(part.parent).free
    if more > free:
        raise InputError(
            f"needs {more / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free in {part.parent}"
        )


def shown(blocks: Iterable[bytes], part: Path, *, total: int, done: int = 0) -> Iterator[bytes]:
    """Blocks for a partial file, with a bar of size and rate; without a terminal, a line at times.

    Args:
        total: bytes of the whole file; 0 where nobody knows.
        done: bytes that the partial file has.
    """
    what = name_of(part)
    on_terminal = sys.stderr.isatty()
    began = said = time.monotonic()
    came = 0
    with tqdm(
        total=total or None,
        initial=done,
        desc=what,
        unit="B",
        unit_scale=True,
        disable=not on_terminal,
    ) as bar:
        for block in blocks:
            yield block
            came += len(block)
            bar.update(len(block))
            now = time.monotonic()
            if not on_terminal and now - said > LINE_SECONDS:
                said, rate = now, came / (now - began)
                of = f" of {total / 1e6:.0f}" if total else ""
                print(
                    f"{what}: {(done + came) / 1e6:.0f}{of} MB, {rate / 1e6:.1f} MB/s",
                    file=sys.stderr,
                    flush=True,
                )
