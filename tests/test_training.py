"""Schedule, optimiser, EMA and the loop: the published trajectory, and the same weights after an interruption."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import oracle
from actionformer import ActionFormer, load_experiment
from actionformer.data.annotations import load_database
from actionformer.data.features import FeatureStore, pack
from actionformer.data.loader import Batch
from actionformer.data.publishers import convert
from actionformer.data.view import views
from actionformer.errors import InputError
from actionformer.experiment import ModelParams, TrainingParams
from actionformer.model.state_dict_adapter import to_opentad_name
from actionformer.training import checkpoint, learning_rate, parameter_groups
from actionformer.training.loop import train, training_step
from actionformer.training.optimizer import adamw

RATES = oracle.arrays("misc/lr.npz")
TRAJECTORY = oracle.read("trajectory/trajectory.json")


@pytest.mark.parametrize("key", list(RATES))
def test_learning_rate_is_the_published_one_at_every_iteration(key):
    pattern = r"warm(\d+)_max(\d+)_iters(\d+)_end(\d+)_lr(.+)"
    warmup, epochs, iterations, _, base = re.fullmatch(pattern, key).groups()
    rates = [
        learning_rate(i, base=float(base), warmup=int(warmup) * int(iterations), total=int(epochs) * int(iterations))
        for i in range(len(RATES[key]))
    ]
    np.testing.assert_allclose(rates, RATES[key], rtol=1e-12)


@pytest.mark.parametrize("config", ["anet_tsp", "ego4d_egovlp", "thumos_i3d"])
def test_parameter_groups_are_the_published_ones(config):
    model = ActionFormer(oracle.experiment_of(config).model)
    names = {id(parameter): to_opentad_name(name) for name, parameter in model.named_parameters()}
    expected = oracle.read(f"{config}/oracle.json")["optim_groups"]
    decay, no_decay = parameter_groups(model, 0.05)
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.05, 0.0)
    assert {names[id(p)] for p in decay["params"]} == set(expected["decay"])
    assert {names[id(p)] for p in no_decay["params"]} == set(expected["no_decay"])


def trajectory_params(tag: str) -> ModelParams:
    common = {"in_channels": 64, "channels": 32, "drop_path": 0.0, "max_seq_len": int(tag.rpartition("T")[2])}
    if tag.startswith("local19"):
        return ModelParams(num_classes=20, attention_window=19, **common)
    return ModelParams(
        num_classes=7,
        embed_convs=3,
        stem_blocks=1,
        attention_window=(7, 7, 7, 7, 7, -1),
        absolute_position_embedding=True,
        label_smoothing=0.1,
        reg_loss_weight=2.0,
        keep_only_shortest_gt=False,
        **common,
    )


@pytest.mark.parametrize("tag", ["local19_T576", "full_pe_win7_T192"])
def test_thirty_iterations_follow_the_published_trajectory(tag):
    params = trajectory_params(tag)
    model = ActionFormer(params).train()
    oracle.fill(model, oracle.read(f"trajectory/{tag}_state.json"))
    settings = TrainingParams(lr=1e-3, weight_decay=0.05)
    optimizer = adamw(model, settings)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    truth, expected = oracle.arrays("trajectory/trajectory_gt.npz"), TRAJECTORY[tag]["f32"]
    T = params.max_seq_len
    for it in range(30):
        lengths = [T, int(oracle.drawn(f"traj/{it}/len").integers(T // 4, T))]
        features, mask = oracle.masked_input(f"traj/{it}/inputs", params.in_channels, T, lengths)
        segments = [torch.from_numpy(truth[f"T{T}/{it}/segs{b}"]) for b in (0, 1)]
        labels = [torch.from_numpy(truth[f"T{T}/{it}/labels{b}"]) for b in (0, 1)]
        rate = learning_rate(it, base=1e-3, warmup=15, total=105)
        losses, norm = training_step(model, ema, optimizer, Batch(features, mask, segments, labels), lr=rate, clip=1.0)
        assert losses.total.item() == pytest.approx(expected["cost"][it], rel=1e-5)
        assert norm.item() == pytest.approx(expected["gn"][it], rel=5e-5)
        assert model.loss_normalizer.item() == pytest.approx(expected["ln"][it], rel=1e-5)


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
