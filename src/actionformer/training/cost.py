"""What a training costs: the network's operations, and how many a machine does a second."""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from actionformer.model.actionformer import ActionFormer
from actionformer.params.experiment import Experiment, ModelParams

# times the forward pass: products with the gradient, for inputs and for weights
BACKWARD = 2
MATRIX = 2048
# the first products of a process wait for threads, pages and the processor's clock
WARM_UP = 3


def forward_flops(params: ModelParams, length: int) -> float:
    """Floating-point operations of one video of `length` steps through the network."""
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        network = ActionFormer(params).eval()
        features_BCT = torch.empty(1, params.in_channels, length)
        network(features_BCT, torch.ones(1, length, dtype=torch.bool))
    return float(counted.get_total_flops())


def training_flops(experiment: Experiment, videos: int) -> float:
    """Operations of one seed's training on full-length crops.

    Real crops are as long as their videos, so this is an upper bound.
    """
    length = experiment.data.random_trunc.length
    one_step = forward_flops(experiment.model, length) * (1 + BACKWARD)
    return one_step * videos * experiment.training.epochs


def matrix_rate(device: str, repeats: int = 3) -> float:
    """Operations a second of float32 products of 2048 x 2048 matrices, the median of several."""
    a, b = torch.randn(2, MATRIX, MATRIX, device=device)
    times = []
    for _ in range(WARM_UP + repeats):
        began = time.perf_counter()
        _ = a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * MATRIX**3 / statistics.median(times[WARM_UP:])
