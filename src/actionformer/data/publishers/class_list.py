"""Published class lists: one class per line, in the order of the published rows' class indices.

`category_idx.txt` of OpenTAD's annotation folders: one name per line. The same reader takes the
publishers' own lists, where every line begins with the class's number (`class_list.txt` of
MultiTHUMOS: `1 BaseballPitch`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from actionformer.errors import InputError
from actionformer.files import read_text


def read(path: Path) -> list[str]:
    """Class names in order.

    Raises:
        InputError: no such file, an empty one, or a class that occurs twice.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: no class in it")
    names = _without_numbers(lines)
    for name, count in sorted(Counter(names).items()):
        if count > 1:
            raise InputError(f"{path}: class {name!r} occurs twice")
    return names


def _without_numbers(lines: list[str]) -> list[str]:
    """Names in the order of their numbers, where every line begins with one."""
    numbered = []
    for line in lines:
        number, *name = line.split(maxsplit=1)
        if not name or not number.isdigit():
            return lines
        numbered.append((int(number), name[0].strip('"')))
    return [name for _, name in sorted(numbered, key=lambda pair: pair[0])]
