"""Does a device compute what the CPU computes? One step of the same network there and here."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from actionformer.data.loader import Batch
from actionformer.model.actionformer import ActionFormer
from actionformer.model.precision import convolutions_in
from actionformer.params.experiment import ModelParams, Precision

# relative difference of losses and gradients that float32 summed in another order explains
AGREES = 1e-3

SMALL = ModelParams(
    in_channels=32,
    num_classes=5,
    channels=32,
    branch_blocks=3,
    max_seq_len=64,
    attention_window=5,
    regression_range=((0, 4), (4, 8), (8, 16), (16, 10000)),
    absolute_position_embedding=True,
)


def step_difference(params: ModelParams, device: str, precision: Precision = "float32") -> float:
    """The largest difference of losses and of gradients, relative to the CPU's in float32.

    Without dropout, whose random numbers every device draws for itself.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ActionFormer(params, "float32").eval()
        batch = step_batch(params)
    there = deepcopy(model).to(device)
    there.precision = precision
    expected = _losses_and_gradients(model, batch)
    found = _losses_and_gradients(there, batch.each(lambda tensor: tensor.to(device)))
    largest = 0.0
    for one, other in zip(expected, found, strict=True):
        distance = (one - other.cpu()).norm() / one.norm().clamp(min=1e-12)
        largest = max(largest, float(distance))
    return largest


def step_batch(params: ModelParams) -> Batch:
    """Two videos of random features, one of them shorter, with an action or two each."""
    length = params.max_seq_len
    features_BCT = torch.randn(2, params.in_channels, length)
    mask_BT = torch.arange(length) < torch.tensor([[length], [length // 2]])
    labels = [torch.tensor([0, params.num_classes - 1]), torch.tensor([0])]
    segments = [torch.tensor([[1.0, 4.0], [5.0, length / 2]]), torch.tensor([[2.5, 9.0]])]
    return Batch(features_BCT, mask_BT, segments, labels)


def _losses_and_gradients(model: ActionFormer, batch: Batch) -> list[Tensor]:
    """Both losses, and the gradients of all parameters in one vector."""
    with convolutions_in(model.precision):
        losses = model.loss(batch.features_BCT, batch.mask_BT, batch.segments, batch.labels)
        losses.total.backward()
    gradients = [
        parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None
    ]
    return [losses.classification.detach(), losses.regression.detach(), torch.cat(gradients)]
