"""What a training costs: the network's operations, and how many a machine does a second."""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from actionformer.data.loader import Batch
from actionformer.model.actionformer import ActionFormer
from actionformer.params.experiment import Experiment, ModelParams

# times the forward pass: products with the gradient, for inputs and for weights
BACKWARD = 2
MATRIX = 2048


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


def step_flops(model: ActionFormer, batch: Batch) -> float:
    """Operations of the forward and backward pass of one batch, counted as they run."""
    with FlopCounterMode(display=False) as counted:
        losses = model.loss(batch.features_BCT, batch.mask_BT, batch.segments, batch.labels)
        losses.total.backward()
    return float(counted.get_total_flops())


def matrix_rate(repeats: int = 3) -> tuple[str, float]:
    """The device that training would use, and its operations a second in matrix products.

    Of float32 matrices of 2048 x 2048, the median of several.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(MATRIX, MATRIX, device=device)
    times = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        (a @ a).sum().item()
        times.append(time.perf_counter() - began)
    # the first one warms up
    return device, 2 * MATRIX**3 / statistics.median(times[1:])
