"""Published class lists: one class per line, in the order of the published rows' class indices.

`category_idx.txt` of OpenTAD's annotation folders: one name per line. The same reader takes the
publishers' own lists, where every line begins with the class's number (`class_list.txt` of
MultiTHUMOS: `1 BaseballPitch`).
"""

from __future__ import annotations

from pathlib import Path

from actionformer.errors import InputError
from actionformer.files import read_text


def read(path: Path) -> list[str]:
    """Class names in order.

    Raises:
        InputError: no such file, an empty one, or a class that occurs twice.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    numbered = [line.split(maxsplit=1) for line in lines]
    if all(len(parts) == 2 and parts[0].isdigit() for parts in numbered):
        lines = [name.strip('"') for _, name in sorted(numbered, key=lambda parts: int(parts[0]))]
    twice = sorted({name for name in lines if lines.count(name) > 1})
    if twice or not lines:
        raise InputError(
            f"{path}: {f'class {twice[0]!r} occurs twice' if twice else 'no class in it'}"
        )
    return lines
