"""ActionFormer on one screen: features in, per-level class logits and boundary offsets out; and its loss.

Zhang, Wu, Li: ActionFormer: Localizing Moments of Actions with Transformers. ECCV 2022, arXiv:2202.07925.

    B batch   T steps   C feature channels   K classes   P points of all levels   N segments of a video
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer.experiment import ModelParams
from actionformer.model import targets
from actionformer.model.backbone import Backbone
from actionformer.model.head import Head
from actionformer.model.losses import diou_loss, focal_loss


@dataclass(frozen=True)
class Level:
    """One pyramid level: point t lies at grid position t * stride."""

    logits_BTK: Tensor
    offsets_BT2: Tensor
    mask_BT: Tensor
    stride: int


@dataclass(frozen=True)
class Losses:
    """`regression` is weighted; `total` is what training minimises."""

    classification: Tensor
    regression: Tensor
    total: Tensor


class ActionFormer(nn.Module):
    """The network and its loss. Expected scores stand in params/experiments/*.yaml."""

    loss_normalizer: Tensor

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        self.params = params
        self.backbone = Backbone(params)
        self.head = Head(params)
        self.register_buffer("loss_normalizer", torch.tensor(float(params.loss_normalizer_init)))
        self.register_load_state_dict_pre_hook(_keep_normalizer)

    def forward(self, features_BCT: Tensor, mask_BT: Tensor) -> list[Level]:
        """Features and their mask (valid steps first) -> levels, finest first."""
        length = features_BCT.shape[-1]
        padding = self.padded_length(length) - length
        x_BTC = F.pad(features_BCT.transpose(1, 2), (0, 0, 0, padding))
        mask_BT = F.pad(mask_BT.bool(), (0, padding))
        pyramid = self.backbone(x_BTC, mask_BT, self.published_length(length))
        return [
            Level(logits_BTK, offsets_BT2, mask_BT, stride)
            for (logits_BTK, offsets_BT2), (_, mask_BT), stride in zip(
                self.head(pyramid), pyramid, self.params.strides, strict=True
            )
        ]

    def published_length(self, length: int) -> int:
        """What the published implementation pads `length` steps to (METHOD section 1, item 1)."""
        if length <= self.params.max_seq_len:
            return self.params.max_seq_len
        multiple = max(
            stride * max(1, 2 * (window // 2))
            for stride, window in zip(self.params.strides, self.params.attention_windows, strict=True)
        )
        return -(-length // multiple) * multiple

    def padded_length(self, length: int) -> int:
        """The shortest length with the published result: one padding step at every level that had one (section 6)."""
        coarsest = self.params.strides[-1]
        return min((-(-length // coarsest) + 1) * coarsest, self.published_length(length))

    def loss(
        self, features_BCT: Tensor, mask_BT: Tensor, segments: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> Losses:
        """Losses of a batch; per video segments (N, 2) in grid units and labels (N,).

        In training mode this moves the running normaliser on, before it is used.
        """
        levels = self(features_BCT, mask_BT)
        params = self.params
        points_P4 = targets.points(
            [level.mask_BT.shape[1] for level in levels], params.strides, params.regression_range
        ).to(features_BCT.device)
        assigned = [
            targets.assign_targets(
                points_P4,
                segments_N2,
                labels_N,
                num_classes=params.num_classes,
                center_sample_radius=params.center_sample_radius,
                keep_only_shortest=params.keep_only_shortest_gt,
            )
            for segments_N2, labels_N in zip(segments, labels, strict=True)
        ]
        target_BPK = torch.stack([classes_PK for classes_PK, _ in assigned])
        target_BP2 = torch.stack([offsets_P2 for _, offsets_P2 in assigned])
        valid_BP = torch.cat([level.mask_BT for level in levels], 1)
        logits_BPK = torch.cat([level.logits_BTK for level in levels], 1)
        offsets_BP2 = torch.cat([level.offsets_BT2 for level in levels], 1)

        positive_BP = valid_BP & (target_BPK.sum(-1) > 0)
        normalizer = self._normalizer(positive_BP.sum())

        smoothing = params.label_smoothing
        if smoothing:
            target_BPK = target_BPK * (1 - smoothing) + smoothing / (params.num_classes + 1)
        classification = focal_loss(logits_BPK[valid_BP], target_BPK[valid_BP]) / normalizer

        position_BP, stride_BP = (points_P4[:, i].expand_as(valid_BP)[positive_BP] for i in (0, 3))
        regression = (
            params.reg_loss_weight
            * diou_loss(
                _decoded(position_BP, stride_BP, offsets_BP2[positive_BP]),
                _decoded(position_BP, stride_BP, target_BP2[positive_BP]),
            )
            / normalizer
        )
        return Losses(classification, regression, classification + regression)

    @torch.no_grad()
    def _normalizer(self, positives: Tensor) -> Tensor:
        positives = positives.clamp(min=1).to(self.loss_normalizer.dtype)
        if not self.training:
            return positives
        momentum = self.params.loss_normalizer_momentum
        self.loss_normalizer.mul_(momentum).add_(positives * (1 - momentum))
        return self.loss_normalizer.clone()


def _keep_normalizer(model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights without a running normaliser, as actionformer_release keeps them, leave ours as it is."""
    state_dict.setdefault(f"{prefix}loss_normalizer", model.loss_normalizer)


def _decoded(position_P: Tensor, stride_P: Tensor, offsets_P2: Tensor) -> Tensor:
    left_P, right_P = (offsets_P2 * stride_P[:, None]).unbind(-1)
    return torch.stack([position_P - left_P, position_P + right_P], -1)
