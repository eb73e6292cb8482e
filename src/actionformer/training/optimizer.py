"""Parameter groups and the learning rate (METHOD section 3)."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from actionformer.params.experiment import TrainingParams

ETA_MIN = 1e-8


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights of convolutions and linear layers decay, everything else doesn't."""
    with_decay: list[nn.Parameter] = []
    without_decay: list[nn.Parameter] = []
    decaying = set()
    for prefix, module in model.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Linear)):
            decaying.add(f"{prefix}.weight")
    # by name, as published: the optimizer's state is kept by place
    for name, parameter in sorted(model.named_parameters()):
        (with_decay if name in decaying else without_decay).append(parameter)
    return [
        {"params": with_decay, "weight_decay": weight_decay},
        {"params": without_decay, "weight_decay": 0.0},
    ]


def learning_rate(iteration: int, *, base: float, warmup: int, total: int) -> float:
    """The rate used at `iteration`, counted from 0.

    From 0 linearly to `base` at iteration warmup - 1, `base` again at `warmup`, then a cosine to
    1e-8 at `total`.

    Args:
        warmup: iterations of it.
        total: iterations in all, the warm-up included.
    """
    if iteration < warmup:
        # as published: the first step has a rate of 0, and the highest rate comes twice
        return base * iteration / max(warmup - 1, 1)
    progress = (iteration - warmup) / max(total - warmup, 1)
    return ETA_MIN + (base - ETA_MIN) * (1 + math.cos(math.pi * progress)) / 2


class AdamW(torch.optim.AdamW):
    """PyTorch's, without importing its compiler, which would take 1.6 s of every training.

    PyTorch imports it in order to tell it that it has no business in these methods. It sees
    networks alone here (`training.compiled`).
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


def adamw(model: nn.Module, params: TrainingParams) -> AdamW:
    """AdamW with PyTorch's betas and eps."""
    # fused: one kernel for all tensors
    return AdamW(parameter_groups(model, params.weight_decay), lr=params.lr, fused=True)
