"""Classification and regression heads, shared by all levels (METHOD section 1, items 7 and 8)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from actionformer.model.layers import Conv3, ConvNormReLU, LearnedScale
from actionformer.model.precision import float32_within
from actionformer.params.experiment import ModelParams


class Head(nn.Module):
    """Class logits (B, T, K) and distances to start and end (B, T, 2), in strides, per level."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        C = params.channels
        self.classification, self.regression = _tower(params), _tower(params)
        self.class_predictor = Conv3(C, params.num_classes, bias=True)
        # at first every point is background: else the focal loss begins with that of all negatives
        prior = params.cls_prior_prob
        assert self.class_predictor.bias is not None
        nn.init.constant_(self.class_predictor.bias, -math.log((1 - prior) / prior))
        # keeps PyTorch's default bias, as the published models do
        self.offset_predictor = Conv3(C, 2, bias=True)
        nn.Conv1d.reset_parameters(self.offset_predictor)
        self.scales = nn.ModuleList(LearnedScale() for _ in params.strides)

    def forward(self, levels: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Per level features (B, T, C) and mask (B, T) -> logits (B, T, K), offsets (B, T, 2)."""
        predicted = []
        for (x_BTC, mask_BT), scale in zip(levels, self.scales, strict=True):
            mask_BT1 = mask_BT.unsqueeze(-1).to(x_BTC.dtype)
            class_BTC = offset_BTC = x_BTC
            for classification, regression in zip(
                self.classification, self.regression, strict=True
            ):
                class_BTC = classification(class_BTC, mask_BT1)
                offset_BTC = regression(offset_BTC, mask_BT1)
            logits_BTK = self.class_predictor(class_BTC)
            with float32_within(offset_BTC.device):
                offsets_BT2 = F.relu(scale(self.offset_predictor(offset_BTC)))
            predicted.append((logits_BTK, offsets_BT2))
        return predicted


def _tower(params: ModelParams) -> nn.ModuleList:
    """The convolutions of one head."""
    C, eps = params.channels, params.conv_norm_eps
    blocks = nn.ModuleList()
    for _ in range(params.head_convs):
        blocks.append(ConvNormReLU(C, C, eps=eps, mask_after_norm=params.mask_after_norm))
    return blocks
