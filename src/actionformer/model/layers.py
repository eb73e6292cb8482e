"""The layers that every part of the network shares. Sequences are (B, T, C) throughout.

Parameters keep the shapes of `nn.Conv1d`, so that published weights fit; the arithmetic runs
channels-last, so that no layer copies its input into another layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer.model.convolution import TrainedOnCPU, convolved, convolved_on_cpu, kept_sums


class Conv3(nn.Conv1d):
    """Convolution with kernel 3 and padding 1 along T; `groups=C` makes it depthwise."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=bias
        )
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self._sums_6OC: Tensor | None = None

    def keep_sums(self) -> None:
        """Keep what predictions on a CPU make of the weight, which now stays: `weights_stay`."""
        if self._dense_on_cpu(self.weight):
            self._sums_6OC = kept_sums(self.weight)

    def drop_sums(self) -> None:
        self._sums_6OC = None

    def forward(self, x_BTC: Tensor) -> Tensor:
        if self._dense_on_cpu(x_BTC):
            if not torch.is_grad_enabled():
                return convolved_on_cpu(x_BTC, self.weight, self.bias, self._sums_6OC)
            result: Tensor = TrainedOnCPU.apply(x_BTC, self.weight, self.bias)
            return result
        out_BTC = convolved(
            x_BTC, self.weight, self.bias, stride=self.stride[0], groups=self.groups
        )
        # with bfloat16 the convolution alone is in it: what follows is as exact as what came
        return out_BTC.to(x_BTC.dtype)

    def _dense_on_cpu(self, tensor: Tensor) -> bool:
        """Dense, at stride 1 and in float32, and in no network that is compiled or exported."""
        if self.groups > 1 or self.stride[0] > 1 or torch.is_autocast_enabled("cpu"):
            return False
        return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


@contextmanager
def weights_stay(*networks: nn.Module) -> Iterator[None]:
    """Inside, no weight of these networks changes.

    What predictions make of weights alone, which takes a tenth of a short video's time, is then
    made once.
    """
    convolutions = []
    for network in networks:
        convolutions += [module for module in network.modules() if isinstance(module, Conv3)]
    try:
        for convolution in convolutions:
            convolution.keep_sums()
        yield
    finally:
        for convolution in convolutions:
            convolution.drop_sums()


class Conv1(nn.Conv1d):
    """Convolution with kernel 1: a linear map of every step.

    On a CUDA device it is a convolution in fact: there TF32 is for convolutions alone
    (`model.precision`), and the published network has one here.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        if x_BTC.device.type == "cuda":
            return convolved(x_BTC, self.weight, self.bias)
        return F.linear(x_BTC, self.weight.squeeze(-1), self.bias)


class ConvNormReLU(nn.Module):
    """Conv3 -> mask -> LayerNorm -> ReLU -> mask: the block of the embedding and of both heads."""

    def __init__(self, in_channels: int, out_channels: int, *, eps: float) -> None:
        super().__init__()
        self.conv = Conv3(in_channels, out_channels)
        self.norm = nn.LayerNorm(out_channels, eps=eps)

    def forward(self, x_BTC: Tensor, mask_BT1: Tensor, kept_BT1: Tensor | None) -> Tensor:
        """(B, T, C_in) -> (B, T, C).

        Args:
            mask_BT1: applied before the norm: the convolution carries the last valid step into the
                padding.
            kept_BT1: applied to what comes out; None keeps everything.
        """
        x_BTC = self.conv(x_BTC)
        # where the same mask comes after the norm, which looks at single steps, once is enough
        if kept_BT1 is not mask_BT1:
            x_BTC = x_BTC * mask_BT1
        x_BTC = self.norm(x_BTC)
        # in place: backward needs neither what leaves the norm nor what enters the ReLU
        if kept_BT1 is not None:
            x_BTC = x_BTC.mul_(kept_BT1)
        return F.relu_(x_BTC)


class ScaledDropPath(nn.Module):
    """A residual branch times a learned scale per channel.

    In training it is dropped, per sample, with probability `rate`.
    """

    def __init__(self, channels: int, rate: float) -> None:
        super().__init__()
        # so small that a block begins as its skip
        self.scale = nn.Parameter(torch.full((1, channels, 1), 1e-4))
        self.rate = rate

    def forward(self, x_BTC: Tensor) -> Tensor:
        scale_B1C = self.scale.view(1, 1, -1)
        if self.training and self.rate > 0.0:
            kept_B11 = torch.rand(x_BTC.shape[0], 1, 1, device=x_BTC.device) >= self.rate
            scale_B1C = scale_B1C * (kept_B11 / (1.0 - self.rate))
        return x_BTC * scale_B1C  # one product: backward keeps one copy of x


class LearnedScale(nn.Module):
    """One learned factor, initially 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def max_pooled(x_BTC: Tensor) -> Tensor:
    """The largest of every second step and its neighbours: (B, T / 2, C)."""
    # As an image of height 1, like a convolution: where no gradient is wanted, max_pool1d copies
    # into another memory order and leaves its result in that.
    image = x_BTC.transpose(1, 2).unsqueeze(2)
    return F.max_pool2d(image, (1, 3), (1, 2), (0, 1)).squeeze(2).transpose(1, 2)


def downsampled(mask_BT: Tensor) -> Tensor:
    """The mask at half the rate: every second step, from the first."""
    # as published: "nearest", not whether any of the two is valid
    return mask_BT[:, ::2]
