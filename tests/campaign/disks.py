"""Disks that are full, or fail: one line, nothing lost, and the next call ends as ever.

RLIMIT_FSIZE is a full disk that HDF5, torch and SQLite see as well; a file system in memory of a
few megabytes is another, where one may be mounted. A failing disk is an fsync that fails (EIO).
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actionformer.commands.main import main
from campaign import sandbox
from campaign.kills import STAGES, Campaign

HOW = ("file size", "file system", "fsync")
# of MLflow, which never fails a stage
UNTRACKED = "MLflow failed"


@dataclass(frozen=True)
class Full:
    """What became of a stage on a full or failing disk."""

    stage: str
    # of HOW
    how: str
    # bytes that fit, or which fsync fails
    limit: int
    # what was wrong; empty: nothing
    wrong: str


def cases(count: int, seed: int) -> Iterator[tuple[str, str, int]]:
    """(stage, how, limit)"""
    rng = random.Random(seed)
    for number in range(count):
        stage = rng.choice(list(STAGES))
        how = HOW[number % 3]
        limit = rng.randrange(30) if how == "fsync" else int(10 ** rng.uniform(3, 6.7))
        yield stage, how, limit


def run(campaign: Campaign, root: Path, stage: str, how: str, limit: int) -> Full:
    """One case; of a kind that can't be had here, the limit of the file's size instead."""
    if how == "file system" and not may_mount():
        how = "file size"
    folder = root / f"disk{os.getpid()}/x"
    campaign.begin(stage, folder)
    before = _contents(folder)
    if how == "file system":
        with _small_file_system(root / f"mounted{os.getpid()}/x", folder, limit) as small:
            done = sandbox.in_child(lambda: main(list(STAGES[stage])), small)
            wrong = _judged(done, before, _contents(small))
            # and with room again
            shutil.rmtree(folder)
            shutil.copytree(small, folder, symlinks=True)
    else:
        done = sandbox.in_child(lambda: _limited(stage, how, limit), folder)
        wrong = _judged(done, before, _contents(folder))
    return Full(stage, how, limit, wrong or campaign.end(stage, folder))


def _limited(stage: str, how: str, limit: int) -> int:
    if how == "file size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    else:
        _fail_fsync(limit)
    code = main(list(STAGES[stage]))
    # the parent is told through a pipe, what was said lies in a file
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return code


def _fail_fsync(after: int) -> None:
    """Let every fsync fail after some that don't."""
    fsync, count = os.fsync, 0

    def failing(handle: int) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    os.fsync = failing


def _judged(done: sandbox.Done, before: dict[str, bytes], after: dict[str, bytes]) -> str:
    """What is wrong with how a command ended, and with what it left."""
    if done.trace:
        return done.trace
    said = [line for line in done.said.splitlines() if UNTRACKED not in line]
    if done.code not in (0, 1):
        return f"exit code {done.code}: {done.said}"
    if done.code == 1 and len(said) != 1:
        return f"{len(said)} lines: {done.said}"
    if done.code == 1 and not any(word in done.said for word in ("not written", "needs", "MLflow")):
        return f"doesn't say that the disk is full: {done.said}"
    lost = [name for name in before if name not in after]
    return f"{lost[:3]} are gone" if lost and done.code else ""


def _contents(folder: Path) -> dict[str, bytes]:
    """Files that a stage may replace, and must not lose."""
    return {
        path.relative_to(folder).as_posix(): b""
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def may_mount() -> bool:
    """May this user mount a file system in memory?"""
    if os.geteuid() or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@contextmanager
def _small_file_system(place: Path, content: Path, room: int) -> Iterator[Path]:
    """A file system in memory that holds a copy of a folder, and has some bytes of room."""
    used = sum(path.stat().st_blocks * 512 + 4096 for path in content.rglob("*"))
    place.mkdir(parents=True, exist_ok=True)
    size = f"size={used + room}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], check=True)
    try:
        shutil.copytree(content, place, symlinks=True, dirs_exist_ok=True)
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
