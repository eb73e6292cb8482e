"""R(2+1)D with 34 layers: each convolution over space is followed by one over time.

Tran et al.: A Closer Look at Spatiotemporal Convolutions, CVPR 2018, arXiv:1711.11248. Names of
weights are torchvision's, under which TSP publishes them (Alwassel et al. 2021, arXiv:2011.11479).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

DIM = 512
# what a file of weights holds beside, and features do without
HEAD = ("fc.", "fc1.", "fc2.")
# Caffe2's, from which the first weights come
EPS = 1e-3
# channels and blocks of the four stages
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


class R2Plus1D(nn.Module):
    """Clips (B, 3, T, H, W) -> features (B, 512): the mean of the last layer over its places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            _norm(45),
            nn.ReLU(inplace=True),
            nn.Conv3d(45, 64, (3, 1, 1), (1, 1, 1), (1, 0, 0), bias=False),
            _norm(64),
            nn.ReLU(inplace=True),
        )
        inputs = 64
        for stage, (channels, blocks) in enumerate(STAGES, start=1):
            layers = []
            for i in range(blocks):
                stride = 2 if stage > 1 and i == 0 else 1
                layers.append(Block(inputs, channels, stride))
                inputs = channels
            self.add_module(f"layer{stage}", nn.Sequential(*layers))

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        x = clips_BCTHW
        for layer in self.children():
            x = layer(x)
        features_BC: Tensor = x.mean((2, 3, 4))
        return features_BC


class Block(nn.Module):
    """Two factorised convolutions beside a shortcut."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            _factorised(inputs, channels, stride), _norm(channels), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(_factorised(channels, channels, 1), _norm(channels))
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, channels, 1, stride, bias=False), _norm(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = F.relu(self.conv2(self.conv1(x)) + shortcut)
        return result


def _factorised(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Over space, then over time, with as many weights as the 3 x 3 x 3 that it stands for."""
    between = inputs * outputs * 27 // (inputs * 9 + outputs * 3)
    return nn.Sequential(
        nn.Conv3d(inputs, between, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        _norm(between),
        nn.ReLU(inplace=True),
        nn.Conv3d(between, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )


def _norm(channels: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(channels, eps=EPS)
