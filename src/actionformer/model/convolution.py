"""Convolutions along T with kernels 1 and 3, forward and backward; (B, T, C) throughout.

A wide convolution with kernel 3 over many steps is computed on a CPU with half the multiplications:
four outputs from six inputs take six instead of twelve. It is Winograd's F(4, 3), as Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4, write it:

    outputs = A^T [(G taps) * (B^T inputs)]

with the matrices below. What B^T and A^T say are a few additions of whole rows; between them stand,
for all tiles of four steps at once, six products of matrices. Its error is that of the plain
convolution (tests/test_convolution.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Tiles pay where their products are large: channels on both sides, steps of the whole batch.
WIDE, LONG = 256, 512
# bytes of the sums of the tiles that are computed at once: they stay in the processor's cache
AT_ONCE = 16 * 2**20

# six sums of six inputs; every row of these three has a 1, which `_sum_up` makes use of
B_T = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
# four outputs from six products
A_T = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
# six sums of four gradients
A = tuple(zip(*A_T, strict=True))
# six sums of three taps
G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def convolved(
    x_BTC: Tensor, weight: Tensor, bias_O: Tensor | None, *, stride: int = 1, groups: int = 1
) -> Tensor:
    """Convolution along T with kernel 1 or 3 and a padding of half of it: (B, T / stride, O)."""
    # as an image of height 1 the input is in memory order "channels last", which needs no copy
    image = x_BTC.transpose(1, 2).unsqueeze(2)
    kernel, padding = weight.unsqueeze(2), weight.shape[-1] // 2
    out = F.conv2d(image, kernel, bias_O, (1, stride), (0, padding), groups=groups)
    return out.squeeze(2).transpose(1, 2)


class OnCPU(torch.autograd.Function):
    """A dense convolution with kernel 3 and stride 1: x (B, T, C), weight (O, C, 3), bias (O,).

    The weights' gradient is a product of matrices in any case: without AVX-512, oneDNN computes
    that one at a sixth to a half of the rate.
    """

    @staticmethod
    def forward(ctx: Any, x_BTC: Tensor, weight_OC3: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_BTC, weight_OC3)
        if not _in_tiles(x_BTC, weight_OC3):
            return convolved(x_BTC, weight_OC3, bias_O)
        out_BTO = _convolved_in_tiles(x_BTC, _sums_of_taps(weight_OC3).transpose(1, 2))
        return out_BTO if bias_O is None else out_BTO.add_(bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BTO: Tensor) -> tuple[Tensor | None, ...]:
        x_BTC, weight_OC3 = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        in_tiles = _in_tiles(x_BTC, weight_OC3)
        x_grad, weight_grad, bias_grad = None, None, None
        if of_x:
            flipped_OC3 = weight_OC3.flip(2)
            if in_tiles:
                x_grad = _convolved_in_tiles(gradient_BTO, _sums_of_taps(flipped_OC3))
            else:
                x_grad = convolved(gradient_BTO, flipped_OC3.transpose(0, 1), None)
        if of_weight:
            of_taps = _gradient_in_tiles if in_tiles else _gradient_of_taps
            weight_grad = of_taps(x_BTC, gradient_BTO)
        if of_bias:
            bias_grad = gradient_BTO.sum((0, 1))
        return x_grad, weight_grad, bias_grad


def _in_tiles(x_BTC: Tensor, weight_OC3: Tensor) -> bool:
    B, T, _ = x_BTC.shape
    return min(weight_OC3.shape[:2]) >= WIDE and B * T >= LONG


# ---------------------------------------------------------------------------------- tap by tap


def _gradient_of_taps(x_BTC: Tensor, gradient_BTO: Tensor) -> Tensor:
    """The gradient (O, C, 3) of the weights."""
    B, T, C = x_BTC.shape
    O = gradient_BTO.shape[2]
    # a row of zeros between two videos: so what a tap sees is the same matrix, moved by a row
    seen_LC = _one_after_another(x_BTC, 1, B * (T + 1) + 2)
    gradient_LO = _one_after_another(gradient_BTO, 0, B * (T + 1))
    taps_3OC = x_BTC.new_empty(3, O, C)
    for k in range(3):
        torch.mm(gradient_LO.T, seen_LC[k : k + len(gradient_LO)], out=taps_3OC[k])
    return taps_3OC.permute(1, 2, 0)


def _one_after_another(x_BTC: Tensor, before: int, rows: int) -> Tensor:
    """(rows, C): after `before` rows of zeros every video, with a row of zeros behind; zeros."""
    B, T, C = x_BTC.shape
    end = before + B * (T + 1)
    sequence_LC = x_BTC.new_empty(rows, C)
    videos_BTC = sequence_LC[before:end].view(B, T + 1, C)
    sequence_LC[:before] = 0
    videos_BTC[:, :T] = x_BTC
    videos_BTC[:, T:] = 0
    sequence_LC[end:] = 0
    return sequence_LC


# ------------------------------------------------------------------------------------ in tiles


def _convolved_in_tiles(x_BTC: Tensor, taps_6CO: Tensor) -> Tensor:
    """The convolution (B, T, O), from sums of its taps."""
    B, T, C = x_BTC.shape
    O = taps_6CO.shape[2]
    Z = _tiles(x_BTC)
    x_LC = _one_after_another(x_BTC, 1, 4 * Z + 2)
    out_Z4O = x_BTC.new_empty(Z, 4, O)
    for first, end in _some_tiles(Z, x_BTC.element_size() * (C + O)):
        sums_6ZC = _sums_of_inputs(x_LC, first, end)
        products_6ZO = torch.bmm(sums_6ZC, taps_6CO)
        _sum_up(A_T, products_6ZO.unbind(), out_Z4O[first:end].unbind(1))
    return out_Z4O.view(4 * Z, O)[: B * (T + 1)].view(B, T + 1, O)[:, :T]


def _gradient_in_tiles(x_BTC: Tensor, gradient_BTO: Tensor) -> Tensor:
    """The gradient (O, C, 3) of the weights: what leads from them to the outputs, backwards."""
    C, O = x_BTC.shape[2], gradient_BTO.shape[2]
    Z = _tiles(x_BTC)
    x_LC = _one_after_another(x_BTC, 1, 4 * Z + 2)
    gradient_Z4O = _one_after_another(gradient_BTO, 0, 4 * Z).view(Z, 4, O)
    taps_6OC = x_BTC.new_zeros(6, O, C)
    for first, end in _some_tiles(Z, x_BTC.element_size() * (C + O)):
        sums_6ZC = _sums_of_inputs(x_LC, first, end)
        sums_6ZO = x_BTC.new_empty(6, end - first, O)
        _sum_up(A, gradient_Z4O[first:end].unbind(1), sums_6ZO.unbind())
        taps_6OC.baddbmm_(sums_6ZO.transpose(1, 2), sums_6ZC)
    return (taps_6OC.view(6, -1).T @ taps_6OC.new_tensor(G)).view(O, C, 3)


def _tiles(x_BTC: Tensor) -> int:
    """How many tiles all videos take, a row of zeros behind each."""
    B, T, _ = x_BTC.shape
    return -(-B * (T + 1) // 4)


def _some_tiles(Z: int, bytes_of_row: int) -> Iterator[tuple[int, int]]:
    """The first tile and the end of every lot that is computed at once."""
    step = max(1, AT_ONCE // (6 * bytes_of_row))
    for first in range(0, Z, step):
        yield first, min(first + step, Z)


def _sums_of_taps(weight_OC3: Tensor) -> Tensor:
    O, C, _ = weight_OC3.shape
    return (weight_OC3.new_tensor(G) @ weight_OC3.reshape(-1, 3).T).view(6, O, C)


def _sums_of_inputs(x_LC: Tensor, first: int, end: int) -> Tensor:
    """(6, Z, C) of the tiles from `first` to `end`; one begins every four steps and sees six."""
    sums_6ZC = x_LC.new_empty(6, end - first, x_LC.shape[1])
    inputs = [x_LC[4 * first + k : 4 * end + k - 3 : 4] for k in range(6)]
    _sum_up(B_T, inputs, sums_6ZC.unbind())
    return sums_6ZC


def _sum_up(
    factors: Sequence[Sequence[float]], parts: Sequence[Tensor], sums: Sequence[Tensor]
) -> None:
    """Writes into each of `sums` all `parts`, each times its factor in the sum's row."""
    for row, out in zip(factors, sums, strict=True):
        one = row.index(1)
        others = [k for k, factor in enumerate(row) if factor and k != one]
        if not others:
            out.copy_(parts[one])
            continue
        torch.add(parts[one], parts[others[0]], alpha=row[others[0]], out=out)
        for k in others[1:]:
            out.add_(parts[k], alpha=row[k])
