"""The layers that every part of the network shares. Sequences are (B, T, C) throughout.

Parameters keep the shapes of `nn.Conv1d`, so that published weights fit; the arithmetic runs
channels-last, so that no layer copies its input into another layout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    def forward(self, x_BTC: Tensor) -> Tensor:
        # as an image of height 1 the input is in memory order "channels last", which needs no copy
        image = x_BTC.transpose(1, 2).unsqueeze(2)
        weight = self.weight.unsqueeze(2)
        stride, padding = (1, *self.stride), (0, *self.padding)
        out = F.conv2d(image, weight, self.bias, stride, padding, groups=self.groups)
        return out.squeeze(2).transpose(1, 2)


class Conv1(nn.Conv1d):
    """Convolution with kernel 1: a linear map of every step."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return F.linear(x_BTC, self.weight.squeeze(-1), self.bias)


class ConvNormReLU(nn.Module):
    """Conv3 -> mask -> LayerNorm -> ReLU -> mask: the block of the embedding and of both heads.

    `mask_after_norm=False` leaves the last mask out, as actionformer_release does.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, eps: float, mask_after_norm: bool
    ) -> None:
        super().__init__()
        self.conv = Conv3(in_channels, out_channels)
        self.norm = nn.LayerNorm(out_channels, eps=eps)
        self.mask_after_norm = mask_after_norm

    def forward(self, x_BTC: Tensor, mask_BT1: Tensor) -> Tensor:
        # masked before the norm, too: the convolution carries the last valid step into the padding
        x_BTC = F.relu(self.norm(self.conv(x_BTC) * mask_BT1))
        return x_BTC * mask_BT1 if self.mask_after_norm else x_BTC


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


def downsampled(mask_BT: Tensor) -> Tensor:
    """The mask at half the rate: every second step, from the first."""
    # as published: "nearest", not whether any of the two is valid
    return mask_BT[:, ::2]
