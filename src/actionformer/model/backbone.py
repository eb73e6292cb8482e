"""From features to the pyramid: embedding, positions, transformer blocks (METHOD section 1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionformer.model.attention import MaskedSelfAttention
from actionformer.model.dropout import Dropout
from actionformer.model.layers import Conv1, ConvNormReLU, ScaledDropPath, max_pooled
from actionformer.params.experiment import ModelParams


class TransformerBlock(nn.Module):
    """Pre-LN attention and MLP, each with a skip; `stride` 2 halves the sequence."""

    def __init__(self, params: ModelParams, *, stride: int, window: int) -> None:
        super().__init__()
        C, dropout = params.channels, params.projection_dropout
        self.stride = stride
        self.norm_attention = nn.LayerNorm(C)
        self.attention = MaskedSelfAttention(
            C, params.heads, stride=stride, window=window, dropout=dropout
        )
        self.drop_path_attention = ScaledDropPath(C, params.drop_path)
        self.norm_mlp = nn.LayerNorm(C)
        self.expand, self.contract = Conv1(C, 4 * C), Conv1(4 * C, C)
        self.dropout = Dropout(dropout)
        self.drop_path_mlp = ScaledDropPath(C, params.drop_path)

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, C) and its mask -> the same of length T / stride."""
        out_BTC, mask_BT = self.attention(self.norm_attention(x_BTC), mask_BT)
        mask_BT1 = mask_BT.unsqueeze(-1).to(x_BTC.dtype)
        skip_BTC = x_BTC
        if self.stride == 2:
            # padded steps hold zeros here and can win the maximum, as in the published network
            skip_BTC = max_pooled(x_BTC)
        x_BTC = skip_BTC * mask_BT1 + self.drop_path_attention(out_BTC)
        hidden = self.dropout(F.gelu(self.expand(self.norm_mlp(x_BTC))))
        out_BTC = self.dropout(self.contract(hidden)) * mask_BT1
        return x_BTC + self.drop_path_mlp(out_BTC), mask_BT


class Backbone(nn.Module):
    """Embedding, `stem_blocks` at stride 1, then `branch_blocks` that each halve T.

    Every branch block gives one pyramid level; the stem gives the first.
    """

    position_table_TC: Tensor | None

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        C, eps = params.channels, params.conv_norm_eps
        windows = params.attention_windows
        self.mask_after_norm = params.mask_after_norm
        self.input_dropout = nn.Dropout1d(params.input_dropout)
        self.embedding = nn.ModuleList()
        for i in range(params.embed_convs):
            in_channels = params.in_channels if i == 0 else C
            self.embedding.append(ConvNormReLU(in_channels, C, eps=eps))
        self.stem = nn.ModuleList()
        for _ in range(params.stem_blocks):
            self.stem.append(TransformerBlock(params, stride=1, window=windows[0]))
        self.branch = nn.ModuleList()
        for i in range(params.branch_blocks):
            self.branch.append(TransformerBlock(params, stride=2, window=windows[1 + i]))
        self.level_norms = nn.ModuleList()
        for _ in range(params.branch_blocks + 1):
            self.level_norms.append(nn.LayerNorm(C, eps=eps))
        table = None
        if params.absolute_position_embedding:
            table = position_table(params.max_seq_len, C)
        # published checkpoints don't hold it
        self.register_buffer("position_table_TC", table, persistent=False)

    def forward(
        self, x_BTC: Tensor, mask_BT: Tensor, published_length: int
    ) -> list[tuple[Tensor, Tensor]]:
        """(B, T, C_in) -> per level the normalised features (B, T_l, C) and the mask (B, T_l).

        Args:
            published_length: what the published implementation pads this input to.
        """
        mask_BT1 = mask_BT.unsqueeze(-1).to(x_BTC.dtype)
        if self.training:
            # Dropout1d takes (B, C, T) and drops whole channels of a sample
            x_BTC = self.input_dropout(x_BTC.transpose(1, 2)).transpose(1, 2)
        for block in self.embedding:
            x_BTC = block(x_BTC, mask_BT1, mask_BT1 if self.mask_after_norm else None)
        if self.position_table_TC is not None:
            table_TC = self._positions(self.position_table_TC, published_length)
            x_BTC = x_BTC + table_TC[: x_BTC.shape[1]] * mask_BT1
        for block in self.stem:
            x_BTC, mask_BT = block(x_BTC, mask_BT)
        levels = [(x_BTC, mask_BT)]
        for block in self.branch:
            x_BTC, mask_BT = block(x_BTC, mask_BT)
            levels.append((x_BTC, mask_BT))
        # The norm turns the zeros of padded steps into its bias, which the heads' first convolution
        # sees: published results depend on that, and so on one padded step being there.
        pyramid = []
        for norm, (x_BTC, mask_BT) in zip(self.level_norms, levels, strict=True):
            pyramid.append((norm(x_BTC), mask_BT))
        return pyramid

    def _positions(self, table_TC: Tensor, published_length: int) -> Tensor:
        """The table, stretched over inputs that are longer than those of training, as published."""
        if self.training or published_length <= len(table_TC):
            return table_TC
        table_1CT = table_TC.T[None]
        stretched = F.interpolate(table_1CT, published_length, mode="linear", align_corners=False)
        return stretched[0].T


def position_table(length: int, channels: int) -> Tensor:
    """Sinusoidal embedding (length, channels) over sqrt(channels); METHOD section 1, item 4."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    channel = torch.arange(channels, dtype=torch.float64)
    pair = torch.div(channel, 2, rounding_mode="floor")
    angle = position / 10000 ** (2 * pair / channels)
    table = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    return table.float() / math.sqrt(channels)
