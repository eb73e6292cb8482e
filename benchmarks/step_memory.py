"""Training steps on random features, and what a process that does nothing else takes.

python benchmarks/step_memory.py ROW BATCH THREADS      prints bytes, and seconds a step
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path

import torch

from actionformer import load_experiment
from actionformer.training.cost import Trainer, batch_of
from actionformer.training.device import prepare_cpu


def peak_memory() -> int:
    """Peak resident bytes of this process, without those of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    row, batch, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    prepare_cpu(threads)
    experiment = load_experiment(row)
    trainer = Trainer(experiment)
    features = batch_of(
        experiment, [experiment.model.max_seq_len] * batch, torch.Generator().manual_seed(0)
    )
    taken = []
    for _ in range(4):
        began = time.perf_counter()
        trainer.step(features)
        taken.append(time.perf_counter() - began)
    # the first one warms up
    print(peak_memory(), statistics.median(taken[1:]))


if __name__ == "__main__":
    main()
