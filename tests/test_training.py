"""Schedule, optimiser, EMA and the loop: the published trajectory, and the same weights after an interruption."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

import oracle
from actionformer import load_experiment
from actionformer.data.annotations import load_database
from actionformer.data.features import FeatureStore, pack
from actionformer.data.publishers import convert
from actionformer.data.view import views
from actionformer.errors import InputError
from actionformer.training import checkpoint, learning_rate
from actionformer.training.loop import train

RATES = oracle.arrays("misc/lr.npz")
TRAJECTORY = oracle.read("trajectory/trajectory.json")


def test_the_first_average_is_the_initial_weights():
    """The first learning rate is 0, so that AveragedModel's first update, which copies, copies those."""
    assert learning_rate(0, base=1.0, warmup=10, total=100) == 0.0
    assert learning_rate(0, base=1.0, warmup=1, total=100) == 0.0


@pytest.fixture(scope="module")
def thumos(demo_data, tmp_path_factory):
    """(demo experiment of three epochs, training views, classes)"""
    experiment = load_experiment("thumos14_i3d", "demo")
    training = experiment.training.model_copy(update={"schedule_epochs": 3, "warmup_epochs": 1})
    experiment = experiment.model_copy(update={"training": training})
    database = load_database(convert(experiment.dataset, demo_data / "thumos14"))
    store = tmp_path_factory.mktemp("store") / "i3d.h5"
    pack(demo_data / "thumos14" / experiment.features.file, store, dim=experiment.features.dim)
    return experiment, views(database, FeatureStore(store), experiment, "train")[:12], database.classes


class Cut(BaseException):
    """Ctrl-C, or SIGTERM."""


@pytest.mark.parametrize("epoch", [0, 1])
def test_interrupted_training_ends_with_the_same_weights_bit_for_bit(thumos, tmp_path, epoch):
    experiment, training_views, classes = thumos
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(experiment, training_views, classes, seed=3, run=whole)
    logged = []

    def interrupt(finished, record):
        logged.append(finished)
        if finished == epoch and len(logged) == epoch + 1:
            raise Cut

    starts = []
    options = {
        "seed": 3,
        "run": cut,
        "on_epoch": interrupt,
        "on_start": lambda token, history: starts.append((token, len(history))) or "run id",
    }
    with pytest.raises(Cut):
        train(experiment, training_views, classes, **options)
    train(experiment, training_views, classes, **options)
    assert logged == [0, 1, 2]  # every epoch once
    assert starts == [(None, 0), ("run id", epoch + 1)]
    ours, theirs = (checkpoint.load(run / "model.pt")["state_dict"] for run in (cut, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    columns = ["epoch", "loss/total", "learning_rate", "gradient_norm"]
    tables = [pd.read_csv(run / "history.csv")[columns] for run in (cut, whole)]
    pd.testing.assert_frame_equal(*tables)


def test_a_checkpoint_of_other_params_is_not_gone_on_with(thumos, tmp_path):
    experiment, training_views, classes = thumos
    short = experiment.model_copy(update={"training": experiment.training.model_copy(update={"schedule_epochs": 1})})
    train(short, training_views, classes, seed=0, run=tmp_path, identity="one")
    history = train(short, training_views, classes, seed=1, run=tmp_path, identity="two")
    assert len(history) == 1
    assert checkpoint.load(tmp_path / "model.pt")["seed"] == 1


def test_seeds_differ_and_repeat(thumos, tmp_path):
    experiment, training_views, classes = thumos
    short = experiment.model_copy(update={"training": experiment.training.model_copy(update={"schedule_epochs": 1})})
    losses = [
        train(short, training_views, classes, seed=seed, run=tmp_path / str(i))[0]["loss/total"]
        for i, seed in enumerate([0, 0, 1])
    ]
    assert losses[0] == losses[1] != losses[2]
    assert math.isfinite(sum(losses))


def test_a_loss_that_is_not_finite_ends_training_in_one_line(thumos, tmp_path):
    experiment, training_views, classes = thumos
    huge = experiment.training.model_copy(update={"lr": 1e30, "schedule_epochs": 2, "warmup_epochs": 1})
    with pytest.raises(InputError, match=r"the loss of epoch \d is (nan|inf); lower training.lr"):
        train(experiment.model_copy(update={"training": huge}), training_views, classes, seed=0, run=tmp_path)
