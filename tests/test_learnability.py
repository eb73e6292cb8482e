"""The demo edition can be learnt, only from its labels, and looks like the published rows.

All rows: `python benchmarks/learnability.py`.
"""

from __future__ import annotations

import sys

import pytest

from conftest import CHECKOUT

sys.path.append(str(CHECKOUT / "benchmarks"))

import learnability

ROW = "epic_verb_slowfast"


@pytest.fixture(scope="module")
def learnt(demo_data, tmp_path_factory):
    return learnability.detected(ROW, demo_data, tmp_path_factory.mktemp("true"), shuffle=False)


def test_a_trained_row_scores_four_times_what_it_scores_on_shuffled_labels(
    learnt, demo_data, tmp_path
):
    chance = learnability.detected(ROW, demo_data, tmp_path, shuffle=True)
    assert 0.35 < learnt.score().average < 0.85
    assert learnt.score().average > 4 * chance.score().average


def test_its_map_falls_with_tiou_at_least_half_as_steeply_as_the_published_one(learnt):
    here, published = learnability.shape_of(ROW, learnt.score())
    assert here >= published / 2


@pytest.mark.parametrize("steps", [-1, 1])
def test_a_boundary_bug_of_one_step_is_visible(learnt, steps):
    """Detections that lie one step of the features off cost points, and not in rounding alone."""
    assert learnt.shifted(0).score().average == learnt.score().average
    assert learnt.score().average - learnt.shifted(steps).score().average > 0.01


def test_classes_differ_in_how_hard_they_are(learnt):
    ap_K = learnt.score().ap_KU.mean(1)
    assert ap_K.max() - ap_K.min() > 0.2
