"""What a benchmark runs on: the instruction sets it can show, and how busy others keep it."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import psutil

# above this share of the machine, times are not those of a machine of one's own
BUSY = 0.05

# sets that a processor may have, the largest first -> what makes oneDNN, MKL and PyTorch's own
# kernels use no larger one
LIMITS = {
    "AVX-512": {},
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    },
}
FLAGS = {"AVX-512": "avx512f", "AVX2": "avx2"}


def instruction_sets() -> dict[str, dict[str, str]]:
    """Those of this processor -> the environment that shows a processor with no larger one."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.exists() else set()
    found = {name: LIMITS[name] for name, flag in FLAGS.items() if flag in flags}
    return found or {"no AVX2": {}}


class Watch:
    """How much of the machine others have used since it was made.

    Others are all processes but this one and its ended children, and what a host takes from a
    virtual machine.
    """

    def __init__(self) -> None:
        self._began, self._used, self._own = time.monotonic(), _used(), _own()

    def others(self) -> float:
        """Their share of all cores, 0 to 1."""
        elapsed = time.monotonic() - self._began
        by_others = (_used() - self._used) - (_own() - self._own)
        return max(0.0, by_others / elapsed / (os.cpu_count() or 1))


def _used() -> float:
    """Seconds that all cores have worked, or that the host has taken."""
    times = psutil.cpu_times()
    # what a system does not tell counts nothing
    return sum(
        getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal")
    )


def _own() -> float:
    """Seconds of processor of this process and its ended children."""
    seconds = 0.0
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(whose)
        seconds += used.ru_utime + used.ru_stime
    return seconds
