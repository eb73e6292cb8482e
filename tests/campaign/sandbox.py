"""A function in a process of its own, forked from one that has everything imported."""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# seconds after which a child is ended
LONGEST = 120.0
# bytes of memory that a child may take
MOST_MEMORY = 12_000_000_000


@dataclass(frozen=True)
class Done:
    """What became of a child."""

    # its exit code; negative: the signal that ended it
    code: int
    # its stderr
    said: str = ""
    # what its function returned, or what it printed
    result: Any = None
    # the traceback of an exception that escaped it
    trace: str = ""


def quiet() -> None:
    """Let forked processes compute: OpenMP's threads don't survive a fork."""
    torch.set_num_threads(1)
    os.environ["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"] = "60"
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def copied(source: Path, target: Path) -> None:
    """A copy by hard links, but of what is written in place: databases and locks.

    Those would be one file in all copies, whose processes wait for each other.
    """

    def copy(here: str, there: str) -> None:
        in_place = here.endswith((".lock", ".db")) or ".partial" in here
        (shutil.copy2 if in_place else os.link)(here, there)

    shutil.copytree(source, target, copy_function=copy)


def in_child(function: Callable[[], Any], folder: Path, longest: float = LONGEST) -> Done:
    """Run a function in `folder`; it returns an exit code, or that and a result, or a result."""
    return ended(begun(function, folder), longest)


def begun(function: Callable[[], Any], folder: Path, name: str = "std") -> tuple[int, int]:
    """Begin `in_child`: the process and the pipe that will tell what became of it."""
    receiver, sender = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(receiver)
        try:
            _answer(function, folder, name, sender)
        finally:
            os._exit(0)
    os.close(sender)
    return child, receiver


def ended(begun: tuple[int, int], longest: float = LONGEST) -> Done:
    """Wait for what was begun."""
    child, receiver = begun
    text = _received(receiver, child, longest)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or not text:
        return Done(-os.WTERMSIG(status) or -1)
    return Done(*json.loads(text))


def at_once(functions: Sequence[Callable[[], Any]], folder: Path) -> list[Done]:
    """Several functions in processes that run at once, in one folder."""
    children = [begun(function, folder, f"std{i}") for i, function in enumerate(functions)]
    return [ended(child) for child in children]


def _answer(function: Callable[[], Any], folder: Path, name: str, sender: int) -> None:
    """What the child does: run, and tell its parent."""
    os.chdir(folder)
    out_path, err_path = folder.parent / f"{name}.out", folder.parent / f"{name}.err"
    with out_path.open("w") as out, err_path.open("w") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    trace, code, result = "", 0, None
    try:
        given = function()
        if isinstance(given, tuple):
            code, result = given
        elif isinstance(given, int):
            code = given
        else:
            result = given
    except SystemExit as error:
        code = 2 if error.code else 0
    except BaseException:
        trace = traceback.format_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    said = err_path.read_text(errors="replace")
    if result is None:
        result = out_path.read_text(errors="replace")
    with os.fdopen(sender, "w") as pipe:
        pipe.write(json.dumps([code, said, result, trace]))


def _received(receiver: int, child: int, longest: float) -> str:
    """What a child sends, which is ended when it takes too long."""
    parts = []
    deadline = time.monotonic() + longest
    while True:
        ready, _, _ = select.select([receiver], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            os.kill(child, signal.SIGKILL)
            break
        part = os.read(receiver, 1 << 16)
        if not part:
            break
        parts.append(part)
    os.close(receiver)
    return b"".join(parts).decode()
