"""Dropout: PyTorch's distribution and gradients, from random numbers that no processor changes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionformer.model import dropout
from actionformer.model.dropout import Dropout, kept

SEEDS = st.integers(0, 2**31)
RATES = st.floats(0.001, 0.999)
# of seed 0 at a rate of 0.5; 1: kept
DRAWN = "0100011101110011010010101011001001000010"


@given(RATES, SEEDS)
def test_as_many_elements_are_dropped_as_the_rate_says(p, seed):
    torch.manual_seed(seed)
    n = 20_000
    dropped = (kept(torch.empty(n), p) == 0).sum().item()
    assert abs(dropped - n * p) <= 6 * math.sqrt(n * p * (1 - p)) + 1


@given(st.floats(0.1, 0.9), st.sampled_from([1, 2, 3, 4, 8, 64]), SEEDS)
def test_an_element_says_nothing_of_another(p, apart, seed):
    """Two elements share 64 bits: neighbours, too, are both kept as often as chance has it."""
    torch.manual_seed(seed)
    is_kept = kept(torch.empty(20_000), p) > 0
    both = is_kept[apart:] & is_kept[:-apart]
    expected = (1 - p) ** 2
    # pairs overlap, which widens the spread by less than two
    spread = math.sqrt(expected * (1 - expected) / len(both))
    assert abs(both.float().mean().item() - expected) <= 10 * spread


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), RATES, SEEDS)
def test_what_is_kept_is_scaled_in_the_result_and_in_the_gradient(shape, p, seed):
    """Of any shape and layout, an odd number of elements and none at all."""
    torch.manual_seed(seed)
    x = torch.randn(shape).transpose(0, -1).requires_grad_()
    out = Dropout(p)(x)
    out.sum().backward()
    assert x.grad is not None
    scale = torch.tensor(1 / (1 - p))
    assert bool(((x.grad == 0) | (x.grad == scale)).all())
    assert torch.equal(out, x * x.grad)


@given(SEEDS)
def test_the_seed_is_pytorchs(seed):
    drawn = []
    for _ in range(2):
        torch.manual_seed(seed)
        drawn.append([kept(torch.empty(64), 0.5) for _ in range(2)])
    (first, second), (again, _) = drawn
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_every_processor_draws_these():
    """NumPy keeps the stream of its bit generators, and PyTorch that of its own."""
    torch.manual_seed(0)
    is_kept = kept(torch.empty(40), 0.5) > 0
    assert "".join(str(int(one)) for one in is_kept) == DRAWN


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_precision_drops_the_same_elements(dtype):
    factors = []
    for kind in (torch.float32, dtype):
        torch.manual_seed(0)
        factors.append(kept(torch.empty(100, dtype=kind), 0.3))
    assert factors[1].dtype == dtype
    assert torch.equal(factors[1] > 0, factors[0] > 0)


@pytest.mark.parametrize("p", [1e-12, 1 - 1e-12])
def test_a_rate_next_to_all_or_nothing_is_taken(p):
    torch.manual_seed(0)
    assert bool(((kept(torch.empty(1000), p) == 0) == (p > 0.5)).all())


@given(RATES)
def test_nothing_is_dropped_in_evaluation_and_nothing_drawn(p):
    x = torch.randn(4, 5)
    state = torch.get_rng_state()
    assert torch.equal(Dropout(p).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), state)


def test_on_another_device_it_is_pytorchs(monkeypatch):
    """Which is one kernel on a GPU."""

    def refused(x, p):
        raise AssertionError("drawn on the CPU")

    monkeypatch.setattr(dropout, "kept", refused)
    assert dropout.Dropout(0.5)(torch.empty(4, 5, device="meta")).is_meta
