"""ActionFormer on one screen: features in, class logits and offsets out; its loss and state.

Zhang, Wu, Li: ActionFormer: Localizing Moments of Actions with Transformers. ECCV 2022,
arXiv:2202.07925. What the letters in names of tensors mean stands in docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from actionformer.model.backbone import Backbone
from actionformer.model.head import Head
from actionformer.model.losses import diou_loss, focal_loss
from actionformer.model.precision import convolutions_in, products_in
from actionformer.model.targets import Points, assign_targets, decoded, points
from actionformer.params.experiment import ModelParams, Precision


@dataclass(frozen=True)
class Level:
    """One pyramid level: point t lies at grid position t * stride."""

    logits_BTK: Tensor
    offsets_BT2: Tensor
    mask_BT: Tensor
    stride: int

    def sample(self, b: int) -> Level:
        """The level of one video of the batch, as a batch of one."""
        one = slice(b, b + 1)
        return Level(self.logits_BTK[one], self.offsets_BT2[one], self.mask_BT[one], self.stride)

    def each(self, change: Callable[[Tensor], Tensor]) -> Level:
        """The level with every tensor changed."""
        logits_BTK, offsets_BT2 = change(self.logits_BTK), change(self.offsets_BT2)
        return Level(logits_BTK, offsets_BT2, change(self.mask_BT), self.stride)

    def segments_BT2(self) -> Tensor:
        """The segments, on the grid, that the offsets of all points mean."""
        length, device = self.mask_BT.shape[1], self.mask_BT.device
        position_T = torch.arange(length, dtype=torch.float32, device=device) * self.stride
        return decoded(position_T, self.stride, self.offsets_BT2)


@dataclass(frozen=True)
class Losses:
    """`regression` is weighted; `total` is what training minimises."""

    classification: Tensor
    regression: Tensor
    total: Tensor

    def detached(self) -> Losses:
        """The numbers alone, without what they were computed from."""
        return Losses(self.classification.detach(), self.regression.detach(), self.total.detach())


class ActionFormer(nn.Module):
    """The network and its loss. Expected scores stand in params/experiments/*.yaml."""

    loss_normalizer: Tensor

    def __init__(self, params: ModelParams, precision: Precision = "published") -> None:
        super().__init__()
        self.params, self.precision = params, precision
        self.backbone = Backbone(params)
        self.head = Head(params)
        start = torch.tensor(float(params.loss_normalizer_init))
        self.register_buffer("loss_normalizer", start)
        self.register_load_state_dict_pre_hook(_keep_normalizer)

    def forward(self, features_BCT: Tensor, mask_BT: Tensor) -> list[Level]:
        """Features and their mask (valid steps first) -> levels, finest first.

        A level holds `logits_BTK`, `offsets_BT2`, `mask_BT` and its `stride` in steps.
        """
        length = features_BCT.shape[-1]
        padding = self.padded_length(length) - length
        x_BTC, mask_BT = features_BCT.transpose(1, 2), mask_BT.bool()
        if padding:  # `pad` copies even where it adds nothing
            x_BTC = F.pad(x_BTC, (0, 0, 0, padding))
            mask_BT = F.pad(mask_BT, (0, padding))
        with convolutions_in(self.precision), products_in(self.precision, x_BTC.device):
            pyramid = self.backbone(x_BTC, mask_BT, self.published_length(length))
            predicted = self.head(pyramid)
        levels = []
        for stride, (_, mask_BT), (logits_BTK, offsets_BT2) in zip(
            self.params.strides, pyramid, predicted, strict=True
        ):
            levels.append(Level(logits_BTK.float(), offsets_BT2, mask_BT, stride))
        return levels

    def published_length(self, length: int) -> int:
        """What the published implementation pads `length` steps to."""
        return self.params.published_length(length)

    def padded_length(self, length: int) -> int:
        """What this network pads `length` steps to."""
        return self.params.padded_length(length)

    def loss(
        self,
        features_BCT: Tensor,
        mask_BT: Tensor,
        segments: Sequence[Tensor],
        labels: Sequence[Tensor],
    ) -> Losses:
        """Losses of a batch; per video segments (G, 2) in grid units and labels (G,).

        In training mode this moves the running normaliser on, before it is used.
        """
        params, device = self.params, features_BCT.device
        levels = self(features_BCT, mask_BT)
        valid_BP = torch.cat([level.mask_BT for level in levels], 1)
        logits_BPK = torch.cat([level.logits_BTK for level in levels], 1)
        offsets_BP2 = torch.cat([level.offsets_BT2 for level in levels], 1)

        lengths = tuple(level.mask_BT.shape[1] for level in levels)
        grid = _kept_points(lengths, params.strides, params.regression_range, device)
        target_BPK, target_BP2 = assign_targets(
            grid,
            pad_sequence(list(segments), batch_first=True),
            pad_sequence(list(labels), batch_first=True),
            num_classes=params.num_classes,
            center_sample_radius=params.center_sample_radius,
            keep_only_shortest=params.keep_only_shortest_gt,
        )
        # padded points may lie inside a segment that a crop has cut: they count nowhere
        positive_BP = valid_BP & (target_BPK.sum(-1) > 0)
        normalizer = self._normalizer(positive_BP.sum())

        # as published: smoothed towards num_classes + 1 classes
        smoothing = params.label_smoothing
        if smoothing:
            target_BPK = target_BPK * (1 - smoothing) + smoothing / (params.num_classes + 1)
        classification = focal_loss(logits_BPK, target_BPK, valid_BP[..., None]) / normalizer

        found_BP2 = decoded(grid.position_P, grid.stride_P, offsets_BP2)
        wanted_BP2 = decoded(grid.position_P, grid.stride_P, target_BP2)
        distance = diou_loss(found_BP2, wanted_BP2, positive_BP)
        regression = params.reg_loss_weight * distance / normalizer
        return Losses(classification, regression, classification + regression)

    @torch.no_grad()
    def _normalizer(self, positives: Tensor) -> Tensor:
        """What losses are divided by: in training a running mean of positive points."""
        positives = positives.clamp(min=1).to(self.loss_normalizer.dtype)
        if not self.training:
            return positives
        momentum = self.params.loss_normalizer_momentum
        self.loss_normalizer.mul_(momentum).add_(positives * (1 - momentum))
        return self.loss_normalizer.clone()


@cache
def _kept_points(
    lengths: tuple[int, ...],
    strides: tuple[int, ...],
    regression_range: tuple[tuple[float, float], ...],
    device: torch.device,
) -> Points:
    """`points`, made once per lengths and device: they are dozens of small kernels.

    None is ever given up: a recorded step (`training.recorded`) reads where they lay.
    """
    # made in inference mode they could not be used in training later on
    with torch.inference_mode(False):
        return points(lengths, strides, regression_range, device)


def _keep_normalizer(model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights without a running normaliser, as actionformer_release keeps them, leave ours."""
    state_dict.setdefault(f"{prefix}loss_normalizer", model.loss_normalizer)
