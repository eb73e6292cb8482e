"""The network and its losses against the published implementation's, and the properties that make it fast."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from actionformer import ActionFormer, load_experiment
from actionformer.experiment import ModelParams
from actionformer.model.attention import windowed_attention
from actionformer.model.state_dict_adapter import to_opentad_name
from actionformer.model.targets import assign_targets, points

CONFIGS = ["anet_tsp", "ego4d_egovlp", "fineaction_videomae_h", "thumos_i3d"]


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    """(config, network with the oracle's weights, oracle.json, oracle.npz)"""
    config = request.param
    model = ActionFormer(oracle.without_randomness(oracle.experiment_of(config).model))
    oracle.fill(model, oracle.read(f"{config}/state_dict.json")["entries"])
    return config, model, oracle.read(f"{config}/oracle.json"), oracle.arrays(f"{config}/oracle.npz")


def test_losses_normaliser_and_gradients_are_the_published_ones(case):
    _, model, expected, stored = case
    model.train()
    model.loss_normalizer.fill_(model.params.loss_normalizer_init)
    for name in ("train_A", "train_B", "train_C"):
        record = expected[name]
        batch = oracle.masked_input(record["input_seed_key"], model.params.in_channels, record["T"], record["lens"])
        segments = [torch.from_numpy(stored[f"{name}/gt_segments{b}"]) for b in (0, 1)]
        labels = [torch.from_numpy(stored[f"{name}/gt_labels{b}"]) for b in (0, 1)]
        model.zero_grad()
        losses = model.loss(*batch, segments, labels)
        losses.total.backward()
        assert losses.classification.item() == pytest.approx(record["cls_loss"], rel=5e-6)
        assert losses.regression.item() == pytest.approx(record["reg_loss_weighted"], rel=5e-6)
        assert losses.total.item() == pytest.approx(record["cost"], rel=5e-6)
        assert model.loss_normalizer.item() == pytest.approx(record["loss_normalizer_after"], rel=1e-6)
        norms = {to_opentad_name(n): p.grad.double().norm().item() for n, p in model.named_parameters()}
        total = math.sqrt(sum(norm**2 for norm in norms.values()))
        assert total == pytest.approx(record["global_grad_norm"], rel=5e-5)


@pytest.mark.parametrize("name", ["eval_norm", "eval_over"])
def test_logits_and_offsets_are_the_published_ones_at_valid_steps(case, name):
    _, model, expected, stored = case
    record = expected[name]
    batch = oracle.masked_input(record["input_seed_key"], model.params.in_channels, record["T"], record["lens"])
    with torch.no_grad():
        levels = model.eval()(*batch)
    for i, (level, length) in enumerate(zip(levels, record["level_lens"], strict=True)):
        for key, value in ((f"{name}/cls_l{i}", level.logits_BTK), (f"{name}/reg_l{i}", level.offsets_BT2)):
            full = torch.zeros(len(value), value.shape[2], length)
            kept = min(length, value.shape[1])
            full[:, :, :kept] = (value * level.mask_BT[..., None]).transpose(1, 2)[:, :, :kept]
            found = full.numpy().reshape(-1)[:: expected[key]["step"]]
            np.testing.assert_allclose(found, stored[key].reshape(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("index", range(len(oracle.read("misc/label_assign.json"))))
def test_targets_are_the_published_ones(index):
    case, stored = oracle.read("misc/label_assign.json")[index], oracle.arrays("misc/label_assign.npz")
    i, strides = case["case"], [1, 2, 4, 8, 16, 32]
    classes_PK, offsets_P2 = assign_targets(
        points([case["T"] // stride for stride in strides], strides, case["regression_range"]),
        torch.from_numpy(stored[f"{i}/segs"]),
        torch.from_numpy(stored[f"{i}/labels"]),
        num_classes=case["num_classes"],
        center_sample_radius=case["radius"] if case["center_sample"] == "radius" else math.inf,
        keep_only_shortest=case["filter_similar_gt"],
    )
    positive = np.flatnonzero(classes_PK.sum(1).numpy())
    np.testing.assert_array_equal(np.argwhere(classes_PK.numpy()), stored[f"{i}/cls_nonzero"])
    np.testing.assert_array_equal(positive, stored[f"{i}/pos"])
    np.testing.assert_array_equal(offsets_P2.numpy()[positive], stored[f"{i}/pos_reg"])


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
    """METHOD section 6: a batch needs its longest valid length plus one padding step at every level."""
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
        torch.testing.assert_close(a.logits_BTK[:, :steps], b.logits_BTK[:, :steps], atol=2e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 12), st.integers(0, 2**31))
def test_windowed_attention_equals_full_attention_under_a_band_mask(length, reach, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 2, length, 4, generator=generator) for _ in range(3))
    valid = int(torch.randint(1, length + 1, (), generator=generator))
    mask = torch.arange(length)[None].expand(2, -1) < valid
    steps = torch.arange(length)
    band = ((steps[:, None] - steps).abs() <= reach) & mask[0]
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=band | torch.eye(length, dtype=bool))
    found = windowed_attention(q, k, v, mask, reach)
    torch.testing.assert_close(found[:, :, :valid], expected[:, :, :valid], atol=1e-5, rtol=1e-5)


def test_every_demo_row_shrinks_sizes_and_keeps_the_architecture():
    for row in ("thumos14_i3d", "multithumos_i3d_rgb", "ego4d_internvideo"):
        paper, demo = (load_experiment(row, edition).model for edition in ("paper", "demo"))
        assert demo.strides == paper.strides
        assert demo.regression_range == paper.regression_range
        names = [{n for n, _ in ActionFormer(p).named_parameters()} for p in (demo, paper)]
        assert names[0] == names[1]
