"""Published checkpoints: both layouts are read, what doesn't fit is refused by name.

Nothing but tensors is loaded.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import oracle
import parity
from actionformer import ActionFormer, load_experiment
from actionformer.errors import InputError
from actionformer.model.state_dict_adapter import (
    from_published,
    params_for_layout,
    published_layout,
    published_model,
)
from actionformer.params.files import PARAMS, names
from actionformer.stages.released import (
    beside_published,
    evaluate_released,
    refuse_if_far_from_published,
)
from actionformer.synthetic.checkpoint import opentad_layout
from actionformer.synthetic.demo import CHECKPOINTS
from actionformer.training import checkpoint
from actionformer.training.checkpoint import load_published
from conftest import run_command

SMALL = "full_pe_win7_T192"


@pytest.fixture
def opentad():
    """(model params, OpenTAD's state dict) of a small network with the recipe's weights."""
    params = oracle.trajectory_params(SMALL)
    return params, oracle.published_weights(oracle.read(f"trajectory/{SMALL}_state.json"), params)


@pytest.fixture
def release(opentad):
    """(model params, the same weights as actionformer_release names and shapes them)."""
    params, weights = opentad
    model = ActionFormer(params)
    model.load_state_dict(from_published(weights))
    renamed = {}
    for name, tensor in model.state_dict().items():
        if name != "loss_normalizer":
            is_norm = "norm" in name and tensor.ndim == 1
            renamed[oracle.release_name(name)] = tensor.reshape(1, -1, 1) if is_norm else tensor
    return params, renamed


@pytest.mark.parametrize("prefix", ["", "module."])
def test_both_layouts_are_told_apart_and_give_the_same_weights(opentad, release, prefix):
    params, weights = opentad

    def prefixed(state):
        return {f"{prefix}{name}": tensor for name, tensor in state.items()}

    both = [prefixed(weights), prefixed(release[1])]
    assert [published_layout(state) for state in both] == ["opentad", "actionformer_release"]
    ours, theirs = map(from_published, both)
    assert set(ours) - set(theirs) == {"loss_normalizer"}
    for name, tensor in theirs.items():
        torch.testing.assert_close(tensor, ours[name], rtol=0, atol=0)
        assert tensor.shape == ActionFormer(params).state_dict()[name].shape


def test_weights_without_a_normaliser_leave_the_models_own(release):
    params, weights = release
    model = ActionFormer(params.model_copy(update={"loss_normalizer_init": 250}))
    model.load_state_dict(from_published(weights))
    assert model.loss_normalizer == 250


def test_the_layout_says_which_arithmetic_it_needs():
    params = load_experiment("ego4d_slowfast").model
    assert params_for_layout(params, "opentad") == params
    theirs = params_for_layout(params, "actionformer_release")
    assert (theirs.conv_norm_eps, theirs.mask_after_norm, theirs.keep_only_shortest_gt) == (
        1e-5,
        False,
        True,
    )
    assert theirs.channels == params.channels


@pytest.mark.parametrize("layout", ["opentad", "release"])
@pytest.mark.parametrize("index", [0, 7, -1])
def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named(layout, index, request):
    _, weights = request.getfixturevalue(layout)
    name = sorted(weights)[index]
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        from_published({key: tensor for key, tensor in weights.items() if key != name})
    with pytest.raises(InputError, match=f"'{name}.more' has no counterpart"):
        from_published(weights | {f"{name}.more": torch.zeros(1)})
    with pytest.raises(InputError, match=f"'{name}' has shape .*, the others ask for"):
        from_published(weights | {name: torch.zeros(2, *weights[name].shape)})
    with pytest.raises(InputError, match=r"'classifier\.weight' belongs to neither"):
        published_layout(weights | {"classifier.weight": torch.zeros(1)})


def test_a_network_of_another_kind_is_refused():
    with pytest.raises(InputError, match=r"'layer1\.0\.conv1\.weight' belongs to neither"):
        published_layout(from_resnet := {"layer1.0.conv1.weight": torch.zeros(3)})
    with pytest.raises(InputError, match="belongs to neither"):
        from_published(from_resnet)
    with pytest.raises(InputError, match="no tensors in it"):
        published_layout({})


def test_weights_that_are_twice_there_or_not_numbers_are_named(opentad):
    _, weights = opentad
    name = sorted(weights)[0]
    with pytest.raises(InputError, match=f"'{name}' is there with and without 'module.'"):
        from_published(weights | {f"module.{name}": weights[name]})
    with pytest.raises(InputError, match=f"'{name}' has NaN"):
        from_published(weights | {name: torch.full_like(weights[name], math.nan)})


def test_a_published_model_is_ready_to_use_and_refuses_a_row_of_other_sizes(release):
    params, weights = release
    model = published_model(params, weights)
    assert model.params.mask_after_norm is False
    assert not model.training
    with pytest.raises(
        InputError, match=r"'cls_head\.cls_head\.conv\.weight': the checkpoint has \(7, 32, 3\)"
    ):
        published_model(params.model_copy(update={"num_classes": 8}), weights)


class Unwanted:
    def __reduce__(self):
        return os.system, ("echo loaded",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict_ema": {}, "hook": Unwanted()}, "not a complete checkpoint .*fetch again"),
        (
            {"epoch": 3, "optimizer": {}},
            "holds epoch, optimizer; expected the averaged weights, state_dict_ema",
        ),
        (None, "no such file; fetch first"),
        (b"", r"not a complete checkpoint \(.*\); delete it and fetch again"),
        (b"a" * 1000, r"not a complete checkpoint \(.*\); delete it and fetch again"),
    ],
)
def test_a_checkpoint_is_read_without_running_anything_in_it(tmp_path, content, words, capfd):
    path = tmp_path / "c.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=words):
        load_published(path)
    assert "loaded" not in capfd.readouterr().out


def test_a_checkpoint_may_hold_numbers_of_numpy_beside_its_weights(tmp_path):
    """As that of a schedule whose learning rate numpy reckoned; numpy 1 had another name for it."""
    content = {
        "state_dict_ema": {"w": torch.ones(2)},
        "scheduler": {"_last_lr": [np.float64(1e-4)], "last_epoch": np.int64(35)},
    }
    torch.save(content, tmp_path / "new.pth")
    torch.save(content, tmp_path / "old.pth", pickle_protocol=2)
    assert list(load_published(tmp_path / "new.pth")) == ["w"]
    assert checkpoint.load(tmp_path / "old.pth")["scheduler"] == content["scheduler"]
    archive = zipfile.ZipFile(tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "numpy1.pth", "w") as renamed:
        for name in archive.namelist():
            said = archive.read(name).replace(b"numpy._core.multi", b"numpy.core.multi")
            renamed.writestr(name, said)
    assert b"numpy.core.multiarray" in renamed_pickle(tmp_path / "numpy1.pth")
    assert list(load_published(tmp_path / "numpy1.pth")) == ["w"]


def renamed_pickle(path):
    """The pickle of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".pkl")))


@pytest.mark.parametrize("config", parity.NETWORKS)
def test_the_demos_checkpoints_have_the_published_layout(config):
    entries = oracle.read(f"{config}/state_dict.json")["entries"]
    published = {(entry["name"], tuple(entry["shape"]), entry["kind"]) for entry in entries}
    assert set(opentad_layout(oracle.experiment_of(config).model)) == published


def test_every_paper_row_names_its_checkpoint_and_the_demo_has_five():
    rows = {row: load_experiment(row, "paper") for row in names("experiments")}
    for experiment in rows.values():
        assert experiment.dataset.files[experiment.released.file].sources
    shared = {}
    for row, experiment in rows.items():
        if experiment.released.shared_with:
            shared[row] = experiment.released.shared_with
    assert shared == {
        "multithumos_i3d": "multithumos_i3d_rgb",
        "multithumos_i3d_rgb": "multithumos_i3d",
    }
    demo = [load_experiment(row, "demo").released for row in rows]
    assert len({released.file for released in demo if released}) == len(CHECKPOINTS) == 5


@pytest.fixture(scope="module")
def built(tmp_path_factory, demo_data) -> Path:
    """Databases and stores of the demo's MultiTHUMOS, and its shared checkpoint."""
    folder = tmp_path_factory.mktemp("released")
    for dataset in ("multithumos", "thumos14"):  # first uses of files are recorded beside them
        shutil.copytree(demo_data / dataset, folder / "data/demo" / dataset)
    run_command(folder, "actionformer", "convert", "multithumos")
    run_command(folder, "actionformer", "pack", "thumos14", "i3d")
    return folder


def test_a_checkpoint_that_two_rows_share_is_evaluated_for_one_and_the_other_has_none(built):
    metrics = {}
    for row in ("multithumos_i3d_rgb", "multithumos_i3d"):
        run_command(built, "actionformer", "evaluate-released", row)
        path = built / f"results/demo/{row}/released/metrics.json"
        metrics[row] = json.loads(path.read_text())
    rgb, both = metrics["multithumos_i3d_rgb"], metrics["multithumos_i3d"]
    assert rgb["percent"]["mAP/average"] < 5  # drawn weights know nothing
    assert "data/demo/multithumos/checkpoints/multithumos.pth" in rgb["lineage"]["files"]
    assert "that of I3D (rgb): the first tensor" in both["none"]
    assert (
        "'projection.embed.0.conv.weight': the checkpoint has (32, 24, 3), the model (32, 48, 3)"
        in both["none"]
    )
    assert "percent" not in both


@pytest.mark.parametrize(("tolerance", "refused"), [(1.0, True), (100.0, False), (None, False)])
def test_training_waits_for_what_a_published_checkpoint_scores(
    tolerance, refused, built, monkeypatch
):
    """Far from what was published, data or code must be wrong: minutes tell, not days."""
    run_command(built, "actionformer", "evaluate-released", "multithumos_i3d_rgb")
    monkeypatch.chdir(built)
    experiment = load_experiment("multithumos_i3d_rgb", "demo")
    if not refused:
        refuse_if_far_from_published(experiment, tolerance)
        return
    words = r"scores 0\.\d+ here, published are 34\.02, .*order of classes.*trust_released=false"
    with pytest.raises(InputError, match=words):
        refuse_if_far_from_published(experiment, tolerance)


def test_a_checkpoint_of_which_there_is_nothing_to_say_holds_no_training_back(built, monkeypatch):
    monkeypatch.chdir(built)
    run_command(built, "actionformer", "evaluate-released", "multithumos_i3d")
    # the one has none, that of the other fits another row
    for row in ("hacs_slowfast", "multithumos_i3d"):
        experiment = load_experiment(row, "demo")
        assert beside_published(experiment, 1.0) == ("", False)
        refuse_if_far_from_published(experiment, 1.0)


def test_a_checkpoint_that_fits_neither_row_is_refused_by_its_first_tensor(built, monkeypatch):
    monkeypatch.chdir(built)
    experiment = load_experiment("multithumos_i3d", "demo")
    wide = experiment.model_copy(
        update={"model": experiment.model.model_copy(update={"channels": 64})}
    )
    for released in ({"shared_with": None}, {"shared_with": "thumos14_i3d"}):
        other = wide.model_copy(
            update={"released": experiment.released.model_copy(update=released)}
        )
        with pytest.raises(
            InputError,
            match=r"multithumos\.pth: the first tensor .* 'projection\.embed\.0\.conv\.weight'",
        ):
            evaluate_released(other, PARAMS, device="cpu")


def test_a_row_without_a_checkpoint_says_so(built, monkeypatch):
    monkeypatch.chdir(built)
    with pytest.raises(InputError, match="hacs_slowfast: no checkpoint was published"):
        evaluate_released(load_experiment("hacs_slowfast", "demo"), PARAMS, device="cpu")
