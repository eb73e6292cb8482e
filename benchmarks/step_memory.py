"""Training steps on random features, and what a process that does nothing else takes.

python benchmarks/step_memory.py ROW BATCH THREADS      prints bytes, and seconds a step
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from actionformer import ActionFormer, load_experiment
from actionformer.data.loader import Batch
from actionformer.params.experiment import Experiment
from actionformer.training.device import prepare_cpu
from actionformer.training.loop import training_step
from actionformer.training.optimizer import adamw


def batch_of(experiment: Experiment, lengths: Sequence[int], generator: torch.Generator) -> Batch:
    """Random features of these lengths, padded to the longest, with a dozen segments each."""
    C, T = experiment.model.in_channels, max(lengths)
    features = torch.randn(len(lengths), T, C, generator=generator).transpose(1, 2)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    segments, labels = [], []
    for length in lengths:
        start = torch.rand(12, generator=generator) * length * 0.8
        end = start + 2 + torch.rand(12, generator=generator) * length * 0.2
        segments.append(torch.stack([start, end], 1))
        labels.append(torch.randint(experiment.model.num_classes, (12,), generator=generator))
    return Batch(features * mask[:, None], mask, segments, labels)


@dataclass
class Trainer:
    """A network with its optimiser and average, ready for steps."""

    experiment: Experiment
    device: str = "cpu"

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        precision = self.experiment.training.precision
        self.model = ActionFormer(self.experiment.model, precision).train().to(self.device)
        average = get_ema_multi_avg_fn(self.experiment.training.ema_decay)
        self.ema = AveragedModel(self.model, multi_avg_fn=average)
        self.optimizer = adamw(self.model, self.experiment.training)

    def step(self, batch: Batch) -> None:
        losses, norm = training_step(self.model, self.ema, self.optimizer, batch, lr=1e-5, clip=1.0)
        float(losses.total.detach()), float(norm)


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
