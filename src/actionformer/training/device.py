"""What a job runs on: the CPU with its threads and memory, or a GPU that no other job holds."""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from actionformer.errors import InputError

POLL_SECONDS = 2.0
# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def prepare_cpu(threads: int) -> None:
    """Use this many threads, and keep freed memory for the next step.

    For commands alone: it changes the whole process. Every step frees and takes the same gigabytes;
    the kernel would clear them anew each time, which costs a tenth and more of a step
    (docs/performance.md). Where the C library is not glibc, nothing is changed.
    """
    torch.set_num_threads(threads)
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    # large blocks come from the heap, too
    mallopt(M_MMAP_MAX, 0)
    # what is freed at its end stays with the process
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    # it grows in steps of 64 MiB
    mallopt(M_TOP_PAD, 64 << 20)


@contextmanager
def leased_device(wanted: str = "auto") -> Iterator[str]:
    """'auto': a free GPU where there is any, otherwise the CPU; anything else is taken as given.

    A GPU is free if its lock file is: jobs that start together on one machine get different ones,
    or wait.
    """
    if wanted != "auto":
        _refuse_absent(wanted)
    if wanted != "auto" or not torch.cuda.is_available():
        yield "cpu" if wanted == "auto" else wanted
        return
    folder = Path(tempfile.gettempdir()) / f"actionformer-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        for index in range(torch.cuda.device_count()):
            # the same whatever CUDA_VISIBLE_DEVICES says
            uuid = torch.cuda.get_device_properties(index).uuid
            lock = FileLock(folder / f"{uuid}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield f"cuda:{index}"
            finally:
                lock.release()
            return
        time.sleep(POLL_SECONDS)


def _refuse_absent(wanted: str) -> None:
    """One line for a device that torch doesn't know, or that this machine doesn't have."""
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise InputError(f"device '{wanted}': expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device '{wanted}': torch sees {torch.cuda.device_count()} CUDA devices here"
        )
