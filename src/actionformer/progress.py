"""Progress of long work: a bar with the time left on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

from actionformer import interrupts

Item = TypeVar("Item")

# between two lines in a log
LINE_SECONDS = 30.0


def progress(
    items: Iterable[Item], what: str, *, unit: str = "it", total: int | None = None
) -> Iterator[Item]:
    """`items`; while they are consumed, stderr says how far that is and how long it will take."""
    if sys.stderr.isatty():
        for item in tqdm(items, desc=what, unit=unit, total=total, leave=False):
            interrupts.check()
            yield item
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    began, say = time.monotonic(), now_and_then()
    for count, item in enumerate(items):
        interrupts.check()
        say(_line(what, count, unit, total, time.monotonic() - began))
        yield item


def now_and_then() -> Callable[[str], None]:
    """Says of many lines one on stderr, where half a minute has passed since the last."""
    said = time.monotonic()

    def say(line: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= LINE_SECONDS:
            said = now
            print(line, file=sys.stderr, flush=True)

    return say


def clock(seconds: float) -> str:
    """h:mm:ss"""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _line(what: str, count: int, unit: str, total: int | None, seconds: float) -> str:
    of = "" if total is None else f" of {total}"
    left = "" if not total or not count else f", {clock(seconds / count * (total - count))} left"
    return f"{what}: {count}{of} ({unit}), {clock(seconds)} so far{left}"
