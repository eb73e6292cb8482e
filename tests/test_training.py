"""Schedule, optimiser, EMA and the loop: the published trajectory; weights after a break."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import random
import shutil
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import oracle
from actionformer import ActionFormer, load_experiment
from actionformer.data.loader import Batch, padded, training_batches
from actionformer.data.view import Sample
from actionformer.errors import InputError
from actionformer.model.attention import MaskedSelfAttention, _around_blocks, windowed_attention
from actionformer.model.backbone import Backbone, TransformerBlock
from actionformer.model.convolution import convolved
from actionformer.model.dropout import Dropout
from actionformer.model.head import Head, _one_sequence
from actionformer.model.layers import (
    Conv1,
    Conv3,
    ConvNormReLU,
    LearnedScale,
    ScaledDropPath,
    downsampled,
    max_pooled,
)
from actionformer.model.losses import diou_loss, focal_loss
from actionformer.model.state_dict_adapter import from_published
from actionformer.model.targets import assign_targets, decoded, points
from actionformer.params.experiment import ModelParams
from actionformer.params.files import published_rows
from actionformer.training import checkpoint, loop
from actionformer.training.agreement import step_batch
from actionformer.training.average import WeightAverage
from actionformer.training.compiled import compile_network
from actionformer.training.history import read_history, write_history
from actionformer.training.loop import Origin, train, training_step
from actionformer.training.observer import Observer
from actionformer.training.optimizer import AdamW, adamw, learning_rate, parameter_groups
from actionformer.training.packing import packed
from conftest import assert_same_tensors


@given(st.floats(0.1, 0.999), st.integers(1, 4), st.integers(0, 2**31))
def test_the_average_is_pytorchs_bit_for_bit(decay, updates, seed):
    """Which sends its counter to the network's device, and so waits for a GPU."""
    torch.manual_seed(seed)
    network = ActionFormer(TINY)
    ours = WeightAverage(network, decay)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
    for _ in range(updates):
        for tensor in network.state_dict().values():
            tensor.normal_()
        for average in (ours, theirs):
            average.update_parameters(network)
    assert_same_tensors(ours.state_dict(), theirs.state_dict())


def test_the_optimizer_is_pytorchs_bit_for_bit():
    """Which imports its compiler to be kept out of it (tests/test_start.py)."""
    states, weights = [], []
    for make in (AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        network = ActionFormer(TINY)
        groups = parameter_groups(network, 0.05)
        optimizer = make(groups, lr=1e-3, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            assert all(parameter.grad is None for parameter in network.parameters())
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        states.append(optimizer.state_dict())
        weights.append(network.state_dict())
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert_same_tensors(weights[0], weights[1])
    for parameter, state in states[1]["state"].items():
        assert_same_tensors(states[0]["state"][parameter], state)


def test_the_first_average_is_the_initial_weights():
    """The first learning rate is 0, so AveragedModel's first update, a copy, copies those."""
    assert learning_rate(0, base=1.0, warmup=10, total=100) == 0.0
    assert learning_rate(0, base=1.0, warmup=1, total=100) == 0.0


# ------------------------------------------------------------ no step waits for what a GPU computes


@pytest.mark.parametrize("row", published_rows())
def test_a_step_asks_for_no_value(row):
    """Meta tensors have none: whatever depends on one, such as a boolean index, raises there."""
    experiment = load_experiment(row)
    with torch.device("meta"):
        model = ActionFormer(experiment.model).train()
        ema = WeightAverage(model, 0.999)
        length = experiment.model.max_seq_len
        batch = Batch(
            torch.empty(2, experiment.model.in_channels, length),
            torch.empty(2, length, dtype=torch.bool),
            [torch.empty(5, 2), torch.empty(3, 2)],
            [torch.empty(5, dtype=torch.int64), torch.empty(3, dtype=torch.int64)],
        )
    # as on a GPU, where the network is before it is averaged: torch keeps this counter on the CPU
    ema.n_averaged = torch.tensor(0)
    groups = parameter_groups(model, 0.05)
    # fused, as training uses it, is one kernel, but refuses meta tensors
    optimizer = torch.optim.AdamW(groups, lr=1e-4, foreach=True)
    for _ in range(2):  # the first average is a copy
        losses, norm = training_step(model, ema, optimizer, batch, lr=1e-4, clip=1.0)
    assert losses.total.is_meta
    assert norm.is_meta


# what waits for a GPU, though meta tensors let it pass
WAITING = {
    *("to", "cpu", "cuda", "item", "tolist", "numpy", "tensor", "as_tensor", "from_numpy"),
    *("nonzero", "masked_select", "unique", "one_hot", "is_nonzero", "equal", "allclose"),
}


def waiting_calls(function):
    """The calls in a function that could wait, and writes by a boolean index."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            text = ast.unparse(node)
            stays = node.func.attr == "to" and text.endswith((".dtype)", "torch.uint8)"))
            if node.func.attr in WAITING and not stays:
                yield text
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
                    text = ast.unparse(target)
                    if text != "group['lr']":
                        yield text


STEP = [
    *(training_step, WeightAverage.update_parameters),
    *(ActionFormer.forward, ActionFormer.loss, ActionFormer._normalizer),
    *(Backbone.forward, Backbone._positions, TransformerBlock.forward, Head.forward, _one_sequence),
    *(MaskedSelfAttention.forward, windowed_attention, _around_blocks),
    *(Conv1.forward, Conv3.forward, Dropout.forward),
    *(ConvNormReLU.forward, ScaledDropPath.forward, LearnedScale.forward),
    *(convolved, downsampled, max_pooled),
    *(assign_targets, decoded, points, focal_loss, diou_loss),
]


@pytest.mark.parametrize("function", STEP, ids=lambda function: function.__qualname__)
def test_nothing_in_a_step_can_wait_for_a_gpu(function):
    assert list(waiting_calls(function)) == []


def test_what_waits_is_found():
    def waits(x, mask):
        x[mask] = 0.0
        return x.to("cpu"), x.sum().item(), x.to(mask.dtype)

    assert list(waiting_calls(waits)) == ["x[mask]", "x.to('cpu')", "x.sum().item()"]


class Cut(BaseException):
    """Ctrl-C, or SIGTERM."""


class Interrupting(Observer):
    """Notes what it is told, and interrupts training once, after an epoch."""

    def __init__(self, after):
        self.after, self.finished, self.starts, self.trained_by = after, [], [], []

    def started(self, run_id, history, trained_by):
        self.starts.append((run_id, len(history)))
        return run_id or "run id"

    def epoch_finished(self, epoch, record):
        self.finished.append(epoch)
        if epoch == self.after:
            raise Cut

    def ended(self, trained_by):
        self.trained_by = trained_by


@pytest.mark.parametrize("epoch", [0, 1])
def test_interrupted_training_ends_with_the_same_weights_bit_for_bit(
    short_training, tmp_path, epoch
):
    """Dropout's random numbers, which PyTorch does not draw itself, included."""
    experiment, training_views, classes = short_training
    model = experiment.model.model_copy(update={"projection_dropout": 0.1})
    experiment = experiment.model_copy(update={"model": model})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(experiment, training_views, classes, seed=3, run=whole)
    looker = Interrupting(after=epoch)
    options = {"seed": 3, "run": cut, "observer": looker}
    with pytest.raises(Cut):
        train(experiment, training_views, classes, **options)
    train(experiment, training_views, classes, **options)
    assert looker.finished == [0, 1, 2]  # every epoch once
    assert looker.starts == [(None, 0), ("run id", epoch + 1)]
    ours, theirs = checkpoint.load(cut / "model.pt"), checkpoint.load(whole / "model.pt")
    assert_same_tensors(ours["state_dict"], theirs["state_dict"])
    columns = ["epoch", "loss/total", "learning_rate", "gradient_norm"]
    tables = [pd.read_csv(run / "history.csv")[columns] for run in (cut, whole)]
    pd.testing.assert_frame_equal(*tables)


def edited(path, edit):
    """Changes what a checkpoint holds, and writes it as torch does: its checksums are right."""
    content = checkpoint.load(path)
    edit(content)
    checkpoint.save(path, content)


def moments_of(content, place=0):
    return content["optimizer"]["state"][place]


@pytest.fixture(scope="module")
def interrupted(short_training, tmp_path_factory):
    """The checkpoint of a training that was interrupted after its first epoch."""
    run = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Cut):
        train(*short_training, seed=3, run=run, observer=Interrupting(after=0))
    return run / "checkpoint.pt"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        # torch would write outside of it, and the process die
        (lambda c: moments_of(c).update(exp_avg=torch.zeros(3, 3)), "exp_avg of weight 0"),
        (lambda c: moments_of(c).pop("exp_avg_sq"), "exp_avg_sq of weight 0"),
        (lambda c: moments_of(c).update(exp_avg=moments_of(c)["exp_avg"].half()), "of float32"),
        (lambda c: moments_of(c)["exp_avg"].fill_(math.nan), "no finite number"),
        (lambda c: c["optimizer"]["state"].pop(1), "moments of"),
        (lambda c: c["optimizer"].update(state={}), "moments of 0 weights"),
        (lambda c: c.update(history=[{}]), "a record of history lacks"),
        (lambda c: c.update(history=4 * c["history"]), "4 epochs, the training has 3"),
        (lambda c: c.update(trained_by=[{}]), "a record of trained_by lacks"),
    ],
)
def test_a_checkpoint_that_no_training_has_written_is_refused(
    interrupted, short_training, tmp_path, edit, words
):
    """With most of these it would have gone on to other weights, without a word."""
    shutil.copy(interrupted, tmp_path)
    edited(tmp_path / "checkpoint.pt", edit)
    with pytest.raises(InputError, match=f"not a checkpoint of this network .*{words}"):
        train(*short_training, seed=3, run=tmp_path)


KINDS = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool])
SHAPES = st.lists(st.integers(0, 3), min_size=1, max_size=3)
# not all in the order of their numbers in memory
TENSORS = st.one_of(
    st.builds(lambda shape, kind: torch.randn(shape).to(kind).movedim(0, -1), SHAPES, KINDS),
    st.builds(torch.tensor, st.integers(-9, 9)),
)
PLAIN = st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.text(), st.just([{}]))
STATES = st.dictionaries(
    st.one_of(st.text(), st.integers(0, 9)),
    st.recursive(
        TENSORS | PLAIN, lambda inner: st.dictionaries(st.text(), inner, max_size=3), max_leaves=9
    ),
    max_size=4,
)


@given(STATES)
def test_a_state_is_read_as_it_was_written(state):
    """Its tensors lie end to end in the file, and nowhere else afterwards."""

    def same(ours, theirs):
        if isinstance(theirs, dict):
            assert set(ours) == set(theirs)
            for key, value in theirs.items():
                same(ours[key], value)
        elif isinstance(theirs, torch.Tensor):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
            assert ours.untyped_storage().nbytes() == ours.nbytes
        else:
            assert ours == theirs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        checkpoint.save_state(path, state)
        same(checkpoint.load(path), state)
        first = path.read_bytes()
        checkpoint.save_state(path, state)
        assert path.read_bytes() == first


@pytest.mark.parametrize(
    "place",
    [
        (("nowhere", "weight"), "torch.float32", (2,)),
        (("model", "weight"), "torch.int64", (2,)),
        (("model", "weight"), "torch.float32", (3,)),
        (("model", "weight"), "torch.float32", 2),
        (("epochs", "weight"), "torch.float32", (2,)),
    ],
)
def test_a_state_whose_tensors_lie_elsewhere_is_refused(tmp_path, place):
    content = packed({"model": {"weight": torch.zeros(2)}, "epochs": 3})
    checkpoint.save(tmp_path / "checkpoint.pt", content | {"places": [place]})
    with pytest.raises(InputError, match=r"not a complete checkpoint .* delete it"):
        checkpoint.load(tmp_path / "checkpoint.pt")


def test_an_interrupted_training_of_before_tensors_lay_end_to_end_goes_on(
    short_training, interrupted, tmp_path
):
    """Each of its tensors stands in the file by itself."""
    weights = []
    for written in (checkpoint.save_state, checkpoint.save):
        run = tmp_path / written.__name__
        run.mkdir()
        written(run / "checkpoint.pt", checkpoint.load(interrupted))
        looker = Interrupting(after=5)
        train(*short_training, seed=3, run=run, observer=looker)
        assert looker.finished == [1, 2]
        weights.append(checkpoint.load(run / "model.pt")["state_dict"])
    assert_same_tensors(*weights)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["loss/total", "seconds", "mAP/0.5"]), NUMBERS, min_size=1)
    )
)
def test_a_history_is_read_as_it_was_written(history):
    """To the last bit; an epoch lacks the numbers that it was written without."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.csv"
        write_history(path, history)
        assert read_history(path) == history


def test_a_checkpoint_keeps_the_history_of_who_trained_which_epochs(short_training, tmp_path):
    """A resume appends; one without an epoch left to train adds nothing and takes no credit."""
    experiment, training_views, classes = short_training
    looker = Interrupting(after=1)
    options = {"seed": 3, "run": tmp_path, "observer": looker}
    with pytest.raises(Cut):
        train(
            experiment, training_views, classes, **options, origin=Origin(who={"commit": "first"})
        )
    for commit in ("second", "third"):
        train(experiment, training_views, classes, **options, origin=Origin(who={"commit": commit}))
        assert looker.trained_by == [
            {"first_epoch": 0, "last_epoch": 1, "commit": "first"},
            {"first_epoch": 2, "last_epoch": 2, "commit": "second"},
        ]
    assert checkpoint.load(tmp_path / "checkpoint.pt")["trained_by"] == looker.trained_by


@pytest.mark.parametrize("workers", [2, 5])
def test_batches_are_the_same_bytes_however_many_threads_read_them_ahead(workers, short_training):
    """Crops come from seed, epoch and video, and batches in their order."""
    _, training_views, _ = short_training

    def batches(count):
        return list(training_batches(training_views, batch_size=3, epoch=1, seed=7, workers=count))

    for one, many in zip(batches(1), batches(workers), strict=True):
        assert torch.equal(one.features_BCT, many.features_BCT)
        assert torch.equal(one.mask_BT, many.mask_BT)
        for ours, theirs in ((one.segments, many.segments), (one.labels, many.labels)):
            assert all(map(torch.equal, ours, theirs))


def test_training_leaves_the_callers_random_numbers_alone(short_training, tmp_path):
    experiment, training_views, classes = short_training
    short = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"schedule_epochs": 1})}
    )
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(short, training_views, classes, seed=0, run=tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_memory_is_given_back_before_and_after_every_evaluation(
    short_training, tmp_path, monkeypatch
):
    """Steps and evaluations take blocks of other sizes: the heap would keep those of both."""
    experiment, training_views, classes = short_training
    calls = []
    monkeypatch.setattr(loop, "release_memory", lambda: calls.append("released"))
    first = {"first_eval_epoch": 0}
    training = experiment.training.model_copy(update=first)
    evaluated = experiment.model_copy(update={"training": training})

    def evaluate(network):
        calls.append("evaluated")
        return {}

    train(evaluated, training_views, classes, seed=0, run=tmp_path, evaluate=evaluate)
    assert calls == ["released", "evaluated", "released"] * training.epochs


def test_equal_trainings_write_equal_bytes(short_training, tmp_path):
    experiment, training_views, classes = short_training
    short = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"schedule_epochs": 1})}
    )
    for name in ("a", "b"):
        train(short, training_views, classes, seed=0, run=tmp_path / name)
    assert (tmp_path / "a/model.pt").read_bytes() == (tmp_path / "b/model.pt").read_bytes()


def test_every_epoch_of_every_seed_draws_numbers_of_its_own(short_training, tmp_path, monkeypatch):
    """Streams of one seed's epochs lie further from another's than any training is long.

    What its first weights are drawn from is left out: seed 1's is the stream of seed 0's epoch 0.
    """
    experiment, training_views, classes = short_training
    seeded = []
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    of_epochs = []
    for seed in range(3):
        seeded.clear()
        train(experiment, training_views[:2], classes, seed=seed, run=tmp_path / str(seed))
        _first_weights, *of_this_seed = seeded
        assert len(of_this_seed) == len(set(of_this_seed)) == experiment.training.epochs
        of_epochs.append(of_this_seed)
    for one, next_one in itertools.pairwise(of_epochs):
        assert min(next_one) - max(one) > 10_000


def test_a_checkpoint_of_other_params_is_not_gone_on_with(short_training, tmp_path):
    experiment, training_views, classes = short_training
    short = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"schedule_epochs": 1})}
    )
    train(short, training_views, classes, seed=0, run=tmp_path, origin=Origin("one"))
    history = train(short, training_views, classes, seed=1, run=tmp_path, origin=Origin("two"))
    assert len(history) == 1
    assert checkpoint.load(tmp_path / "model.pt")["seed"] == 1


def test_seeds_differ_and_repeat(short_training, tmp_path):
    experiment, training_views, classes = short_training
    short = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"schedule_epochs": 1})}
    )

    def loss(seed, folder):
        (record,) = train(short, training_views, classes, seed=seed, run=tmp_path / folder)
        return record["loss/total"]

    first, again, other = loss(0, "first"), loss(0, "again"), loss(1, "other")
    assert first == again != other
    assert math.isfinite(first + again + other)


def test_a_loss_that_is_not_finite_ends_training_in_one_line(short_training, tmp_path):
    experiment, training_views, classes = short_training
    huge = experiment.training.model_copy(
        update={"lr": 1e30, "schedule_epochs": 2, "warmup_epochs": 1}
    )
    with pytest.raises(InputError, match=r"the loss of epoch \d is (nan|inf); lower training.lr"):
        train(
            experiment.model_copy(update={"training": huge}),
            training_views,
            classes,
            seed=0,
            run=tmp_path,
        )


# ------------------------------------------------------------------------ the published trajectory

EPOCHS, PER_EPOCH, BATCH, SEED = 10, 3, 2, 4
TAGS = list(oracle.read("trajectory/trajectory.json"))


class OracleView:
    """A training view that gives, in epoch e, the sample that the published trajectory saw there.

    Which epoch it is, it knows from the random numbers that it is handed: they are those of seed,
    epoch and place.
    """

    def __init__(self, tag, place):
        self.params, self.place = oracle.trajectory_params(tag), place
        # here, and not by the loader's threads: the headers of two arrays that are read at once are
        # a SystemError of some Pythons 3.11 (python/cpython issue 106905)
        self.truth = dict(oracle.arrays("trajectory/trajectory_gt.npz"))
        self.epochs = {}
        for epoch in range(EPOCHS):
            self.epochs[random.Random(f"{SEED}/{epoch}/{place}").random()] = epoch

    def load(self, rng):
        epoch = self.epochs[rng.random()]
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(PER_EPOCH * BATCH, generator=generator).tolist()
        iteration, b = divmod(epoch * PER_EPOCH * BATCH + order.index(self.place), BATCH)
        T = self.params.max_seq_len
        lengths = [T, int(oracle.drawn(f"traj/{iteration}/len").integers(T // 4, T))]
        features_BCT, mask_BT = oracle.masked_input(
            f"traj/{iteration}/inputs", self.params.in_channels, T, lengths
        )
        segments_G2 = torch.from_numpy(self.truth[f"T{T}/{iteration}/segs{b}"])
        labels_G = torch.from_numpy(self.truth[f"T{T}/{iteration}/labels{b}"]).long()
        return Sample(features_BCT[b], mask_BT[b], segments_G2, labels_G)


@pytest.fixture(scope="module", params=TAGS)
def followed(request, tmp_path_factory):
    """(published record, our history, evaluated networks, run folder) of ten epochs of three."""
    tag, run = request.param, tmp_path_factory.mktemp("trajectory")
    params = oracle.trajectory_params(tag)
    experiment = load_experiment("thumos14_i3d", "paper")
    training = experiment.training.model_copy(
        update={
            "batch_size": BATCH,
            "lr": 1e-3,
            "weight_decay": 0.05,
            "warmup_epochs": 5,
            "schedule_epochs": 35,
            "stop_after_epoch": EPOCHS,
            "clip_grad_norm": 1.0,
            "ema_decay": 0.999,
            "first_eval_epoch": EPOCHS - 2,
        }
    )
    experiment = experiment.model_copy(update={"model": params, "training": training})
    network = ActionFormer(params)
    entries = oracle.read(f"trajectory/{tag}_state.json")
    network.load_state_dict(from_published(oracle.published_weights(entries, params)))
    # the published weights to begin with: a checkpoint of no epoch
    begun = {
        "model": network.state_dict(),
        "ema": AveragedModel(network).state_dict(),
        "identity": "published",
        "optimizer": adamw(network, training).state_dict(),
        "history": [],
        "trained_by": [],
        "run_id": None,
    }
    checkpoint.save(run / "checkpoint.pt", begun)
    evaluated = []

    def evaluate(model):
        evaluated.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"training": float(model.training)}

    views_ = [OracleView(tag, place) for place in range(PER_EPOCH * BATCH)]
    history = train(
        experiment, views_, [], seed=SEED, run=run, origin=Origin("published"), evaluate=evaluate
    )
    return oracle.read("trajectory/trajectory.json")[tag], history, evaluated, run


def relative_norms(weights, expected):
    """How far the norms of the tensors are from the published ones."""
    found = {}
    for name, tensor in weights.items():
        # the published average truncates the normaliser to an integer
        if name != "loss_normalizer":
            norm = expected[oracle.opentad_name(name)][2]
            found[name] = abs(float(tensor.double().norm()) - norm) / max(norm, 1e-6)
    return found


def test_the_loop_follows_the_published_losses_norms_and_rates(followed):
    """Means of three iterations; the schedule ends at 35 epochs, training stops after ten."""
    record, history, _, _ = followed
    assert len(history) == EPOCHS
    published = record["f32"]
    for epoch, ours in enumerate(history):
        part = slice(epoch * PER_EPOCH, (epoch + 1) * PER_EPOCH)
        for key, name in (
            ("cls", "loss/classification"),
            ("reg", "loss/regression"),
            ("gn", "gradient_norm"),
        ):
            assert ours[name] == pytest.approx(np.mean(published[key][part]), rel=1e-5)
        assert ours["loss/total"] == pytest.approx(np.mean(published["cost"][part]), rel=1e-5)
        assert ours["learning_rate"] == pytest.approx(published["lr"][part][-1], rel=1e-9)


def test_the_loop_ends_with_the_published_weights_and_keeps_their_average(followed):
    """Clipped steps: most gradient norms of the trajectory are above 1.

    The average is what is evaluated and saved.
    """
    record, _, evaluated, run = followed
    assert sum(norm > 1 for norm in record["f32"]["gn"]) > 10
    trained = checkpoint.load(run / "checkpoint.pt")["model"]
    saved = checkpoint.load(run / "model.pt")["state_dict"]
    assert max(relative_norms(trained, record["final_f32"]).values()) < 5e-5
    assert max(relative_norms(saved, record["ema_f32"]).values()) < 5e-5
    # the two can be told apart
    assert max(relative_norms(saved, record["final_f32"]).values()) > 1e-3
    assert len(evaluated) == 2
    assert_same_tensors(evaluated[-1], saved)


def test_from_the_first_evaluated_epoch_on_a_network_in_evaluation_mode_is_evaluated(followed):
    _, history, _, _ = followed
    in_training_mode = [record.get("training") for record in history]
    assert in_training_mode == [None] * (EPOCHS - 2) + [0.0, 0.0]


# ----------------------------------------------------------------------------------- torch.compile

TINY = ModelParams(
    in_channels=4,
    num_classes=2,
    channels=8,
    heads=2,
    embed_convs=1,
    stem_blocks=1,
    branch_blocks=1,
    head_convs=1,
    max_seq_len=32,
    regression_range=((0, 4), (4, 10000)),
    input_dropout=0.2,
    projection_dropout=0.1,
)


@pytest.mark.long
def test_a_compiled_step_has_the_losses_and_gradients_of_one_that_is_not():
    """Dropout included; kernels that are fused sum in another order."""
    steps = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = ActionFormer(TINY).train()
        if compiled:
            compile_network(model)
        batch = step_batch(TINY)
        torch.manual_seed(1)
        losses = model.loss(batch.features_BCT, batch.mask_BT, batch.segments, batch.labels)
        losses.total.backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        steps.append((losses.total.detach(), gradients))
    (loss, gradients), (compiled_loss, compiled_gradients) = steps
    torch.testing.assert_close(compiled_loss, loss, rtol=1e-5, atol=0)
    assert (compiled_gradients - gradients).norm() < 1e-4 * gradients.norm()


@given(st.integers(1, 64), st.integers(0, 5), st.integers(0, 2**31))
def test_padding_to_a_few_shapes_changes_no_loss(length, segments, seed):
    params = TINY.model_copy(
        update={"max_seq_len": 64, "input_dropout": 0, "projection_dropout": 0}
    )
    torch.manual_seed(seed)
    model = ActionFormer(params).eval()
    batch = step_batch(params)
    batch = Batch(
        batch.features_BCT[..., :length], batch.mask_BT[:, :length], batch.segments, batch.labels
    )
    longer = padded(batch, 64, 4, segments)
    assert longer.mask_BT.shape[1] in (16, 32, 48, 64)
    assert {len(labels_G) for labels_G in longer.labels[1:]} == {max(segments, 1)}
    losses = []
    for one in (batch, longer):
        losses.append(model.loss(one.features_BCT, one.mask_BT, one.segments, one.labels).total)
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-7)


def test_without_a_compiler_training_says_so_in_one_line(short_training, tmp_path, monkeypatch):
    experiment, training_views, classes = short_training
    training = experiment.training.model_copy(update={"compile": True})
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="there is no no-such-compiler; install it"):
        train(
            experiment.model_copy(update={"training": training}),
            training_views,
            classes,
            seed=0,
            run=tmp_path,
        )
