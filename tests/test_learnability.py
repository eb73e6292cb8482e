"""The demo edition can be learnt, and only from its labels.

All rows: `python benchmarks/learnability.py`.
"""

from __future__ import annotations

import sys

import pytest

from conftest import CHECKOUT

sys.path.append(str(CHECKOUT / "benchmarks"))

import learnability


@pytest.mark.parametrize("row", ["epic_verb_slowfast"])
def test_a_trained_row_scores_five_times_what_it_scores_on_shuffled_labels(
    row, demo_data, tmp_path
):
    learnt, chance = (
        learnability.score(row, demo_data, tmp_path, shuffle=shuffle) for shuffle in (False, True)
    )
    assert learnt.average > 0.3
    assert learnt.map_U[-1] > 0.05
    assert learnt.average > 5 * chance.average
