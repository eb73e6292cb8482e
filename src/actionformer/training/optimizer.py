"""Parameter groups and the learning rate (METHOD section 3)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from actionformer.params.experiment import TrainingParams

ETA_MIN = 1e-8


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups, parameters sorted by name: convolution and linear weights decay, everything else
    doesn't.
    """
    decaying = {
        f"{prefix}.weight"
        for prefix, module in model.named_modules()
        if isinstance(module, (nn.Conv1d, nn.Linear))
    }
    named = sorted(model.named_parameters())
    return [
        {"params": [p for name, p in named if name in decaying], "weight_decay": weight_decay},
        {"params": [p for name, p in named if name not in decaying], "weight_decay": 0.0},
    ]


def learning_rate(iteration: int, *, base: float, warmup: int, total: int) -> float:
    """The rate used at `iteration` (from 0); `warmup` and `total` count iterations, `total`
    includes the warm-up.

    From 0 linearly to `base` at iteration warmup - 1, `base` again at `warmup`, then a cosine to
    1e-8 at `total`.
    """
    if iteration < warmup:
        return base * iteration / max(warmup - 1, 1)
    progress = (iteration - warmup) / max(total - warmup, 1)
    return ETA_MIN + (base - ETA_MIN) * (1 + math.cos(math.pi * progress)) / 2


def adamw(model: nn.Module, params: TrainingParams) -> torch.optim.AdamW:
    """AdamW with PyTorch's betas and eps."""
    return torch.optim.AdamW(parameter_groups(model, params.weight_decay), lr=params.lr, fused=True)
