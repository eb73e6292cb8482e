"""Multi-head self-attention over masked sequences, full or within a window (METHOD 1, item 5)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer.model.dropout import Dropout
from actionformer.model.layers import Conv1, Conv3, downsampled


class MaskedSelfAttention(nn.Module):
    """Depthwise convolutions give q, k and v, at `stride` 1 or 2; attention; output projection.

    `window` > 1: a query sees the `window // 2` steps either side of it and itself; otherwise all
    valid steps.
    """

    def __init__(
        self, channels: int, heads: int, *, stride: int, window: int, dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.stride = heads, stride
        self.reach = window // 2 if window > 1 else None
        # in this order: it is that of the initial weights' random numbers
        self.query_conv = Conv3(channels, channels, stride=stride, groups=channels)
        self.key_conv = Conv3(channels, channels, stride=stride, groups=channels)
        self.value_conv = Conv3(channels, channels, stride=stride, groups=channels)
        self.query_norm = nn.LayerNorm(channels)
        self.key_norm = nn.LayerNorm(channels)
        self.value_norm = nn.LayerNorm(channels)
        self.query = Conv1(channels, channels)
        self.key = Conv1(channels, channels)
        self.value = Conv1(channels, channels)
        self.projection = Conv1(channels, channels)
        self.dropout = Dropout(dropout)

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, C) and its mask -> the result and its mask, both of length T / stride."""
        if self.stride == 2:
            mask_BT = downsampled(mask_BT)
        mask_BT1 = mask_BT.unsqueeze(-1).to(x_BTC.dtype)
        # What the convolutions carry into the padding stays: nothing sees masked keys and values,
        # and what masked queries see is dropped below.
        q_BTC = self.query(self.query_norm(self.query_conv(x_BTC)))
        k_BTC = self.key(self.key_norm(self.key_conv(x_BTC)))
        v_BTC = self.value(self.value_norm(self.value_conv(x_BTC)))
        q_BHTD, k_BHTD, v_BHTD = self._heads(q_BTC), self._heads(k_BTC), self._heads(v_BTC)
        if self.reach is None:
            visible = mask_BT[:, None, None, :]
            out_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=visible)
        else:
            out_BHTD = windowed_attention(q_BHTD, k_BHTD, v_BHTD, mask_BT, self.reach)
        out_BTC = out_BHTD.transpose(1, 2).flatten(2)
        return self.dropout(self.projection(out_BTC)) * mask_BT1, mask_BT

    def _heads(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def windowed_attention(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask_BT: Tensor, reach: int
) -> Tensor:
    """Attention in which query t sees the valid keys t - reach ... t + reach. Returns (B, H, T, D).

    The sequence is cut into J blocks of W queries; a block meets the Y = 2 * W keys around it, so
    the cost grows linearly with T. A masked query sees itself: its value is never used, and a row
    of zero weights would be NaN.
    """
    T, D = q_BHTD.shape[2:]
    # no step is farther away: a window longer than the sequence makes no longer blocks
    reach = min(reach, T - 1)
    # blocks as long as the window waste the least; tiny ones are mostly overhead
    W = max(2 * reach, 8)
    J = -(-T // W)

    q_BHJWD = F.pad(q_BHTD, (0, 0, 0, J * W - T)).unflatten(2, (J, W))
    k_BHJYD, v_BHJYD = _around_blocks(k_BHTD, J, W, reach), _around_blocks(v_BHTD, J, W, reach)
    valid_B1JY1 = _around_blocks(mask_BT[:, None, :, None], J, W, reach)

    query_W1 = torch.arange(W, device=q_BHTD.device)[:, None]
    distance_WY = torch.arange(2 * W, device=q_BHTD.device) - query_W1 - reach
    near_WY = distance_WY.abs() <= reach
    hidden_B1JWY = ~(near_WY & valid_B1JY1.transpose(-1, -2) | (distance_WY == 0))

    scores_BHJWY = (q_BHJWD * D**-0.5) @ k_BHJYD.transpose(-1, -2)
    # a sum passes gradients on as they are, and those of weights that are 0 are 0 by themselves
    mask_B1JWY = scores_BHJWY.new_zeros(hidden_B1JWY.shape).masked_fill_(hidden_B1JWY, -math.inf)
    weights_BHJWY = scores_BHJWY.add_(mask_B1JWY).softmax(-1)
    return (weights_BHJWY @ v_BHJYD).flatten(2, 3)[:, :, :T]


def _around_blocks(x_BHTD: Tensor, J: int, W: int, reach: int) -> Tensor:
    """The 2 * W steps (B, H, J, Y, D) from `reach` before each of J blocks of W >= 2 * reach steps.

    Two pieces side by side, whose gradients are sums of slices: those of `unfold` take longer.
    """
    after = (J + 1) * W - reach - x_BHTD.shape[2]
    pieces = F.pad(x_BHTD, (0, 0, reach, after)).unflatten(2, (J + 1, W))
    return torch.cat([pieces[:, :, :-1], pieces[:, :, 1:]], 3)
