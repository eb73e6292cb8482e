"""How long a training will take, as `actionformer status` reckons it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionformer import layout, load_experiment
from actionformer.data.loader import batches_of_views, of_like_lengths, training_batches
from actionformer.data.view import Crop
from actionformer.errors import InputError
from actionformer.stages import status
from actionformer.training import cost


@pytest.mark.parametrize("longest", [40, 10_000], ids=["cut", "whole"])
def test_hours_are_reckoned_of_the_batches_that_training_has(longest, short_training):
    """Of every epoch, whose order decides which videos are padded to which."""
    experiment, training_views, _ = short_training
    crop = Crop(longest, threshold=0.0, ratio=(1.0, 1.0))
    training_views = [replace(view, crop=crop) for view in training_views]
    lengths = [len(view.features[view.video]) for view in training_views]
    truncation = {"length": longest, "crop_ratio": (1.0, 1.0)}
    data = experiment.data.model_copy(
        update={"random_trunc": experiment.data.random_trunc.model_copy(update=truncation)}
    )
    experiment = experiment.model_copy(update={"data": data})
    reckoned = cost.batches_of(experiment, lengths, lengths).training
    assert len(reckoned) == experiment.training.epochs > 1
    for epoch, shapes in enumerate(reckoned):
        batch_size = experiment.training.batch_size
        batches = training_batches(training_views, batch_size=batch_size, epoch=epoch, seed=0)
        assert shapes == [cost.BatchShape(*batch.mask_BT.shape) for batch in batches]


def test_hours_are_reckoned_of_the_batches_that_detection_has(short_training):
    """Short videos share one: their number is not that of the videos."""
    experiment, training_views, _ = short_training
    views = [replace(view, crop=None) for view in training_views]
    lengths = [view.steps for view in views]
    batch_size = 1
    model = experiment.model.model_copy(update={"max_seq_len": 3 * max(lengths) // 32 * 32})
    inference = experiment.inference.model_copy(update={"batch_size": batch_size})
    experiment = experiment.model_copy(update={"model": model, "inference": inference})
    reckoned = cost.batches_of(experiment, lengths, lengths).test
    places = of_like_lengths(lengths, model, batch_size=batch_size)
    batches = batches_of_views([[views[place] for place in batch] for batch in places])
    assert reckoned == [cost.BatchShape(*batch.mask_BT.shape) for batch in batches]
    assert len(reckoned) < len(views)


def test_a_slow_moment_of_the_machine_changes_no_hours(short_training, monkeypatch):
    """Every time counts at the rate of matrix products right then."""
    experiment, _, _ = short_training
    shapes = [cost.BatchShape(1, length) for length in (40, 80, 120)]
    batches, one = cost.Batches([shapes], shapes), [cost.BatchShape(2, 40)]

    def measured(rates):
        """On a machine with these rates, where every batch has 1e9 operations."""
        looks = iter(rates)
        between = iter([(before + after) / 2 for before, after in itertools.pairwise(rates)])
        monkeypatch.setattr(cost, "matrix_rate", lambda device: next(looks))
        monkeypatch.setattr(cost, "_typical", lambda work, warm: 1e9 / next(between))
        return cost.measured(experiment, batches, "cpu")

    steady = measured([1e11] * 7)
    shaken = measured([1e11, 1e11, 2e10, 5e10, 1e11, 3e10, 1e11])
    assert steady.step.seconds(one) == pytest.approx(0.01)
    assert shaken.at(steady.rate).step.seconds(one) == pytest.approx(0.01)
    assert shaken.at(steady.rate / 2).test.seconds(one) == pytest.approx(0.02)


def test_rows_that_were_measured_at_other_moments_are_told_at_one_rate(tmp_path, monkeypatch):
    """That which was usual with as many threads; what an earlier version kept is measured again."""
    monkeypatch.chdir(tmp_path)
    line, speeds = {"constant": 1.0, "per_step": 0.0}, {}
    rows = [load_experiment(name) for name in ("thumos14_i3d", "hacs_slowfast", "ego4d_slowfast")]
    # its network is small, and has one thread
    other = load_experiment("thumos14_i3d", "demo")
    assert other.training.threads != rows[0].training.threads
    for row, rate in zip([*rows, other], (1e11, 2e11, 1e11, 5e9), strict=True):
        machine = status._machine(row, "cpu")
        speed = {"step": line, "test": line, "rate": rate, "machine": machine}
        speeds[status._speed_key(row, "cpu")] = speed
    old = load_experiment("activitynet_tsp")
    speeds[status._speed_key(old, "cpu")] = [[1.0, 0.0], [1.0, 0.0]]
    layout.SPEEDS.parent.mkdir()
    layout.SPEEDS.write_text(json.dumps(speeds))
    told = [status.speed_of(row, "cpu").step.constant for row in [*rows, other]]
    assert told == [1.0, 2.0, 1.0, 1.0]
    assert status.speed_of(old, "cpu") is None


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": None}, {"step": {}}, {"test": "quick"}])
def test_a_damaged_file_of_speeds_is_one_line(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row, line = load_experiment("thumos14_i3d"), {"constant": 1.0, "per_step": 0.0}
    speed = {"step": line, "test": line, "rate": 1e11, "machine": status._machine(row, "cpu")}
    layout.SPEEDS.parent.mkdir()
    layout.SPEEDS.write_text(json.dumps({status._speed_key(row, "cpu"): speed | wrong}))
    with pytest.raises(InputError, match=r"speeds.json: holds something else .* delete it"):
        status.speed_of(row, "cpu")


def seconds_of(line, steps):
    return line.seconds([cost.BatchShape(1, steps)])


@given(st.lists(st.integers(1, 3000), min_size=3, max_size=3), st.data())
def test_a_larger_batch_is_never_reckoned_quicker_nor_one_for_nothing(steps, data):
    """However few and alike the batches that were measured, and however slow a moment was."""
    seconds = data.draw(st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
    line = cost.Line.through(steps, seconds)
    assert line.constant >= 0
    assert line.per_step >= 0
    assert min(seconds) <= seconds_of(line, max(steps)) * (1 + 1e-9)
    assert seconds_of(line, min(steps)) <= max(seconds) * (1 + 1e-9)


@given(st.sets(st.integers(1, 3000), min_size=2), st.floats(0, 10), st.floats(1e-6, 0.1))
def test_times_that_grow_evenly_are_reckoned_as_they_are(steps, constant, per_step):
    ordered = sorted(steps)
    line = cost.Line.through(ordered, [constant + per_step * count for count in ordered])
    for count in (1, 100, 5000):
        assert seconds_of(line, count) == pytest.approx(constant + per_step * count, rel=1e-3)
