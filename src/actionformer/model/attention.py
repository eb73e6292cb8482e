"""Multi-head self-attention over masked sequences, full or within a window (METHOD section 1, item 5).

B batch   T steps   C channels   H heads   D = C / H   N blocks   W steps of a block
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer.model.layers import Conv1, Conv3, downsampled


class MaskedSelfAttention(nn.Module):
    """Depthwise convolutions give q, k and v, at `stride` 1 or 2; then attention; then the output projection.

    `window` > 1: a query sees the `window // 2` steps either side of it and itself; otherwise all valid steps.
    """

    def __init__(self, channels: int, heads: int, *, stride: int, window: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.stride = heads, stride
        self.reach = window // 2 if window > 1 else None
        self.query_conv, self.key_conv, self.value_conv = (
            Conv3(channels, channels, stride=stride, groups=channels) for _ in range(3)
        )
        self.query_norm, self.key_norm, self.value_norm = (nn.LayerNorm(channels) for _ in range(3))
        self.query, self.key, self.value = (Conv1(channels, channels) for _ in range(3))
        self.projection = Conv1(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, C) and its mask -> the result and its mask, both of length T / stride."""
        if self.stride == 2:
            mask_BT = downsampled(mask_BT)
        mask_BT1 = mask_BT.unsqueeze(-1).to(x_BTC.dtype)
        q_BHTD, k_BHTD, v_BHTD = (
            self._heads(linear(norm(conv(x_BTC) * mask_BT1)))
            for conv, norm, linear in (
                (self.query_conv, self.query_norm, self.query),
                (self.key_conv, self.key_norm, self.key),
                (self.value_conv, self.value_norm, self.value),
            )
        )
        if self.reach is None:
            out_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=mask_BT[:, None, None, :])
        else:
            out_BHTD = windowed_attention(q_BHTD, k_BHTD, v_BHTD, mask_BT, self.reach)
        out_BTC = out_BHTD.transpose(1, 2).flatten(2)
        return self.dropout(self.projection(out_BTC)) * mask_BT1, mask_BT

    def _heads(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def windowed_attention(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask_BT: Tensor, reach: int) -> Tensor:
    """Attention in which query t sees the valid keys t - reach ... t + reach. Returns (B, H, T, D).

    The sequence is cut into blocks of W queries; a block meets the W + 2 * reach keys around it, so the cost grows
    linearly with T. A masked query sees itself: its value is never used, and a row of zero weights would be NaN.
    """
    T, D = q_BHTD.shape[2:]
    W = min(max(2 * reach, 8), T)
    N = -(-T // W)
    span = W + 2 * reach

    q_BHNWD = F.pad(q_BHTD, (0, 0, 0, N * W - T)).unflatten(2, (N, W))
    around = (0, 0, reach, N * W - T + reach)
    k_BHNSD = F.pad(k_BHTD, around).unfold(2, span, W).transpose(-1, -2)
    v_BHNSD = F.pad(v_BHTD, around).unfold(2, span, W).transpose(-1, -2)

    valid_BNS = F.pad(mask_BT, (reach, N * W - T + reach)).unfold(1, span, W)
    distance_WS = torch.arange(span, device=q_BHTD.device) - torch.arange(W, device=q_BHTD.device)[:, None] - reach
    visible_BNWS = (distance_WS.abs() <= reach) & valid_BNS[:, :, None, :] | (distance_WS == 0)

    scores_BHNWS = (q_BHNWD * D**-0.5) @ k_BHNSD.transpose(-1, -2)
    weights_BHNWS = scores_BHNWS.masked_fill(~visible_BNWS[:, None], float("-inf")).softmax(-1)
    return (weights_BHNWS @ v_BHNSD).flatten(2, 3)[:, :, :T]
