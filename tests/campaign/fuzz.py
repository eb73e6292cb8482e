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
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actionformer.commands.main import main
from campaign.mutations import mutate
from campaign.targets import Target

# seconds after which a case is slow, and after which it is ended
SLOW, LONGEST = 10.0, 60.0
# bytes of memory that a case may take
MOST_MEMORY = 12_000_000_000

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
        _in_child(target.prepare, folder)
        with _copy(folder) as copy:
            code, said, result, _ = _in_child(lambda: _outcome(target), copy)
        if code != 0:
            raise AssertionError(f"{target.name}: undamaged it gives {code}: {said}")
        self.expected = result

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
            began = time.monotonic()
            code, said, result, trace = _in_child(lambda: _outcome(self.target), copy)
            seconds = time.monotonic() - began
            after = _outside(copy)

        def verdict(kind: str, text: str) -> Verdict:
            return Verdict(self.target.name, file, seed, kind, mutation.what, text[-2000:])

        if code < 0:
            return verdict("died", f"signal {-code}: {said}")
        if trace:
            return verdict("traceback", trace)
        if seconds > SLOW:
            return verdict("slow", f"{seconds:.0f} s: {said}")
        if code == 0:
            if result == self.expected:
                return verdict("same", said)
            return verdict("by a rule" if mutation.may_change else "silent", said)
        if code != 1 or said.count("\n") != 1 or Path(file).name not in said:
            return verdict("unnamed", said)
        if before != after:
            return verdict("changed", f"{sorted(set(before) ^ set(after))[:3]} {said}")
        return verdict("refused", said)


def _outcome(target: Target) -> tuple[int, Any]:
    """The exit code of a command, and its result where it succeeded."""
    code = main(list(target.arguments))
    if code or target.result is None:
        return code, None
    return code, target.result()


class _copy:
    """A copy of a folder by hard links, as long as the context lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        self._made = Path(tempfile.mkdtemp(dir=self._folder.parent))
        copy = self._made / "x"
        shutil.copytree(self._folder, copy, copy_function=os.link)
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


def _in_child(function: Any, folder: Path) -> tuple[int, str, Any, str]:
    """Exit code, stderr, result and traceback of a function that runs in a process of its own.

    A fork, so that nothing is imported again; a negative code is the signal that ended it.
    """
    receiver, sender = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(receiver)
        os.chdir(folder)
        out_path, err_path = folder.parent / "stdout", folder.parent / "stderr"
        with out_path.open("w") as out, err_path.open("w") as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
            trace, code, result = "", 0, None
            try:
                given = function()
                code, result = given if isinstance(given, tuple) else (0, given)
            except SystemExit as error:
                code = 2 if error.code else 0
            except BaseException:
                trace = traceback.format_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            printed = out_path.read_text(errors="replace")
            said = err_path.read_text(errors="replace")
            answer = json.dumps([code, said, printed if result is None else result, trace])
            with os.fdopen(sender, "w") as pipe:
                pipe.write(answer)
        os._exit(0)
    os.close(sender)
    text = _received(receiver, child)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or not text:
        return -os.WTERMSIG(status) or -1, "", None, ""
    code, said, result, trace = json.loads(text)
    return code, said, result, trace


def _received(receiver: int, child: int) -> str:
    """What a child sends, which is ended when it takes too long."""
    parts = []
    deadline = time.monotonic() + LONGEST
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


def cases(targets: list[Target], count: int, seed: int) -> Iterator[tuple[Target, str, int]]:
    """(target, file, number) of every case; the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    weights = np.array([target.weight for target in targets])
    for number in range(count):
        target = targets[rng.choice(len(targets), p=weights / weights.sum())]
        yield target, str(rng.choice(list(target.files))), seed * 1_000_000 + number


def quiet() -> None:
    """Let forked processes compute: OpenMP's threads don't survive a fork."""
    torch.set_num_threads(1)
    os.environ["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"] = "60"


def as_line(verdict: Verdict) -> str:
    return json.dumps(asdict(verdict), ensure_ascii=False)
