"""The network and its losses against the published ones, and what makes it fast."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from actionformer import ActionFormer, load_experiment
from actionformer.model.attention import windowed_attention
from actionformer.model.layers import ScaledDropPath, max_pooled
from actionformer.model.precision import convolutions_in, effective
from actionformer.params.experiment import ModelParams

SMALL = ModelParams(
    in_channels=6,
    num_classes=3,
    channels=16,
    branch_blocks=3,
    max_seq_len=96,
    attention_window=(5, 5, 5, -1),
    absolute_position_embedding=True,
    regression_range=((0, 4), (4, 8), (8, 16), (16, 10000)),
)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 90), st.integers(0, 2**31))
def test_padding_beyond_the_margin_changes_nothing(valid, seed):
    """METHOD section 6: a batch needs its longest length plus one padding step at every level."""
    torch.manual_seed(seed)
    model = ActionFormer(SMALL).eval()
    for parameter in model.parameters():  # LayerNorm biases of 0 would hide a leak
        parameter.data += 0.1 * torch.randn_like(parameter)
    features = torch.randn(1, 6, valid)
    padded = torch.nn.functional.pad(features, (0, 96 - valid))
    with torch.no_grad():
        short = model(features, torch.ones(1, valid, dtype=torch.bool))
        long = model(padded, torch.arange(96)[None] < valid)
    for a, b in zip(short, long, strict=True):
        steps = int(a.mask_BT.sum())
        torch.testing.assert_close(
            a.logits_BTK[:, :steps], b.logits_BTK[:, :steps], atol=2e-5, rtol=0
        )


# ---------------------------------------------------------------------------------------- precision


def losses_and_gradients(precision):
    torch.manual_seed(0)
    model = ActionFormer(SMALL, precision).train()
    features_BCT = torch.randn(2, SMALL.in_channels, 32)
    mask_BT = torch.arange(32) < torch.tensor([[32], [20]])
    segments = [torch.tensor([[3.0, 9.0]]), torch.tensor([[1.0, 18.0]])]
    labels = [torch.tensor([0]), torch.tensor([1])]
    losses = model.loss(features_BCT, mask_BT, segments, labels)
    losses.total.backward()
    return losses.total, [parameter.grad for parameter in model.parameters()]


def test_on_a_cpu_published_arithmetic_is_float32():
    assert effective("published", "cpu") == "float32"
    (ours, our_gradients), (theirs, their_gradients) = map(
        losses_and_gradients, ("published", "float32")
    )
    assert torch.equal(ours, theirs)
    assert all(map(torch.equal, our_gradients, their_gradients))


def test_bf16_keeps_losses_gradients_and_boundaries_in_float32():
    """Products have 8 bits of mantissa, so a loss agrees to a few parts in a hundred."""
    assert effective("bf16", "cpu") == "bf16"
    loss, gradients = losses_and_gradients("bf16")
    assert loss.dtype == torch.float32
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    exact, _ = losses_and_gradients("float32")
    assert loss != exact
    torch.testing.assert_close(loss, exact, rtol=0.03, atol=0)

    model = ActionFormer(SMALL, "bf16").eval()
    predictor = {}
    model.head.offset_predictor.register_forward_hook(
        lambda _, given, out: predictor.update(given=given[0].dtype, out=out.dtype)
    )
    features_BCT, mask_BT = torch.randn(1, SMALL.in_channels, 32), torch.ones(1, 32)
    levels = model(features_BCT, mask_BT)
    assert predictor == {"given": torch.float32, "out": torch.float32}
    assert {level.logits_BTK.dtype for level in levels} == {torch.float32}


@pytest.mark.parametrize("before", [True, False])
def test_the_process_is_asked_for_tf32_as_the_params_say_and_left_as_it_was(before, monkeypatch):
    """And, whatever they say, for convolutions that repeat."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", before)
    monkeypatch.setattr(cudnn, "deterministic", before)
    model = ActionFormer(SMALL, "float32").eval()
    seen = []
    model.backbone.register_forward_hook(
        lambda *_: seen.append((cudnn.allow_tf32, cudnn.deterministic))
    )
    features_BCT, mask_BT = torch.randn(1, SMALL.in_channels, 32), torch.ones(1, 32)
    model(features_BCT, mask_BT)
    model.precision = "published"
    model(features_BCT, mask_BT)
    assert seen == [(False, True), (True, True)]
    with suppress(KeyboardInterrupt), convolutions_in("float32"):
        assert not cudnn.allow_tf32
        raise KeyboardInterrupt
    assert (cudnn.allow_tf32, cudnn.deterministic) == (before, before)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 12), st.integers(0, 2**31))
@example(6, 2000, 0)
def test_windowed_attention_equals_full_attention_under_a_band_mask(length, reach, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 2, length, 4, generator=generator) for _ in range(3))
    valid = int(torch.randint(1, length + 1, (), generator=generator))
    mask = torch.arange(length)[None].expand(2, -1) < valid
    steps = torch.arange(length)
    band = ((steps[:, None] - steps).abs() <= reach) & mask[0]
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=band | torch.eye(length, dtype=bool)
    )
    found = windowed_attention(q, k, v, mask, reach)
    torch.testing.assert_close(found[:, :, :valid], expected[:, :, :valid], atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.booleans(), st.integers(0, 2**31))
def test_the_skip_of_a_branch_block_is_pytorchs_max_pool_bit_for_bit(T, trained, seed):
    """Its result lies in memory like its input: what comes after needs no copy."""
    generator = torch.Generator().manual_seed(seed)
    x_BTC = torch.randint(-2, 3, (2, T, 3), generator=generator).float().requires_grad_(trained)
    found_BTC = max_pooled(x_BTC)
    pool = torch.nn.MaxPool1d(3, stride=2, padding=1)
    expected_BTC = pool(x_BTC.transpose(1, 2)).transpose(1, 2)
    assert torch.equal(found_BTC, expected_BTC)
    assert found_BTC.is_contiguous()
    if trained:  # the first of equals is given all
        gradients = []
        for result_BTC in (found_BTC, expected_BTC):
            gradients += torch.autograd.grad((result_BTC**2).sum(), x_BTC)
        assert torch.equal(*gradients)


def test_keys_out_of_sight_get_no_gradient():
    """What a softmax weighs with 0 has none, whatever was added before it."""
    q, k, v = (torch.randn(1, 2, 40, 4, requires_grad=True) for _ in range(3))
    mask_BT = torch.arange(40)[None] < 30
    out = windowed_attention(q, k, v, mask_BT, 3)
    for gradient in torch.autograd.grad(out[:, :, 10:12].square().sum(), [k, v]):
        assert gradient.isfinite().all()
        assert gradient[:, :, :7].count_nonzero() == gradient[:, :, 15:].count_nonzero() == 0
        assert gradient[:, :, 7:15].count_nonzero() > 0


def test_a_window_far_longer_than_the_sequence_costs_no_more_than_the_sequence():
    """Deep levels are short: 40 million scores here, if blocks were as long as the window."""
    x_BHTD, mask_BT = torch.randn(1, 1, 6, 4), torch.ones(1, 6, dtype=torch.bool)
    with FlopCounterMode(display=False) as counted:
        windowed_attention(x_BHTD, x_BHTD, x_BHTD, mask_BT, 2000)
    assert counted.get_total_flops() < 10_000


def test_inputs_are_padded_as_far_as_the_published_ones_or_by_one_step_of_the_coarsest_level():
    """METHOD 1.1: to `max_seq_len`, longer ones to a multiple, exact ones not at all."""
    model = ActionFormer(SMALL)  # the coarsest stride is 8, windows of 5 need 4 times the stride
    lengths = {1: 96, 95: 96, 96: 96, 97: 112, 112: 112, 113: 128}
    assert {length: model.published_length(length) for length in lengths} == lengths
    shortest = {1: 16, 8: 16, 9: 24, 88: 96, 89: 96, 96: 96, 97: 112, 112: 112}
    assert {length: model.padded_length(length) for length in shortest} == shortest


def test_every_demo_row_shrinks_sizes_and_keeps_the_architecture():
    for row in ("thumos14_i3d", "multithumos_i3d_rgb", "ego4d_internvideo"):
        paper, demo = (load_experiment(row, edition).model for edition in ("paper", "demo"))
        assert demo.strides == paper.strides
        assert demo.regression_range == paper.regression_range
        names = [{n for n, _ in ActionFormer(p).named_parameters()} for p in (demo, paper)]
        assert names[0] == names[1]


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    layer = ScaledDropPath(3, 0.25)
    layer.scale.data = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    x = torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    out = layer.train()(x)
    kept = out[:, 0, 0] > 0
    torch.testing.assert_close(out[kept], (x * torch.tensor([1.0, 2.0, 3.0]) / 0.75)[kept])
    assert (out[~kept] == 0).all()
    assert 0.72 < kept.float().mean() < 0.78
    torch.testing.assert_close(layer.eval()(x)[0, 0], torch.tensor([1.0, 2.0, 3.0]))


def test_initial_weights_are_as_the_method_says():
    """METHOD section 1, item 8: zero biases but the predictors', scales of 1e-4, 1 per level."""
    torch.manual_seed(0)
    model = ActionFormer(SMALL.model_copy(update={"cls_prior_prob": 0.01}))
    assert torch.allclose(model.head.class_predictor.bias, torch.full((3,), -math.log(99.0)))
    assert model.head.offset_predictor.bias.abs().min() > 0  # PyTorch's default
    for name, module in model.named_modules():
        if (
            isinstance(module, torch.nn.Conv1d)
            and module.bias is not None
            and "predictor" not in name
        ):
            assert not module.bias.any(), name
        if isinstance(module, ScaledDropPath):
            assert torch.allclose(module.scale, torch.full_like(module.scale, 1e-4))


def test_features_of_full_length_are_not_copied():
    """There is nothing to pad them with, and they are the largest tensor of a forward pass."""
    model = ActionFormer(SMALL).eval()
    reached = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: reached.append(inputs[0]))
    for length in (SMALL.max_seq_len, SMALL.max_seq_len - 1):
        features_BCT = torch.randn(1, length, SMALL.in_channels).transpose(1, 2)
        model(features_BCT, torch.ones(1, length, dtype=torch.bool))
        whole = length == SMALL.max_seq_len
        assert (reached[-1].data_ptr() == features_BCT.data_ptr()) is whole


@pytest.mark.parametrize("training", [False, True])
def test_what_a_network_is_given_stays_as_it_was(training):
    """At full length it works on the caller's own tensors."""
    model = ActionFormer(SMALL).train(training)
    features_BCT = torch.randn(2, SMALL.in_channels, SMALL.max_seq_len)
    mask_BT = torch.arange(SMALL.max_seq_len) < torch.tensor([[SMALL.max_seq_len], [5]])
    before = features_BCT.clone(), mask_BT.clone()
    with torch.set_grad_enabled(training):
        model(features_BCT, mask_BT)
    assert torch.equal(features_BCT, before[0])
    assert torch.equal(mask_BT, before[1])
