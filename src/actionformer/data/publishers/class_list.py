"""Published class lists: one class per line, in the order of the published rows' class indices.

`category_idx.txt` of OpenTAD's annotation folders: one name per line. The same reader takes the
publishers' own lists, where every line begins with the class's number (`class_list.txt` of
MultiTHUMOS: `1 BaseballPitch`).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from actionformer.errors import InputError
from actionformer.files.reading import read_text


def read(path: Path) -> list[str]:
    """Class names in the order of their numbers, or of their lines where they have none.

    The numbers may have gaps, as in THUMOS-14's list of its 20 detection classes (7, 9, 12, ...).

    Raises:
        InputError: no such file, an empty one, a class or number that occurs twice, a line without
            a number among others that have one.
    """
    return list(_names(path).values())


def numbered(path: Path) -> dict[int, str]:
    """Number -> class name, in the order of the numbers; a list without numbers counts from 1.

    Raises:
        InputError: what `read` raises, and numbers with a gap.
    """
    names = _names(path)
    first, last = min(names), max(names)
    # a line that is lost, or one too many, would give every later class another number
    if first > 1 or last - first + 1 != len(names):
        wanted = f"expected {len(names)} from 0 or 1 on without a gap"
        raise InputError(f"{path}: numbers from {first} to {last}, {wanted}")
    return names


def _names(path: Path) -> dict[int, str]:
    """Number -> class name."""
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: no class in it")
    names = _by_number(lines, path) or dict(enumerate(lines, 1))
    for name, count in sorted(Counter(names.values()).items()):
        if count > 1:
            raise InputError(f"{path}: class {name!r} occurs twice")
    return names


def _by_number(lines: list[str], path: Path) -> dict[int, str]:
    """Names by their numbers; none where the lines are not numbered."""
    found = [re.fullmatch(r"([0-9]{1,6})\s+(.+)", line) for line in lines]
    # a list without numbers may hold a class such as "50 metres"
    if sum(match is not None for match in found) <= len(lines) / 2:
        return {}
    names: dict[int, str] = {}
    for line, match in zip(lines, found, strict=True):
        if match is None:
            raise InputError(f"{path}: {line!r} has no number, others have; get the list again")
        number = int(match[1])
        if number in names:
            raise InputError(f"{path}: number {number} stands twice; get the list again")
        names[number] = match[2].strip('"')
    return dict(sorted(names.items()))
