"""I3D on RGB: Inception-V1 with its filters inflated to three dimensions.

Carreira, Zisserman: Quo Vadis, Action Recognition? CVPR 2017, arXiv:1705.07750. Names of weights
are those of the published PyTorch weights (`rgb_imagenet.pt`, `rgb_charades.pt`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM = 1024
# what a file of weights holds beside, and features do without
HEAD = ("logits.",)
# TensorFlow's batch normalisation, from which the weights come
EPS = 1e-3
Triple = tuple[int, int, int]

# module -> channels of its four branches: 1x1, 3x3 (reduced, full), 5x5 (reduced, full), pooled
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    """Clips (B, 3, T, H, W) -> features (B, 1024): the mean of the last layer over its places."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, kernel=(7, 7, 7), stride=(2, 2, 2))
        self.MaxPool3d_2a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, kernel=(3, 3, 3))
        self.MaxPool3d_3a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        channels = 192
        for name, branches in MIXED.items():
            self.add_module(name, Mixed(channels, branches))
            channels = branches[0] + branches[2] + branches[4] + branches[5]
            if name == "Mixed_3c":
                self.MaxPool3d_4a_3x3 = SamePool((3, 3, 3), (2, 2, 2))
            elif name == "Mixed_4f":
                self.MaxPool3d_5a_2x2 = SamePool((2, 2, 2), (2, 2, 2))

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        x = clips_BCTHW
        for layer in self.children():
            x = layer(x)
        features_BC: Tensor = x.mean((2, 3, 4))
        return features_BC


class Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: int, branches: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, three_in, three, five_in, five, pooled = branches
        self.b0 = Unit(channels, one)
        self.b1a = Unit(channels, three_in)
        self.b1b = Unit(three_in, three, kernel=(3, 3, 3))
        # called after Inception's 5 x 5, which are 3 x 3 here
        self.b2a = Unit(channels, five_in)
        self.b2b = Unit(five_in, five, kernel=(3, 3, 3))
        self.b3a = SamePool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit(channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.b0(x),
            self.b1b(self.b1a(x)),
            self.b2b(self.b2a(x)),
            self.b3b(self.b3a(x)),
        )
        return torch.cat(branches, dim=1)


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Triple = (1, 1, 1),
        stride: Triple = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(same_padded(x, self.kernel, self.stride))))


class SamePool(nn.Module):
    """Maximum over windows; what is padded counts as 0, as published."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(same_padded(x, self.kernel, self.stride), self.kernel, self.stride)


def same_padded(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """TensorFlow's SAME: as many outputs as inputs / stride; of an odd padding more at the end."""
    padding: list[int] = []
    # torch counts axes from the last one on
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        rest = size % s or s
        total = max(k - rest, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)
