"""Damage to every reader of outside data: `python -m campaign.fuzz --help`, in tests/.

A case is a target, a file of it and a number that seeds the damage. It is good when the command
gives one line that names the file, exit code 1, and leaves everything outside build/ as it was; or
the same numbers; or numbers that differ where a rule of `mutations.RULES` says that they may.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actionformer.commands.main import main
from campaign import sandbox
from campaign.mutations import Mutation, mutate
from campaign.targets import Target

# seconds of a processor after which a case is slow, seconds after which it is ended
SLOW, LONGEST = 10.0, 60.0

GOOD = ("refused", "same", "by a rule")
BAD = ("traceback", "silent", "unnamed", "changed", "slow", "died")


@dataclass(frozen=True)
class Verdict:
    """What became of a case."""

    target: str
    file: str
    seed: int
    # of GOOD or BAD
    verdict: str
    # the damage, in words
    what: str
    # what the command said, or what the numbers became
    said: str

    @property
    def is_good(self) -> bool:
        return self.verdict in GOOD


class Prepared:
    """The folder of a target, and what its command gives there without any damage."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        folder.mkdir(parents=True)
        os.chdir(folder)
        sandbox.in_child(target.prepare, folder)
        with _copy(folder) as copy:
            done = sandbox.in_child(lambda: _outcome(target), copy)
        if done.code != 0:
            raise AssertionError(f"{target.name}: undamaged it gives {done.code}: {done.said}")
        self.expected = done.result

    def run(self, file: str, seed: int) -> Verdict:
        """One case."""
        rng = random.Random(f"{self.target.name} {file} {seed}")
        content = (self.folder / file).read_bytes()
        mutation = mutate(file, content, rng)
        with _copy(self.folder) as copy:
            # a hard link of the undamaged one
            (copy / file).unlink()
            (copy / file).write_bytes(mutation.content)
            before = _outside(copy)
            before_it = _of_children()
            done = sandbox.in_child(lambda: _outcome(self.target), copy, LONGEST)
            seconds = _of_children() - before_it
            after = _outside(copy)

        kind, text = self._judged(file, done, seconds, mutation, before == after)
        return Verdict(self.target.name, file, seed, kind, mutation.what, text[-2000:])

    def _judged(
        self, file: str, done: sandbox.Done, seconds: float, mutation: Mutation, untouched: bool
    ) -> tuple[str, str]:
        """The verdict, and what speaks for it."""
        if done.code < 0:
            return "died", f"signal {-done.code}: {done.said}"
        if done.trace:
            return "traceback", done.trace
        if seconds > SLOW:
            return "slow", f"{seconds:.0f} s: {done.said}"
        if done.code == 0 and done.result == self.expected:
            return "same", done.said
        if done.code == 0:
            return "by a rule" if mutation.may_change else "silent", done.said
        if done.code != 1 or done.said.count("\n") != 1 or Path(file).name not in done.said:
            return "unnamed", done.said
        return "refused" if untouched else "changed", done.said


def _of_children() -> float:
    """Seconds that ended children have computed: what runs beside does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _outcome(target: Target) -> tuple[int, Any]:
    """The exit code of a command, and its result where it succeeded."""
    code = main(list(target.arguments))
    if code or target.result is None:
        return code, None
    return code, target.result()


class _copy:
    """A copy of a folder, as long as the context lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        self._made = Path(tempfile.mkdtemp(dir=self._folder.parent))
        copy = self._made / "x"
        sandbox.copied(self._folder, copy)
        return copy

    def __exit__(self, *rest: object) -> None:
        shutil.rmtree(self._made)


def _outside(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file outside build/, with its size and time."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("build/"):
            status = path.stat()
            found[name] = status.st_size, status.st_mtime_ns
    return found


def cases(targets: list[Target], count: int, seed: int) -> Iterator[tuple[Target, str, int]]:
    """(target, file, number) of every case; the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    weights = np.array([target.weight for target in targets])
    for number in range(count):
        target = targets[rng.choice(len(targets), p=weights / weights.sum())]
        yield target, str(rng.choice(list(target.files))), seed * 1_000_000 + number


def as_line(verdict: Verdict) -> str:
    return json.dumps(asdict(verdict), ensure_ascii=False)
