"""Ctrl-C and SIGTERM end a command, even where the exception gets lost.

Python raises in whatever runs when a signal comes. In the callback of a weak reference, of which
h5py has thousands, an exception is printed and forgotten, and the command would go on. So a signal
is remembered, too, and every loop that shows its progress asks.
"""

from __future__ import annotations

import signal


class Terminated(BaseException):
    """SIGTERM: unwinds like Ctrl-C."""


# the signals that came; a signal handler can keep them nowhere else
_came: list[int] = []


def catch() -> None:
    """From now on a scheduler's SIGTERM leaves no more behind than Ctrl-C does."""
    _came.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        # what runs in the background of a script is not meant to hear Ctrl-C
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def check() -> None:
    """Raise what a signal that has come should have raised."""
    if _came:
        raise _meaning(_came[-1])


def _stop(number: int, frame: object) -> None:
    _came.append(number)
    raise _meaning(number)


def _meaning(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated()
