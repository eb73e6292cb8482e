"""All that the published implementations compute, within the tolerances of `parity`."""

from __future__ import annotations

import math

import pytest

import oracle
import parity


@pytest.mark.parametrize("config", parity.NETWORKS)
def test_network_losses_gradients_and_targets_are_the_published_ones(config):
    """Published weights, full size, batches with and without ground truth, and too long ones."""
    assert parity.beyond(parity.network(config)) == {}


@pytest.mark.parametrize("config", parity.RELEASES)
def test_the_release_s_weights_give_the_release_s_outputs(config):
    """Its layout is read, and two params switch to its arithmetic."""
    assert parity.beyond(parity.release_network(config)) == {}


@pytest.mark.parametrize(
    "case", oracle.read("misc/label_assign.json"), ids=lambda case: str(case["case"])
)
def test_targets_are_the_published_ones(case):
    assert parity.beyond(parity.targets(case)) == {}


@pytest.mark.parametrize("key", list(oracle.arrays("misc/lr.npz")))
def test_learning_rate_is_the_published_one_at_every_iteration(key):
    assert parity.beyond(parity.learning_rates(key)) == {}


@pytest.mark.parametrize("tag", parity.TRAJECTORIES)
def test_thirty_iterations_follow_the_published_trajectory(tag):
    assert parity.beyond(parity.trajectory(tag)) == {}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("config", parity.LOADERS)
def test_views_are_the_published_loaders(config, split):
    assert parity.beyond(parity.loader(config, split)) == {}


@pytest.mark.parametrize("part", [parity.truncation, parity.resampling, parity.order_of_training])
def test_what_happens_to_features_is_what_happened_to_the_published_ones(part):
    assert parity.beyond(part()) == {}


@pytest.mark.parametrize(
    "case", parity.nms_cases(), ids=lambda case: f"{case['case']} {case['tag']}"
)
def test_nms_is_the_published_one(case):
    assert parity.beyond(parity.nms(case)) == {}


@pytest.mark.parametrize("j", range(3))
def test_voting_is_the_published_one(j):
    assert parity.beyond(parity.voting(j)) == {}


@pytest.mark.parametrize("i", parity.fusions())
def test_classifiers_are_fused_as_published(i):
    assert parity.beyond(parity.fusion(i)) == {}


@pytest.mark.parametrize("config", parity.NETWORKS)
def test_detections_are_the_published_ones_to_the_last_rounded_digit(config):
    assert parity.beyond(parity.post_processing(config)) == {}


@pytest.mark.parametrize("name", parity.EVALUATIONS)
def test_map_and_recall_are_the_published_ones(name):
    assert parity.beyond(parity.evaluation(name)) == {}


def test_nan_is_beyond_every_tolerance():
    """The worst of several is kept by `max`, which would lose it."""
    worst = {}
    for ours in (1.0, math.nan, 1.0):
        parity._keep(worst, "logits", parity._absolute([ours], [1.0]))
        parity._keep(worst, "total loss", parity._relative(ours, 1.0))
    assert set(parity.beyond(worst)) == {"logits", "total loss"}
