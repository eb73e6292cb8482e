"""Progress of long work: a bar with the time left on a terminal, nothing in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, *, unit: str = "it", total: int | None = None) -> Iterator[Item]:
    """`items`, with a bar on stderr while they are consumed, if stderr is a terminal."""
    yield from tqdm(items, desc=what, unit=unit, total=total, leave=False, disable=not sys.stderr.isatty())
