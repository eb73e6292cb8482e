"""Dropout of single elements, which a CPU draws quickly and every processor alike.

PyTorch draws 64 random bits an element there, one element after the other. Here it is 32 bits of
NumPy's SFC64, whose stream NumPy promises to keep. Its seed is one of PyTorch's random numbers, so
that a run is still a function of its own seed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """PyTorch's, but for which elements it drops on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        if torch.compiler.is_compiling():
            return x * kept_in_graph(x.detach(), self.p)
        return x * kept(x, self.p)


def kept(x: Tensor, p: float) -> Tensor:
    """The factors (as x) of its elements: 0 with probability p, otherwise 1 / (1 - p)."""
    seed = int(torch.randint(2**63 - 1, ()))
    elements = x.numel()
    bits = np.random.SFC64(seed).random_raw(-(-elements // 2)).view(np.int32)
    drawn = torch.from_numpy(bits[:elements]).view(x.shape)
    share = min(round((1 - p) * 2**32), 2**32 - 1)
    # the bits are signed numbers, from -2^31 on
    factors = torch.lt(drawn, share - 2**31, out=x.new_empty(x.shape))
    return factors.mul_(1 / (1 - p))


# torch.compile doesn't look into it, and neither draws twice nor once for two
kept_in_graph = torch.library.custom_op(
    "actionformer::kept",
    kept,
    mutates_args=(),
    schema="(Tensor x, float p) -> Tensor",
    tags=torch.Tag.nondeterministic_seeded,
)


@kept_in_graph.register_fake
def _shape_of_kept(x: Tensor, p: float) -> Tensor:
    return x.new_empty(x.shape)
