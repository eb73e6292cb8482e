"""What a training costs: the operations of the network, and how many of them a machine does a
second.
"""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

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


def matrix_rate() -> tuple[str, float]:
    """The device that training would use, and its operations a second in matrix products."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(MATRIX, MATRIX, device=device)
    best = float("inf")
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - began)
    return device, 2 * MATRIX**3 / best
