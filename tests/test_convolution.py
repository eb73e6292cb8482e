"""Convolutions along T on a CPU: tap by tap and in tiles, forward and backward."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from actionformer import ActionFormer
from actionformer.model import convolution
from actionformer.model.convolution import LONG, WIDE, convolved
from actionformer.model.layers import Conv1, Conv3, weights_stay
from actionformer.params.experiment import ModelParams

WAYS = pytest.mark.parametrize("in_tiles", [False, True], ids=["tap by tap", "in tiles"])


def choose(monkeypatch, in_tiles):
    """Every convolution in tiles, or none."""
    monkeypatch.setattr(convolution, "_wide", lambda weight_OC3: in_tiles)
    monkeypatch.setattr(convolution, "_in_tiles", lambda x_BTC, weight_OC3: in_tiles)


def test_a_convolution_with_kernel_1_is_the_linear_map_that_it_is_on_a_cpu():
    """On a GPU it runs as a convolution."""
    layer, x_BTC = Conv1(5, 3), torch.randn(2, 7, 5)
    torch.testing.assert_close(convolved(x_BTC, layer.weight, layer.bias), layer(x_BTC))


@WAYS
@given(
    shape=st.tuples(*[st.integers(1, high) for high in (3, 9, 5, 4)]),
    bias=st.booleans(),
    at_once=st.sampled_from([1, convolution.AT_ONCE]),
    seed=st.integers(0, 2**31),
)
@example(shape=(3, 5, 1, 1), bias=True, at_once=1, seed=0)  # tiles that lie across two videos
def test_results_and_gradients_are_those_of_pytorch(in_tiles, shape, bias, at_once, seed):
    B, T, C, O = shape
    torch.manual_seed(seed)
    ours = Conv3(C, O, bias=bias).double()
    theirs = torch.nn.Conv1d(C, O, 3, padding=1, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    x_BTC = torch.randn(B, T, C, dtype=torch.float64, requires_grad=True)
    upstream_BTO = torch.randn(B, T, O, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as monkeypatch:
        choose(monkeypatch, in_tiles)
        monkeypatch.setattr(convolution, "AT_ONCE", at_once)
        found_BTO = ours(x_BTC)
        with torch.no_grad():
            predicted_BTO = ours(x_BTC)
        with torch.no_grad(), weights_stay(ours):
            again_BTO = ours(x_BTC)
        assert torch.equal(again_BTO, predicted_BTO)
        found = torch.autograd.grad(found_BTO, [x_BTC, *ours.parameters()], upstream_BTO)
    out_BTO = theirs(x_BTC.transpose(1, 2)).transpose(1, 2)
    expected = torch.autograd.grad(out_BTO, [x_BTC, *theirs.parameters()], upstream_BTO)
    for a, b in zip([predicted_BTO, found_BTO, *found], [out_BTO, out_BTO, *expected], strict=True):
        torch.testing.assert_close(a, b)


def relative_error(found, exact):
    found, exact = found.detach(), exact.detach()
    return float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("channels", [256, 2048])
@pytest.mark.parametrize("loud", [1.0, 1000.0], ids=["even", "some channels a thousand times"])
def test_tiles_round_about_as_well_as_tap_by_tap(channels, loud, monkeypatch):
    """In float32, against float64; the gradient of the weights sums tiles, not steps."""
    torch.manual_seed(0)
    layer = Conv3(channels, WIDE)
    x_BTC = torch.randn(2, LONG, channels)
    x_BTC[..., ::16] *= loud
    upstream_BTO = torch.randn(2, LONG, WIDE)
    errors = {}
    exact = _results(layer.double(), x_BTC.double(), upstream_BTO.double())
    layer.float()
    for in_tiles in (False, True):
        choose(monkeypatch, in_tiles)
        found = _results(layer, x_BTC, upstream_BTO)
        errors[in_tiles] = [relative_error(a, b) for a, b in zip(found, exact, strict=True)]
    for plain, tiled in zip(errors[False], errors[True], strict=True):
        assert tiled < max(2 * plain, 1.5e-6)


def _results(layer, x_BTC, upstream_BTO):
    """What is predicted, and gradients of input and weights."""
    x_BTC = x_BTC.clone().requires_grad_()
    with torch.no_grad():
        predicted_BTO = layer(x_BTC)
    out_BTO = layer(x_BTC)
    return [predicted_BTO, *torch.autograd.grad(out_BTO, [x_BTC, layer.weight], upstream_BTO)]


def test_a_training_s_forward_pass_keeps_its_bits():
    """Others turn other ReLUs, and gradients with them (model/convolution.py)."""
    torch.manual_seed(0)
    layer, x_BTC = Conv3(WIDE, WIDE), torch.randn(1, LONG, WIDE)
    plain_BTO = convolved(x_BTC, layer.weight, None)
    assert torch.equal(layer(x_BTC), plain_BTO)
    with weights_stay(layer):
        assert torch.equal(layer(x_BTC), plain_BTO)
    with torch.no_grad():
        assert not torch.equal(layer(x_BTC), plain_BTO)


def test_only_wide_convolutions_over_many_steps_go_in_tiles():
    """Of small ones the sums would take longer than the products that they save."""
    for C, O, T in itertools.product(
        [WIDE - 1, WIDE], [WIDE - 1, WIDE], [LONG // 2 - 1, LONG // 2]
    ):
        wanted = (C, O, T) == (WIDE, WIDE, LONG // 2)
        x_BTC, weight_OC3 = torch.empty(2, T, C), torch.empty(O, C, 3)
        assert convolution._in_tiles(x_BTC, weight_OC3) is wanted


def test_where_weights_stay_what_tiles_need_of_them_is_made_once(monkeypatch):
    """And a wide convolution over few steps goes in tiles, too."""
    made = []
    sums_of_taps = convolution._sums_of_taps
    monkeypatch.setattr(convolution, "_sums_of_taps", lambda w: made.append(w) or sums_of_taps(w))
    torch.manual_seed(0)
    wide, narrow = Conv3(WIDE, WIDE), Conv3(WIDE, WIDE - 1)
    videos = [torch.randn(1, T, WIDE) for T in (1, 32, LONG)]
    with torch.no_grad(), weights_stay(wide, narrow):
        for x_BTC in videos:
            plain_BTO = convolved(x_BTC, wide.weight, None)
            assert 0 < relative_error(wide(x_BTC), plain_BTO) < 3e-6
            narrow_BTO = convolved(x_BTC, narrow.weight, None)
            assert torch.equal(narrow(x_BTC), narrow_BTO)
    assert len(made) == 1


def test_weights_may_change_again_afterwards():
    """However it ended."""
    torch.manual_seed(0)
    layer, x_BTC = Conv3(WIDE, WIDE), torch.randn(1, LONG, WIDE)
    with pytest.raises(RuntimeError), torch.no_grad(), weights_stay(torch.nn.Sequential(layer)):
        layer(x_BTC[..., :-1])  # a channel too few
    with torch.no_grad():
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x_BTC), convolved(x_BTC, layer.weight, None))


WIDE_NETWORK = ModelParams(
    in_channels=WIDE,
    num_classes=3,
    channels=WIDE,
    branch_blocks=2,
    max_seq_len=LONG,
    attention_window=(5, 5, -1),
    regression_range=((0, 4), (4, 8), (8, 10000)),
)


def test_a_network_computes_the_same_in_tiles(monkeypatch):
    """Losses and the gradient of every parameter; in float64, where no ReLU turns by rounding."""
    torch.manual_seed(0)
    model = ActionFormer(WIDE_NETWORK).double().eval()  # without dropout
    features_BCT = torch.randn(2, WIDE, LONG, dtype=torch.float64)
    mask_BT = torch.arange(LONG) < torch.tensor([[LONG], [LONG // 3]])
    segments = [torch.tensor([[30.0, 90.0]]), torch.tensor([[1.0, 18.0]])]
    labels = [torch.tensor([0]), torch.tensor([1])]
    found = {}
    for in_tiles in (False, True):
        choose(monkeypatch, in_tiles)
        total = model.loss(features_BCT, mask_BT, segments, labels).total
        found[in_tiles] = [total, *torch.autograd.grad(total, list(model.parameters()))]
    for plain, tiled in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(tiled, plain)


def test_an_exported_convolution_is_one():
    """What runs elsewhere decides there how it computes it."""
    program = torch.export.export(Conv3(WIDE, WIDE), (torch.zeros(1, LONG, WIDE),))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in called
    assert not any("bmm" in name for name in called)
