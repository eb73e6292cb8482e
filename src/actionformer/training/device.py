"""What a job runs on: the CPU with its threads and memory, or a GPU that has a place for it."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from actionformer import gpus
from actionformer.errors import InputError, first_line
from actionformer.training.agreement import AGREES, SMALL, step_difference

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


def release_memory() -> None:
    """Give back to the system what is freed, of which `prepare_cpu` lets the process keep all.

    Between work of different kinds: blocks of other sizes lie beside those that are kept, and a
    training that evaluates would take the memory of both.
    """
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def to_stderr(line: str) -> None:
    """Tell whoever watches a job."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def leased_device(
    wanted: str = "auto",
    gpu_slots: int | None = None,
    say: Callable[[str], None] = to_stderr,
) -> Iterator[str]:
    """'auto': a GPU with a place for this job, otherwise the CPU; anything else as given.

    Jobs that start together on one machine share its GPUs evenly, and wait where all are full
    (`gpus.leased`). Apple's GPU is taken if a training step there agrees with one on the CPU.

    Args:
        gpu_slots: how many jobs may share a GPU; default: as many as fit its memory.
    """
    if wanted != "auto":
        _refuse_absent(wanted)
        yield wanted
        return
    if not torch.cuda.is_available():
        yield "mps" if torch.backends.mps.is_available() and _agrees("mps", say) else "cpu"
        return
    indices, slots = {}, {}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        # the same whatever CUDA_VISIBLE_DEVICES says
        uuid = str(properties.uuid)
        indices[uuid] = index
        slots[uuid] = gpus.slots_of(properties.total_memory >> 20, gpu_slots)
    with gpus.leased(slots, say) as uuid:
        yield f"cuda:{indices[uuid]}"


def _agrees(device: str, say: Callable[[str], None]) -> bool:
    """Does a training step give the same there as on the CPU? Says why not."""
    try:
        difference = step_difference(SMALL, device)
    except (RuntimeError, NotImplementedError) as error:
        why = first_line(error)
    else:
        if difference < AGREES:
            return True
        why = f"a training step differs by {difference:.1g} from the CPU's"
    say(f"{device} is not used: {why}; the CPU is")
    return False


def _refuse_absent(wanted: str) -> None:
    """One line for a device that isn't for this, or that this machine doesn't have."""
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,3})?", wanted):
        raise InputError(f"device '{wanted}': expected auto, cpu, cuda, cuda:N or mps")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps': torch sees no GPU of Apple's here")
    index = int(wanted.partition(":")[2] or 0)
    if wanted.startswith("cuda") and index >= torch.cuda.device_count():
        raise InputError(
            f"device '{wanted}': torch sees {torch.cuda.device_count()} CUDA devices here"
        )
