"""Classification and regression heads, shared by all pyramid levels (METHOD section 1, items 7 and 8).

B batch   T steps of a level   C channels   K classes
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from actionformer.experiment import ModelParams
from actionformer.model.layers import Conv3, ConvNormReLU, LearnedScale


class Head(nn.Module):
    """Class logits (B, T, K) and distances to start and end (B, T, 2), in strides, for every point of every level."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        C = params.channels

        def tower() -> nn.ModuleList:
            return nn.ModuleList(
                ConvNormReLU(C, C, eps=params.conv_norm_eps, mask_after_norm=params.mask_after_norm)
                for _ in range(params.head_convs)
            )

        self.classification, self.regression = tower(), tower()
        self.class_predictor = Conv3(C, params.num_classes, bias=True)
        prior = params.cls_prior_prob
        assert self.class_predictor.bias is not None
        nn.init.constant_(self.class_predictor.bias, -math.log((1 - prior) / prior))
        # keeps PyTorch's default bias, as the published models do
        self.offset_predictor = Conv3(C, 2, bias=True)
        nn.Conv1d.reset_parameters(self.offset_predictor)
        self.scales = nn.ModuleList(LearnedScale() for _ in params.strides)

    def forward(self, levels: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Per level features (B, T, C) and mask (B, T) -> per level logits (B, T, K) and offsets (B, T, 2)."""
        return [
            self._one_level(x_BTC, mask_BT.unsqueeze(-1).to(x_BTC.dtype), scale)
            for (x_BTC, mask_BT), scale in zip(levels, self.scales, strict=True)
        ]

    def _one_level(self, x_BTC: Tensor, mask_BT1: Tensor, scale: nn.Module) -> tuple[Tensor, Tensor]:
        class_BTC = offset_BTC = x_BTC
        for classification, regression in zip(self.classification, self.regression, strict=True):
            class_BTC = classification(class_BTC, mask_BT1)
            offset_BTC = regression(offset_BTC, mask_BT1)
        return self.class_predictor(class_BTC), F.relu(scale(self.offset_predictor(offset_BTC)))
