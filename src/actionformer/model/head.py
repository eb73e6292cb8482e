"""Classification and regression heads, shared by all levels (METHOD section 1, items 7 and 8)."""

from __future__ import annotations

import math

import torch
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
        self.mask_after_norm = params.mask_after_norm
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
        x_BLC, mask_BL1, level_BL1 = _one_sequence(levels)
        kept_BL1 = mask_BL1 if self.mask_after_norm else level_BL1
        class_BLC = offset_BLC = x_BLC
        for classification, regression in zip(self.classification, self.regression, strict=True):
            class_BLC = classification(class_BLC, mask_BL1, kept_BL1)
            offset_BLC = regression(offset_BLC, mask_BL1, kept_BL1)
        logits_BLK = self.class_predictor(class_BLC)
        with float32_within(offset_BLC.device):
            offsets_BL2 = self.offset_predictor(offset_BLC)
        predicted = []
        first = 0
        for (_, mask_BT), scale in zip(levels, self.scales, strict=True):
            end = first + mask_BT.shape[1]
            offsets_BT2 = F.relu(scale(offsets_BL2[:, first:end]))
            predicted.append((logits_BLK[:, first:end], offsets_BT2))
            first = end + 1
        return predicted


def _tower(params: ModelParams) -> nn.ModuleList:
    """The convolutions of one head."""
    blocks = nn.ModuleList()
    for _ in range(params.head_convs):
        blocks.append(ConvNormReLU(params.channels, params.channels, eps=params.conv_norm_eps))
    return blocks


def _one_sequence(levels: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Levels one after the other, a step of zeros after each: a convolution sees what it pads with.

    Returns the features (B, L, C), their mask (B, L, 1), and 1 where a level is, 0 between two.
    One convolution over all stands for one per level, and most levels are short.
    """
    features, masks, whole = [], [], []
    for x_BTC, mask_BT in levels:
        after = (0, 0, 0, 1)
        mask_BT1 = mask_BT.unsqueeze(-1).to(x_BTC.dtype)
        features.append(F.pad(x_BTC, after))
        masks.append(F.pad(mask_BT1, after))
        whole.append(F.pad(torch.ones_like(mask_BT1), after))
    return torch.cat(features, 1), torch.cat(masks, 1), torch.cat(whole, 1)
