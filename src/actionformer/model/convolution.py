"""Convolutions along T with kernels 1 and 3, forward and backward; (B, T, C) throughout.

A wide convolution with kernel 3 over many steps is computed on a CPU with half the multiplications:
four outputs from six inputs take six instead of twelve. It is Winograd's F(4, 3), as Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4, write it:

    outputs = A^T [(G taps) * (B^T inputs)]

with their matrices for the points 0, 1, -1, 2 and -2, which stand below as the sums that they are.
B^T and A^T are a few additions of whole rows; between them stand, for all tiles of four steps at
once, six products of matrices. The error is that of the plain convolution
(tests/test_convolution.py).

Predictions are computed so and, in training, gradients. Training's forward passes are not: with
other last bits 32 of 87 million ReLUs turned in a published batch, and with them the norm of its
gradients by 1e-4, twice what is allowed (docs/parity.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Tiles pay where their products are large: channels on both sides, steps of the whole batch, which
# have to make up for the sums of the taps where nobody keeps those.
WIDE, LONG = 256, 512
# bytes of the sums of the tiles that are computed at once: they stay in the processor's cache
AT_ONCE = 16 * 2**20


def convolved(
    x_BTC: Tensor, weight: Tensor, bias_O: Tensor | None, *, stride: int = 1, groups: int = 1
) -> Tensor:
    """Convolution along T with kernel 1 or 3 and a padding of half of it: (B, T / stride, O)."""
    # as an image of height 1 the input is in memory order "channels last", which needs no copy
    image = x_BTC.transpose(1, 2).unsqueeze(2)
    kernel, padding = weight.unsqueeze(2), weight.shape[-1] // 2
    out = F.conv2d(image, kernel, bias_O, (1, stride), (0, padding), groups=groups)
    return out.squeeze(2).transpose(1, 2)


def convolved_on_cpu(
    x_BTC: Tensor, weight_OC3: Tensor, bias_O: Tensor | None, sums_6OC: Tensor | None = None
) -> Tensor:
    """The dense convolution with kernel 3, where no gradient of it is wanted: (B, T, O).

    Args:
        sums_6OC: `kept_sums` of the weight, if somebody keeps them: with them tiles pay over few
            steps, too.
    """
    if sums_6OC is None:
        if not _in_tiles(x_BTC, weight_OC3):
            return convolved(x_BTC, weight_OC3, bias_O)
        sums_6OC = _sums_of_taps(weight_OC3)
    out_LO = _convolved_in_tiles(_one_after_another(x_BTC), sums_6OC)
    # the rows of zeros between videos have results, too
    B, T, _ = x_BTC.shape
    out_BTO = out_LO[: B * (T + 1)].view(B, T + 1, -1)[:, :T]
    return out_BTO if bias_O is None else out_BTO.add_(bias_O)


@torch.no_grad()
def kept_sums(weight_OC3: Tensor) -> Tensor | None:
    """What tiles need of a weight that no longer changes; None where it is too narrow for them."""
    return _sums_of_taps(weight_OC3) if _wide(weight_OC3) else None


class TrainedOnCPU(torch.autograd.Function):
    """The same with gradients: x (B, T, C), weight (O, C, 3), bias (O,).

    The weights' gradient is a product of matrices in any case: without AVX-512, oneDNN computes
    that one at a sixth to a half of the rate.
    """

    @staticmethod
    def forward(ctx: Any, x_BTC: Tensor, weight_OC3: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_BTC, weight_OC3)
        return convolved(x_BTC, weight_OC3, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BTO: Tensor) -> tuple[Tensor | None, ...]:
        x_BTC, weight_OC3 = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        x_grad, weight_grad, bias_grad = None, None, None
        if of_x:
            x_grad = convolved_on_cpu(gradient_BTO, weight_OC3.flip(2).transpose(0, 1), None)
        if of_weight and _in_tiles(x_BTC, weight_OC3):
            weight_grad = _weight_gradient_in_tiles(x_BTC, gradient_BTO)
        elif of_weight:
            weight_grad = _weight_gradient_tap_by_tap(x_BTC, gradient_BTO)
        if of_bias:
            bias_grad = gradient_BTO.sum((0, 1))
        return x_grad, weight_grad, bias_grad


def _in_tiles(x_BTC: Tensor, weight_OC3: Tensor) -> bool:
    B, T, _ = x_BTC.shape
    return _wide(weight_OC3) and B * T >= LONG


def _wide(weight_OC3: Tensor) -> bool:
    return min(weight_OC3.shape[:2]) >= WIDE


def _one_after_another(x_BTC: Tensor) -> Tensor:
    """All videos in one sequence (L, C), a row of zeros before and behind each, for whole tiles."""
    B, T, C = x_BTC.shape
    steps = B * (T + 1)
    tiles = -(-steps // 4)
    x_LC = x_BTC.new_empty(4 * tiles + 2, C)
    x_LC[0] = 0
    videos_BTC = x_LC[1 : 1 + steps].view(B, T + 1, C)
    videos_BTC[:, :T] = x_BTC
    videos_BTC[:, T:] = 0
    x_LC[1 + steps :] = 0
    return x_LC


def _weight_gradient_tap_by_tap(x_BTC: Tensor, gradient_BTO: Tensor) -> Tensor:
    """(O, C, 3): what a tap sees is the same matrix, moved by a row."""
    B, T, C = x_BTC.shape
    steps = B * (T + 1)
    x_LC = _one_after_another(x_BTC)
    gradient_LO = _one_after_another(gradient_BTO)[1 : 1 + steps]
    taps_3OC = x_BTC.new_empty(3, gradient_BTO.shape[2], C)
    for k in range(3):
        torch.mm(gradient_LO.T, x_LC[k : k + steps], out=taps_3OC[k])
    return taps_3OC.permute(1, 2, 0)


# ------------------------------------------------------------------------------------ in tiles


def _convolved_in_tiles(x_LC: Tensor, taps_6OC: Tensor) -> Tensor:
    """The convolution (L, O), from sums of its taps; in front no row of zeros any more."""
    O, C = taps_6OC.shape[1:]
    taps_6CO = taps_6OC.transpose(1, 2)
    out_Z4O = x_LC.new_empty(len(x_LC) // 4, 4, O)
    for first, end in _some_tiles(len(out_Z4O), x_LC.element_size() * (C + O)):
        sums_6ZC = _sums_of_inputs(x_LC, first, end)
        _outputs(torch.bmm(sums_6ZC, taps_6CO), out_Z4O[first:end])
    return out_Z4O.view(-1, O)


def _weight_gradient_in_tiles(x_BTC: Tensor, gradient_BTO: Tensor) -> Tensor:
    """(O, C, 3): what leads from the weights to the outputs, backwards."""
    C, O = x_BTC.shape[2], gradient_BTO.shape[2]
    x_LC = _one_after_another(x_BTC)
    gradient_Z4O = _one_after_another(gradient_BTO)[1:-1].view(-1, 4, O)
    products_6OC = x_LC.new_empty(6, O, C)
    for first, end in _some_tiles(len(gradient_Z4O), x_LC.element_size() * (C + O)):
        sums_6ZC = _sums_of_inputs(x_LC, first, end)
        sums_6OZ = _sums_of_gradients(gradient_Z4O[first:end]).transpose(1, 2)
        if first == 0:
            torch.bmm(sums_6OZ, sums_6ZC, out=products_6OC)
        else:
            products_6OC.baddbmm_(sums_6OZ, sums_6ZC)
    return _taps(products_6OC)


def _some_tiles(Z: int, bytes_of_row: int) -> Iterator[tuple[int, int]]:
    """The first tile and the end of every lot that is computed at once, all about as large."""
    lots = -(-Z * 6 * bytes_of_row // AT_ONCE)
    step = -(-Z // lots)
    for first in range(0, Z, step):
        yield first, min(first + step, Z)


def _sums_of_taps(weight_OC3: Tensor) -> Tensor:
    """G taps: (6, O, C)."""
    a, b, c = weight_OC3.permute(2, 0, 1).contiguous()
    sums_6OC = weight_OC3.new_empty(6, *a.shape)
    torch.mul(a, 1 / 4, out=sums_6OC[0])
    _sum_and_difference((a + c).div_(-6), b, -1 / 6, sums_6OC[1:3])
    _sum_and_difference(a.add(c, alpha=4).div_(24), b, 1 / 12, sums_6OC[3:5])
    sums_6OC[5] = c
    return sums_6OC


def _sums_of_inputs(x_LC: Tensor, first: int, end: int) -> Tensor:
    """B^T inputs: (6, Z, C), of tiles that begin every four steps and see six."""
    a, b, c, d, e, f = (x_LC[4 * first + k : 4 * end + k - 3 : 4] for k in range(6))
    sums_6ZC = x_LC.new_empty(6, *a.shape)
    torch.add(e, a, alpha=4, out=sums_6ZC[0]).sub_(c, alpha=5)
    _sum_and_difference(e.sub(c, alpha=4), d.sub(b, alpha=4), 1, sums_6ZC[1:3])
    _sum_and_difference(e - c, d - b, 2, sums_6ZC[3:5])
    torch.add(f, b, alpha=4, out=sums_6ZC[5]).sub_(d, alpha=5)
    return sums_6ZC


def _sums_of_gradients(gradient_Z4O: Tensor) -> Tensor:
    """A gradients: (6, Z, O)."""
    a, b, c, d = gradient_Z4O.unbind(1)
    sums_6ZO = gradient_Z4O.new_empty(6, *a.shape)
    sums_6ZO[0] = a
    _sum_and_difference(a + c, b + d, 1, sums_6ZO[1:3])
    _sum_and_difference(a.add(c, alpha=4), b.add(d, alpha=4), 2, sums_6ZO[3:5])
    sums_6ZO[5] = d
    return sums_6ZO


def _outputs(products_6ZO: Tensor, out_Z4O: Tensor) -> None:
    """Writes A^T products: four outputs of every tile."""
    first, *pairs, last = products_6ZO.unbind()
    even, odd = pairs[0] + pairs[1], pairs[0] - pairs[1]
    twice_even, twice_odd = pairs[2] + pairs[3], pairs[2] - pairs[3]
    a, b, c, d = out_Z4O.unbind(1)
    torch.add(first, even, out=a).add_(twice_even)
    torch.add(odd, twice_odd, alpha=2, out=b)
    torch.add(even, twice_even, alpha=4, out=c)
    torch.add(odd, twice_odd, alpha=8, out=d).add_(last)


def _taps(products_6OC: Tensor) -> Tensor:
    """G^T products: (O, C, 3)."""
    first, *pairs, last = products_6OC.unbind()
    even, odd = pairs[0] + pairs[1], pairs[1] - pairs[0]
    twice_even, twice_odd = pairs[2] + pairs[3], pairs[2] - pairs[3]
    taps_3OC = products_6OC.new_empty(3, *first.shape)
    a, b, c = taps_3OC
    even.div_(-6)
    torch.add(even, first, alpha=1 / 4, out=a).add_(twice_even, alpha=1 / 24)
    torch.mul(odd, 1 / 6, out=b).add_(twice_odd, alpha=1 / 12)
    torch.add(even, last, out=c).add_(twice_even, alpha=1 / 6)
    return taps_3OC.permute(1, 2, 0)


def _sum_and_difference(even: Tensor, odd: Tensor, factor: float, out_2: Tensor) -> None:
    """Writes even + factor * odd and even - factor * odd."""
    torch.add(even, odd, alpha=factor, out=out_2[0])
    torch.sub(even, odd, alpha=factor, out=out_2[1])
