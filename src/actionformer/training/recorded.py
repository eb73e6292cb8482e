"""Training steps on a CUDA GPU, recorded once for every length and then replayed.

A step is some 1,600 small kernels: launching them can take a processor several times as long as a
GPU needs to run them (`make benchmark` has both). A CUDA graph launches all of them at once
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from actionformer.data.loader import Batch
from actionformer.model.actionformer import Losses
from actionformer.training.average import WeightAverage

# a recording takes the memory of its batch and a fifth of a second
LENGTHS = 8


class Step(Protocol):
    """One iteration on a batch: its losses, and the gradients' norm before they are clipped."""

    def __call__(self, batch: Batch, *, lr: float | Tensor) -> tuple[Losses, Tensor]: ...


@dataclass(frozen=True)
class _Recording:
    """A step of one shape, and where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    losses: Losses
    gradient_norm: Tensor


class RecordedSteps:
    """Steps whose batches have few shapes, as `loader.padded` makes them.

    The first step of a shape runs as it is, which makes ready what PyTorch and cuDNN make ready
    once; the second is recorded. Both compute the same, dropout's random numbers included.
    """

    def __init__(
        self, step: Step, average: WeightAverage, optimizer: torch.optim.Optimizer
    ) -> None:
        """`average` and `optimizer` are those that `step` moves on."""
        self._step, self._average, self._optimizer = step, average, optimizer
        self._recordings: dict[tuple[int, ...], _Recording | None] = {}
        device = optimizer.param_groups[0]["params"][0].device
        # Recordings share their memory: no two run at once, and none reads what another has left.
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
        # a recording repeats the numbers that it was made with: this one is read from the device
        self._lr = torch.zeros((), device=device)

    def __call__(self, batch: Batch, *, lr: float | Tensor) -> tuple[Losses, Tensor]:
        """The results are overwritten by the next step of the same shape."""
        self._lr.fill_(lr)
        shape = (*batch.features_BCT.shape, *batch.segments[0].shape)
        if shape not in self._recordings:
            self._recordings[shape] = None
            return self._run(batch)
        recording = self._recordings[shape]
        if recording is None:
            recording = self._recordings[shape] = self._recorded(batch)
        for there, here in zip(recording.batch.tensors(), batch.tensors(), strict=True):
            there.copy_(here)
        recording.graph.replay()
        self._average.n_averaged += 1
        return recording.losses, recording.gradient_norm

    def _recorded(self, batch: Batch) -> _Recording:
        """Nothing is computed while a step is recorded."""
        own = batch.each(torch.clone)
        graph = torch.cuda.CUDAGraph()
        with self._capturable(), torch.cuda.graph(graph, self._pool, self._stream):
            losses, gradient_norm = self._run(own)
        # counted on the CPU, where nothing was recorded but done
        self._average.n_averaged -= 1
        return _Recording(graph, own, losses, gradient_norm)

    def _run(self, batch: Batch) -> tuple[Losses, Tensor]:
        losses, gradient_norm = self._step(batch, lr=self._lr)
        # what hangs on the losses would tie a later recording to this step's stream
        return losses.detached(), gradient_norm.detach()

    @contextmanager
    def _capturable(self) -> Iterator[None]:
        """The optimiser lets itself be recorded where its groups say so."""
        groups = self._optimizer.param_groups
        for group in groups:
            group["capturable"] = True
        try:
            yield
        finally:
            for group in groups:
                group["capturable"] = False
