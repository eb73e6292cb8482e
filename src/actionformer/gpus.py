"""How jobs share the GPUs of a machine: so many at once on each, and the others wait.

Light: Snakemake asks for the number of places before any job loads torch.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

POLL_SECONDS = 2.0
# A training step at full length takes 1 to 3 GB (docs/performance.md), what CUDA and its libraries
# keep for a process not much less; more jobs than that gain little.
MB_PER_JOB = 8000


def slots_of(memory_mb: int, given: int | None = None) -> int:
    """How many jobs share a GPU: as many as given, or as fit its memory, but at least one."""
    return given or max(1, memory_mb // MB_PER_JOB)


def places(given: int | None = None) -> int:
    """How many jobs fit all NVIDIA GPUs that this process may use."""
    return sum(slots_of(memory, given) for memory in _memories_mb())


def _memories_mb() -> list[int]:
    """Memory of every GPU, without loading torch; 0 where the driver does not tell."""
    devices = _devices()
    if not devices:
        return []
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
        memories = [int(line) for line in told.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        memories = []
    memories = (memories + [0] * devices)[:devices]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return memories if visible is None else _visible(memories, visible)


def _visible(memories: Sequence[int], named: str) -> list[int]:
    """Of the memories of all GPUs those that CUDA_VISIBLE_DEVICES names, by number or UUID.

    As CUDA reads it: the first name of none ends the list. Which one a UUID is isn't asked.
    """
    chosen: dict[int, int] = {}
    for place, name in enumerate(named.split(",")):
        is_uuid = name.strip().startswith(("GPU-", "MIG-"))
        number = str(place) if is_uuid else name.strip()
        if not number.isdecimal() or int(number) >= len(memories) or int(number) in chosen:
            break
        chosen[int(number)] = memories[int(number)]
    return list(chosen.values())


def _devices() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


@contextmanager
def leased(
    slots: Mapping[str, int], say: Callable[[str], None], folder: Path | None = None
) -> Iterator[str]:
    """The GPU on which this job has a place, until the block ends; waits for one.

    Args:
        slots: how many jobs may share a GPU, by its UUID.
        folder: of the lock files, one for every place; the same for all jobs on a machine.
    """
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"actionformer-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    told = False
    while True:
        # first a GPU of its own, then one to share
        for slot in range(max(slots.values())):
            for uuid, count in slots.items():
                if slot >= count:
                    continue
                lock = FileLock(folder / f"{uuid}.{slot}.lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                try:
                    yield uuid
                finally:
                    lock.release()
                return
        if not told:
            taken = f"{sum(slots.values())} places on {len(slots)} GPU(s)"
            say(f"waits for a GPU: all {taken} are taken (locks in {folder})")
            told = True
        time.sleep(POLL_SECONDS)
