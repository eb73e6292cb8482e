"""The average of the weights that training leaves behind, which is what detects."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from actionformer.model.actionformer import ActionFormer


class WeightAverage(AveragedModel):
    """Exponential moving average of a network's parameters; buffers are copied.

    Its first update copies instead of averaging: the initial weights, as the first learning rate is
    0. A counter in its state says that this has been, so that a resumed training doesn't copy
    again.

    What it computes is `AveragedModel`'s, which sends the counter to the network's device at every
    update: there a GPU would be waited for.
    """

    module: ActionFormer

    def __init__(self, network: ActionFormer, decay: float) -> None:
        """`decay`: what is kept of the average at every update."""
        super().__init__(network)
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """One more state of the network, on the same device."""
        averaged, current = list(self.module.parameters()), list(model.parameters())
        copied = list(zip(self.module.buffers(), model.buffers(), strict=True))
        # the counter stays on the CPU, wherever the network is
        if self.n_averaged == 0:
            copied += zip(averaged, current, strict=True)
        else:
            self._average(averaged, current, self.n_averaged)
        for there, here in copied:
            there.copy_(here)
        self.n_averaged += 1
