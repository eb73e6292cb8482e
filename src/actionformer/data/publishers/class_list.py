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
from actionformer.files import read_text


def read(path: Path) -> list[str]:
    """Class names in order.

    Raises:
        InputError: no such file, an empty one, a class that occurs twice, numbers with a gap.
    """
    return list(numbered(path).values())


def numbered(path: Path) -> dict[int, str]:
    """Number -> class name, in the order of the numbers; a list without numbers counts from 1.

    Raises:
        InputError: what `read` raises.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: no class in it")
    names = _by_number(lines, path) or dict(enumerate(lines, 1))
    for name, count in sorted(Counter(names.values()).items()):
        if count > 1:
            raise InputError(f"{path}: class {name!r} occurs twice")
    return names


def _by_number(lines: list[str], path: Path) -> dict[int, str]:
    """Names by their numbers; none where not every line begins with one."""
    names: dict[int, str] = {}
    for line in lines:
        number, *name = line.split(maxsplit=1)
        if not name or not re.fullmatch("[0-9]{1,6}", number):
            return {}
        if int(number) in names:
            raise InputError(f"{path}: number {number} stands twice; get the list again")
        names[int(number)] = name[0].strip('"')
    names = dict(sorted(names.items()))
    first, last = min(names), max(names)
    # a line that is lost, or one too many, would give every later class another number
    if first > 1 or last - first + 1 != len(names):
        wanted = f"expected {len(names)} from 0 or 1 on without a gap"
        raise InputError(f"{path}: numbers from {first} to {last}, {wanted}")
    return names
