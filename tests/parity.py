"""How far ours is from the published implementations.

    python tests/parity.py [--out docs/parity.md]

The parity tests judge it and docs/parity.md shows it. Each function runs one part of ours on the
oracles' inputs and returns its worst deviation per quantity; `TOLERANCE` says how large each may
be. Quantities whose name begins with "differing" count what has to be equal and isn't.
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import oracle
from actionformer import ActionFormer
from actionformer.data import random_truncation, views
from actionformer.data.loader import Batch
from actionformer.data.view import View, Window, linearly_resized, resized
from actionformer.detection.classifiers import load_classifier
from actionformer.detection.decode import candidates, decode
from actionformer.detection.nms import batched_nms, vote
from actionformer.detection.predict import in_seconds, of_video
from actionformer.evaluation import mean_average_precision, recall_at_kx
from actionformer.files.writing import write_text
from actionformer.model.state_dict_adapter import (
    from_published,
    params_for_layout,
    published_layout,
)
from actionformer.model.targets import assign_targets, points
from actionformer.params.experiment import TrainingParams
from actionformer.params.files import published_rows
from actionformer.progress import progress
from actionformer.training.loop import training_step
from actionformer.training.optimizer import adamw, learning_rate, parameter_groups

Deviations = dict[str, float]

# Relative for losses, norms, rates and trajectories (a tensor's gradient norm: to the whole
# gradient's); absolute for the rest, in strides for segments, where float32 resolves 2.4e-4 at step
# 2304. Not named here: must be 0.
TOLERANCE = {
    "logits": 1e-4,
    "offsets": 1e-4,
    "classification loss": 5e-6,
    "regression loss": 5e-6,
    "total loss": 5e-6,
    "validation loss": 5e-6,
    "normaliser": 5e-6,
    "gradient norm": 5e-5,
    "gradient norms per tensor": 5e-5,
    "decoded segments": 5e-4,
    "scores": 1e-4,
    "learning rate": 1e-12,
    "trajectory of the loss": 1e-5,
    "trajectory of the gradient norm": 5e-5,
    "trajectory of the normaliser": 1e-5,
    "norms of the trained weights": 2e-5,
    "norms of the averaged weights": 2e-5,
    "resampled features": 1e-6,
    "voted segments": 1e-4,
    "kept segments": 1e-4,
    "fused scores": 1e-6,
    "AP": 1e-9,
    "recall": 1e-9,
    "mAP with ties": 5e-3,
}

NETWORKS = sorted(p.parent.name for p in oracle.ORACLES.glob("*/state_dict.json"))
RELEASES = sorted(p.parent.name for p in oracle.ORACLES.glob("release/*/state_dict.json"))
LOADERS = sorted(
    p.stem for p in (oracle.ORACLES / "data").glob("*_*.json") if p.stem != "random_trunc"
)
TRAJECTORIES = list(oracle.read("trajectory/trajectory.json"))


def beyond(found: Deviations) -> Deviations:
    """The deviations that are larger than allowed, or no numbers."""
    too_large = {}
    for name, value in found.items():
        if not value <= TOLERANCE.get(name, 0):  # NaN is not
            too_large[name] = value
    return too_large


# ------------------------------------------------------------------------------ network and losses


def network(config: str) -> Deviations:
    """One row's full-size network: its tensors, outputs, losses, gradients and targets."""
    params = oracle.without_randomness(oracle.experiment_of(config).model)
    entries = oracle.read(f"{config}/state_dict.json")["entries"]
    model = _model(entries, params, "opentad")
    expected, stored = oracle.read(f"{config}/oracle.json"), oracle.arrays(f"{config}/oracle.npz")
    return {
        "differing parameters": _differing_parameters(model, entries),
        **_losses(model, expected, expected, stored, stored),
        **_outputs(model, expected, expected, stored),
        **_targets(model, expected, stored),
        **_parameter_groups(model, expected["optim_groups"]),
    }


def release_network(config: str) -> Deviations:
    """The same for actionformer_release: its own layout of weights, its own arithmetic."""
    params = oracle.without_randomness(oracle.experiment_of(config).model)
    entries = oracle.read(f"release/{config}/state_dict.json")["entries"]
    model = _model(entries, params, "actionformer_release")
    inputs, stored = oracle.read(f"{config}/oracle.json"), oracle.arrays(f"{config}/oracle.npz")
    expected = oracle.read(f"release/{config}/oracle.json")
    outputs = oracle.arrays(f"release/{config}/oracle.npz")
    return {
        **_losses(model, inputs, expected, stored, outputs),
        **_outputs(model, inputs, expected, outputs),
    }


def _model(entries: Any, params: Any, layout: Any) -> ActionFormer:
    """The network with published weights, as a checkpoint of this layout holds them."""
    state = {}
    for name, tensor in oracle.published_weights(entries, params).items():
        state[f"module.{name}"] = tensor
    assert published_layout(state) == layout
    model = ActionFormer(params_for_layout(params, layout))
    model.load_state_dict(from_published(state))
    return model


def _differing_parameters(model: ActionFormer, entries: Any) -> int:
    """How many names or shapes are in one of the two only."""
    theirs = {(entry["name"], tuple(entry["shape"])) for entry in entries if entry["param"]}
    ours = set()
    for name, parameter in model.named_parameters():
        ours.add((oracle.opentad_name(name), tuple(parameter.shape)))
    return len(ours ^ theirs)


def _batch(model: ActionFormer, record: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    channels = model.params.in_channels
    return oracle.masked_input(record["input_seed_key"], channels, record["T"], record["lens"])


def _losses(model: ActionFormer, inputs: Any, expected: Any, truth: Any, stored: Any) -> Deviations:
    """Three training batches in a row on one running normaliser, then one in evaluation mode."""
    worst: Deviations = {}
    model.train()
    model.loss_normalizer.fill_(model.params.loss_normalizer_init)
    translate = oracle.opentad_name if expected is inputs else oracle.release_name
    columns = []
    for name, _ in model.named_parameters():
        columns.append(expected["grad_norm_names"].index(translate(name)))
    for case in ("train_A", "train_B", "train_C"):
        record = expected[case]
        model.zero_grad()
        losses = model.loss(*_batch(model, inputs[case]), *_ground_truth(truth, case))
        losses.total.backward()
        regression = record.get("reg_loss_weighted")
        if regression is None:
            regression = model.params.reg_loss_weight * record["reg_loss_unweighted"]
        total = record.get("cost", record.get("final_loss"))
        normalizer = record["loss_normalizer_after"]
        _keep(worst, "classification loss", _relative(losses.classification, record["cls_loss"]))
        _keep(worst, "regression loss", _relative(losses.regression, regression))
        _keep(worst, "total loss", _relative(losses.total, total))
        _keep(worst, "normaliser", _relative(model.loss_normalizer, normalizer))

        ours, whole = _gradient_norms(model), record["global_grad_norm"]
        _keep(worst, "gradient norm", _relative(math.sqrt((ours**2).sum()), whole))
        theirs = np.maximum(stored[f"{case}/grad_norms"][columns], 0)  # -1: no gradient
        _keep(worst, "gradient norms per tensor", _absolute(ours, theirs) / whole)
    if "val_loss_A" in expected:
        _keep(worst, "validation loss", _validation_loss(model, inputs, expected, truth))
    return worst


def _gradient_norms(model: ActionFormer) -> np.ndarray:
    norms = []
    for parameter in model.parameters():
        gradient = parameter.grad
        norms.append(0.0 if gradient is None else gradient.double().norm().item())
    return np.array(norms)


def _validation_loss(model: ActionFormer, inputs: Any, expected: Any, truth: Any) -> float:
    """The worst of the three losses of the first batch in evaluation mode."""
    with torch.no_grad():
        batch = _batch(model, inputs["train_A"])
        losses = model.eval().loss(*batch, *_ground_truth(truth, "train_A"))
    record = expected["val_loss_A"]
    return max(
        _relative(losses.classification, record["cls_loss"]),
        _relative(losses.regression, record["reg_loss"]),
        _relative(losses.total, record["cost"]),
    )


def _ground_truth(stored: Any, case: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Segments and labels of the two videos of a batch."""
    segments, labels = [], []
    for b in (0, 1):
        segments.append(torch.from_numpy(stored[f"{case}/gt_segments{b}"]))
        labels.append(torch.from_numpy(stored[f"{case}/gt_labels{b}"]))
    return segments, labels


def _outputs(model: ActionFormer, inputs: Any, expected: Any, stored: Any) -> Deviations:
    """Logits and offsets at valid steps, and the segments and scores decoded from them."""
    worst: Deviations = {}
    model.eval()
    for case in ("eval_norm", "eval_over"):
        features_BCT, mask_BT = _batch(model, inputs[case])
        size = expected[f"{case}/cls_l0"]["shape"][0]
        with torch.no_grad():
            levels = model(features_BCT[:size], mask_BT[:size])
        for i, level in enumerate(levels):
            mask_BT1 = level.mask_BT[..., None]
            for key, kind, value in (
                (f"{case}/cls_l{i}", "logits", level.logits_BTK * mask_BT1),
                (f"{case}/reg_l{i}", "offsets", level.offsets_BT2 * mask_BT1),
            ):
                found = _as_stored(value, expected[key])
                _keep(worst, kind, _absolute(found, stored[key].reshape(-1)))
        if f"{case}/proposals0" not in expected:
            continue
        for b in range(size):
            segments_P2, scores_PK = (part.numpy() for part in decode(levels, b))
            strides = []
            for level in levels:
                strides.append(np.full((int(level.mask_BT[b].sum()), 2), level.stride))
            for key, kind, value, unit in (
                (f"{case}/proposals{b}", "decoded segments", segments_P2, np.concatenate(strides)),
                (f"{case}/scores{b}", "scores", scores_PK, np.ones_like(scores_PK)),
            ):
                step = expected[key]["step"]
                value, unit = value.reshape(-1)[::step], unit.reshape(-1)[::step]
                theirs = stored[key].reshape(-1) / unit
                _keep(worst, kind, _absolute(value / unit, theirs))
    return worst


def _as_stored(value_BTC: torch.Tensor, facts: dict[str, Any]) -> np.ndarray:
    """Every so many values of (B, C, T), padded as the published implementation pads."""
    full = torch.zeros(facts["shape"])
    kept = min(full.shape[2], value_BTC.shape[1])
    full[:, :, :kept] = value_BTC.transpose(1, 2)[:, :, :kept]
    return full.numpy().reshape(-1)[:: facts["step"]]


def _targets(model: ActionFormer, expected: Any, stored: Any) -> Deviations:
    """Positives, their classes and offsets in the first training batch, at the published length."""
    params, record = model.params, expected["train_A"]
    length = model.published_length(record["T"])
    lengths = [length // stride for stride in params.strides]
    grid = points(lengths, params.strides, params.regression_range)
    index, classes, regression = [], [], []
    for b, truth in enumerate(zip(*_ground_truth(stored, "train_A"), strict=True)):
        target_PK, offset_P2 = assign_targets(
            grid,
            *truth,
            num_classes=params.num_classes,
            center_sample_radius=params.center_sample_radius,
            keep_only_shortest=params.keep_only_shortest_gt,
        )
        valid_P = grid.position_P < record["lens"][b]
        positive = torch.nonzero((target_PK.sum(1) > 0) & valid_P)[:, 0]
        index += [(b, point) for point in positive.tolist()]
        classes.append(target_PK[positive])
        regression.append(offset_P2[positive])
    nonzero = np.argwhere(torch.cat(classes).numpy())
    differing = _differs(np.array(index), stored["train_A/pos_index"])
    differing += _differs(nonzero, stored["train_A/pos_cls_nonzero"])
    differing += _differs(torch.cat(regression).numpy(), stored["train_A/pos_reg"])
    return {"differing targets": differing + (len(index) != record["num_pos"])}


def _parameter_groups(model: ActionFormer, expected: dict[str, Any]) -> Deviations:
    """Which tensors decay, and which don't."""
    names = {id(tensor): oracle.opentad_name(name) for name, tensor in model.named_parameters()}
    differing = 0
    for group, kind in zip(parameter_groups(model, 0.05), ("decay", "no_decay"), strict=True):
        ours = {names[id(tensor)] for tensor in group["params"]}
        differing += len(ours ^ set(expected[kind]))
    return {"differing parameter groups": differing}


# ---------------------------------------------------------------------------------------- training


def targets(case: dict[str, Any]) -> Deviations:
    """One case of label assignment: edges, limits, equal lengths, reversed and empty segments."""
    stored, i, strides = oracle.arrays("misc/label_assign.npz"), case["case"], [1, 2, 4, 8, 16, 32]
    lengths = [case["T"] // stride for stride in strides]
    classes_PK, offsets_P2 = assign_targets(
        points(lengths, strides, case["regression_range"]),
        torch.from_numpy(stored[f"{i}/segs"]),
        torch.from_numpy(stored[f"{i}/labels"]),
        num_classes=case["num_classes"],
        center_sample_radius=case["radius"] if case["center_sample"] == "radius" else None,
        keep_only_shortest=case["filter_similar_gt"],
    )
    positive = np.flatnonzero(classes_PK.sum(1).numpy())
    differing = _differs(np.argwhere(classes_PK.numpy()), stored[f"{i}/cls_nonzero"])
    differing += _differs(positive, stored[f"{i}/pos"])
    differing += _differs(offsets_P2.numpy()[positive], stored[f"{i}/pos_reg"])
    return {"differing targets": differing}


def learning_rates(key: str) -> Deviations:
    """The rate used at every iteration of one schedule."""
    match = re.fullmatch(r"warm(\d+)_max(\d+)_iters(\d+)_end(\d+)_lr(.+)", key)
    assert match is not None
    warmup, epochs, iterations = int(match[1]), int(match[2]), int(match[3])
    worst = Deviations()
    for i, theirs in enumerate(oracle.arrays("misc/lr.npz")[key].tolist()):
        ours = learning_rate(
            i, base=float(match[5]), warmup=warmup * iterations, total=epochs * iterations
        )
        _keep(worst, "learning rate", _relative(ours, theirs))
    return worst


def trajectory(tag: str) -> Deviations:
    """Thirty iterations of training: schedule, clipping, AdamW and EMA on a small network."""
    params = oracle.trajectory_params(tag)
    model = ActionFormer(params).train()
    entries = oracle.read(f"trajectory/{tag}_state.json")
    model.load_state_dict(from_published(oracle.published_weights(entries, params)))
    optimizer = adamw(model, TrainingParams(lr=1e-3, weight_decay=0.05))
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    truth = oracle.arrays("trajectory/trajectory_gt.npz")
    record = oracle.read("trajectory/trajectory.json")[tag]
    T, worst = params.max_seq_len, Deviations()
    for it in range(30):
        lengths = [T, int(oracle.drawn(f"traj/{it}/len").integers(T // 4, T))]
        features, mask = oracle.masked_input(f"traj/{it}/inputs", params.in_channels, T, lengths)
        segments = [torch.from_numpy(truth[f"T{T}/{it}/segs{b}"]) for b in (0, 1)]
        labels = [torch.from_numpy(truth[f"T{T}/{it}/labels{b}"]) for b in (0, 1)]
        batch = Batch(features, mask, segments, labels)
        rate = learning_rate(it, base=1e-3, warmup=15, total=105)
        losses, norm = training_step(model, ema, optimizer, batch, lr=rate, clip=1.0)
        for kind, key, ours in (
            ("learning rate", "lr", rate),
            ("trajectory of the loss", "cls", losses.classification),
            ("trajectory of the loss", "reg", losses.regression),
            ("trajectory of the loss", "cost", losses.total),
            ("trajectory of the gradient norm", "gn", norm),
            ("trajectory of the normaliser", "ln", model.loss_normalizer),
        ):
            _keep(worst, kind, _relative(ours, record["f32"][key][it]))
    _keep(worst, "norms of the trained weights", _norms(model, record["final_f32"]))
    _keep(worst, "norms of the averaged weights", _norms(ema.module, record["ema_f32"]))
    return worst


def _norms(network: torch.nn.Module, record: dict[str, Any]) -> float:
    """The worst deviation of the tensors' norms."""
    worst = 0.0
    for name, tensor in network.state_dict().items():
        # the published average truncates the normaliser to an integer
        if name == "loss_normalizer":
            continue
        theirs = record[oracle.opentad_name(name)][2]
        worst = max(worst, _relative(tensor.double().norm(), theirs))
    return worst


# -------------------------------------------------------------------------------------------- data

PROBE = torch.tensor([[0, 1], [10, 20.5], [-3, 5], [100.25, 190.75], [1000, 5000]])


def loader(config: str, split: str) -> Deviations:
    """Which videos and steps, masks, ground truth, random draws and the way back to seconds.

    The published loaders match subsets by substring; items that are there only because of it are
    left out.
    """
    case, stored = oracle.read(f"data/{config}.json"), oracle.arrays(f"data/{config}.npz")
    experiment = oracle.experiment_of(config)
    subset, items = case["splits"][split]["subset_name"], []
    for i, item in enumerate(case["splits"][split]["items"]):
        if case["anno"]["database"][item["video"]]["subset"] == subset:
            items.append((i, item))
    features = _drawn_features(config, case)
    ours = views(case["anno"], features, experiment, split)  # type: ignore[arg-type]
    if [view.video for view in ours] != [item["video"] for _, item in items]:
        return {"differing samples": float("inf")}
    differing = 0
    for view, (i, item) in zip(ours, items, strict=True):
        rng = random.Random(1000 + i)
        sample = view.load(rng)
        total = sample.features_CT.double().sum().item()
        equal = list(sample.features_CT.shape) == item["shape"]
        equal &= int(sample.mask_T.sum()) == item["valid"]
        equal &= rng.randint(0, 10**9) == item["rnd_state_probe"]
        equal &= not _differs(sample.features_CT[0].numpy(), stored[f"{split}/{i}/row0"])
        equal &= abs(total - item["sum"]) <= 1e-9 * abs(item["sum"])
        equal &= not _differs(view.to_seconds(PROBE).numpy(), stored[f"{split}/{i}/seconds"])
        if split == "train":
            equal &= not _differs(sample.segments_G2.numpy(), stored[f"{split}/{i}/gt_segments"])
            equal &= not _differs(sample.labels_G.numpy(), stored[f"{split}/{i}/gt_labels"])
        differing += not equal
    return {"differing samples": differing}


def _drawn_features(config: str, case: dict[str, Any]) -> dict[str, np.ndarray]:
    """The features of a loader's case; the first channel says which step it is."""
    # videos without features: the published rows have a list of them, or not
    gone = set()
    if oracle.row(config)["data"]["has_missing_files_list"]:
        gone = set(case["blocked"])
    features = {}
    for video, shape in case["feats"].items():
        rng = oracle.drawn(f"data/{config}/feat/{video}")
        array = rng.standard_normal(shape).astype(np.float32)
        array[:, 0] = np.arange(len(array))
        if video not in gone:
            features[video] = array
    return features


def truncation() -> Deviations:
    """Random truncation drawn from Python's generator: what is kept, and what the next draw is."""
    stored, differing = oracle.arrays("data/random_trunc.npz"), 0
    for i, case in enumerate(oracle.read("data/random_trunc.json")):
        if case["kwargs"]:  # options that no row uses
            continue
        rng = random.Random(case["seed"])
        features, segments, labels = random_truncation(
            np.arange(case["T"], dtype=np.float32)[:, None],
            stored[f"{i}/in_segments"],
            stored[f"{i}/in_labels"],
            length=case["trunc_len"],
            threshold=case["thresh"],
            crop_ratio=case["crop_ratio"],
            rng=rng,
        )
        equal = (features[0, 0], len(features)) == (case["start"], case["valid"])
        equal &= not _differs(segments, stored[f"{i}/gt_segments"])
        equal &= not _differs(labels, stored[f"{i}/gt_labels"])
        equal &= rng.randint(0, 10**9) == case["next_randint_0_1e9"]
        differing += not equal
    return {"differing crops": differing}


def resampling() -> Deviations:
    """Features resampled by RoIAlign in one dimension, and linearly."""
    stored, worst = oracle.arrays("data/resize.npz"), Deviations()
    for key in stored:
        match = re.fullmatch(r"(roi|lin)_T(\d+)_L(\d+)", key)
        if match is None:
            continue
        T, L, theirs = int(match[2]), int(match[3]), stored[key]
        features = oracle.drawn(f"resize/{T}").standard_normal((T, 5)).astype(np.float32)
        features[:, 0] = np.arange(T)
        if match[1] == "roi":
            found = resized(features, L, half_precision=True)
        else:
            found = linearly_resized(features, L)
        rows = found[:: -(-L // len(theirs))]
        scale = np.maximum(abs(theirs), 1)
        _keep(worst, "resampled features", _absolute(rows / scale, theirs / scale))
    return worst


def order_of_training() -> Deviations:
    """Order of the videos in an epoch."""
    stored, differing = oracle.arrays("data/sampler.npz"), 0
    for key in stored:
        match = re.fullmatch(r"train_N(\d+)_ws1_rank0_epoch(\d)", key)
        if match:
            generator = torch.Generator().manual_seed(int(match[2]))
            order = torch.randperm(int(match[1]), generator=generator)
            differing += _differs(order.numpy(), stored[key])
    return {"differing orders": differing}


# --------------------------------------------------------------------------------- post-processing


def nms_cases() -> Iterator[dict[str, Any]]:
    """All but those of a method that no row uses (3)."""
    for case in oracle.read("misc/nms.json"):
        kwargs = case.get("kwargs")
        if kwargs and kwargs.get("method") != 3:
            yield case


def nms(case: dict[str, Any]) -> Deviations:
    """One NMS case: scores exactly, segments as far as voting rounds."""
    stored, i, kwargs = oracle.arrays("misc/nms.npz"), case["case"], case["kwargs"]
    method = "hard"
    if kwargs["use_soft_nms"]:
        method = "linear" if kwargs.get("method") == 1 else "gaussian"
    ours = batched_nms(
        stored[f"{i}/in_segs"],
        stored[f"{i}/in_scores"],
        stored[f"{i}/in_labels"],
        sigma=kwargs["sigma"],
        min_score=kwargs["min_score"],
        max_segments=kwargs["max_seg_num"],
        per_class=kwargs["multiclass"],
        voting_threshold=kwargs["voting_thresh"],
        method=method,  # type: ignore[arg-type]
        iou_threshold=kwargs["iou_threshold"],
    )
    theirs = (stored[f"{i}/out_segs"], stored[f"{i}/out_scores"], stored[f"{i}/out_labels"])
    differing = _differs(ours[1], theirs[1])
    segments, _, labels = _in_one_order(*ours)
    their_segments, _, their_labels = _in_one_order(*theirs)
    differing = differing or _differs(labels, their_labels)
    kept = math.inf if differing else _absolute(segments, their_segments)
    return {"differing NMS cases": differing, "kept segments": kept}


def _in_one_order(segments: Any, scores: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Equals in any order: put into one."""
    order = np.lexsort((segments[:, 1], segments[:, 0], labels, -scores))
    return segments[order], scores[order], labels[order]


def voting(j: int) -> Deviations:
    """One case of segment voting."""
    stored, case = oracle.arrays("misc/nms.npz"), oracle.read("misc/nms.json")[-3 + j]
    segments, scores = stored[f"voting{j}/in_segs"], stored[f"voting{j}/in_scores"]
    voted = vote(segments[::3], segments, scores, case["thr"])
    return {"voted segments": _absolute(voted, stored[f"voting{j}/out"])}


CLASSIFIERS = {
    "CUHKANETClassifier": "cuhk",
    "TCANetHACSClassifier": "tcanet",
    "StandardClassifier": "standard",
}


def fusion(i: int) -> Deviations:
    """One external classifier; the kinds that no row uses are left out."""
    case, stored = oracle.read("misc/classifiers.json")[i], oracle.arrays("misc/classifiers.npz")
    path, kind = oracle.ORACLES / "misc" / case["file"], CLASSIFIERS[case["type"]]
    classifier = load_classifier(path, kind, case["topk"])  # type: ignore[arg-type]
    segments, scores, labels = classifier.fuse(
        case["video"], stored[f"{i}/in_segs"], stored[f"{i}/in_scores"]
    )
    worst: Deviations = {"differing fusions": _differs(segments, stored[f"{i}/out_segs"])}
    worst["differing fusions"] += labels != stored[f"{i}/out_labels"].tolist()
    for ours, theirs in zip(scores, stored[f"{i}/out_scores"], strict=True):
        _keep(worst, "fused scores", _relative(ours, theirs))
    return worst


def fusions() -> list[int]:
    """The cases of the classifiers that rows use."""
    chosen = []
    for i, case in enumerate(oracle.read("misc/classifiers.json")):
        if case["type"] in CLASSIFIERS and not case["kwargs"]:
            chosen.append(i)
    return chosen


def post_processing(config: str) -> Deviations:
    """From made-up candidates through NMS, seconds, classifier and rounding, to the last digit."""
    experiment, expected = oracle.experiment_of(config), oracle.read(f"{config}/oracle.json")
    stored = oracle.arrays(f"{config}/oracle.npz")
    case, params, model = expected["post_synth"], experiment.inference, experiment.model
    collected: dict[str, list[Any]] = {}
    for i, ((video, _), meta) in enumerate(zip(case["windows"], case["metas"], strict=True)):
        rng, count, span = oracle.drawn(f"{config}/post_synth/{i}"), case["N"], model.max_seq_len
        centre = rng.uniform(0, span, count)
        half = np.exp(rng.uniform(np.log(2), np.log(0.6 * span), count)) / 2
        scores = (rng.uniform(0, 1, (count, model.num_classes)) ** 6).astype(np.float32)
        segments = np.stack([centre - half, centre + half], 1).astype(np.float32)
        best = candidates(torch.from_numpy(segments), torch.from_numpy(scores), params)
        found = in_seconds(_view(video, meta), best, params)
        collected.setdefault(video, []).append(found)
    classes = [f"class_{k:03d}" for k in range(model.num_classes)]
    classifier, facts = None, experiment.dataset.classifier
    if params.use_classifier and facts is not None:
        path = oracle.ORACLES / config / "external_cls.json"
        classifier = load_classifier(path, facts.kind, facts.top_k)
    differing = 0
    for video, parts in collected.items():
        ours: Counter[Any] = Counter()
        for found in of_video(
            video, parts, params, classes, classifier, sliding=expected["sliding"]
        ):
            start, end = found["segment"]
            ours[found["label"], start + 0.0, end, found["score"]] += 1
        theirs = _stored_detections(stored, f"post_synth/dets/{video}")
        differing += sum(((ours - theirs) + (theirs - ours)).values())
    return {"differing detections": differing}


def _view(video: str, meta: dict[str, Any]) -> View:
    """A view whose features nobody reads: it only tells seconds."""
    start, window = meta.get("window_start_frame"), None
    if start is not None:
        window = Window(int(start / meta["snippet_stride"]), 0, 0)
    return View(
        video,
        meta["duration"],
        {video: np.zeros((1, 1))},
        slice(None),
        np.zeros((0, 2), np.float32),
        np.zeros(0, np.int64),
        meta["fps"],
        meta.get("snippet_stride", 0.0),
        meta.get("offset_frames", 0.0),
        window=window,
        resize_length=meta.get("resize_length"),
    )


def _stored_detections(stored: Any, key: str) -> Counter[Any]:
    """Published detections of a video, in any order; -0.0 is 0.0."""
    found: Counter[Any] = Counter()
    labels, scores = stored[f"{key}/labels"], stored[f"{key}/scores"]
    for (start, end), label, score in zip(stored[f"{key}/segments"], labels, scores, strict=True):
        times = round(float(start), 2) + 0.0, round(float(end), 2)
        found[str(label), *times, round(float(score), 4)] += 1
    return found


# -------------------------------------------------------------------------------------- evaluation

EVALUATIONS = [name for name in oracle.read("eval/results.json") if name != "pieces"]


def evaluation(name: str) -> Deviations:
    """AP per class and threshold, and recall@kx, of one pair of files."""
    case = oracle.read("eval/results.json")[name]
    truth, detections = (oracle.ORACLES / f"eval/{name}_{kind}.json" for kind in ("gt", "pred"))
    options = {
        "subset": "validation",
        "tiou_thresholds": case["tiou"],
        "blocked": case["blocked"] or (),
    }
    result = mean_average_precision(truth, detections, **options)
    of_average = _absolute(result.average, case["metrics"]["average_mAP"])
    if name == "ties":  # the published order among equal scores is arbitrary
        return {"mAP with ties": of_average}
    order = [result.classes.index(label) for label in case["class_order"]]
    found = {"AP": max(_absolute(result.ap_KU[order].T, case["ap"]), of_average)}
    if case["top_k"]:
        recall = recall_at_kx(truth, detections, top_k=case["top_k"], **options)
        found["recall"] = _absolute(recall.recall_UX, np.mean(case["recall"], -1))
    return found


# -------------------------------------------------------------------------------------- deviations


def _keep(worst: Deviations, name: str, value: float) -> None:
    worst[name] = max(worst.get(name, 0.0), value)


def _relative(ours: Any, theirs: float) -> float:
    """0 / 0 is 0: a loss without positives."""
    ours = float(ours.detach() if isinstance(ours, torch.Tensor) else ours)
    return _far(abs(ours - theirs) / abs(theirs) if theirs else abs(ours))


def _absolute(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return _far(abs(ours - theirs).max(initial=0)) if ours.shape == theirs.shape else math.inf


def _far(value: float) -> float:
    """NaN is infinitely far away: `max` would lose it."""
    return math.inf if math.isnan(value) else float(value)


def _differs(ours: Any, theirs: Any) -> int:
    return int(not np.array_equal(np.asarray(ours), np.asarray(theirs)))


# ---------------------------------------------------------------------------------- docs/parity.md

HEADER = """\
# Parity with the published implementations

Written by `make parity`; the same measurements are part of `make test`, which fails where one is
beyond its tolerance. Each figure is the worst deviation between this project and the stored
outputs of the published code (`tests/oracles`: OpenTAD 3dd7b032, actionformer_release 61ea7eb9),
on the same weights and inputs. Losses, gradient norms, rates and trajectories: relative (a
tensor's gradient norm: relative to the whole gradient's). Everything else: absolute, decoded
segments in strides. *Differing* counts what has to be equal and isn't. Where ours deviates on
purpose stands in [differences.md](differences.md).
"""
NO_ORACLE = (
    "A dash: the published outputs of this row are not at hand. Its hyperparameters equal the "
    "published ones, and every part that it is made of is measured on other rows, except what "
    "`tests/test_data.py` checks by hand: HACS's filters and its ground truth on fractions of a "
    "frame, and the overlapping windows of Charades-VideoMAE."
)


def worst_of(found: Iterable[Deviations]) -> Deviations:
    """The worst of several cases, per quantity."""
    worst: Deviations = {}
    for deviations in found:
        for name, value in deviations.items():
            _keep(worst, name, value)
    return worst


def per_row() -> dict[str, Deviations]:
    """Row -> deviations of everything that has an oracle for this row."""
    config_of = {oracle.ROW_OF.get(config, config): config for config in NETWORKS}
    found: dict[str, Deviations] = {row: {} for row in published_rows()}
    for row, config in progress(list(config_of.items()), "rows", unit="row"):
        found[row] = network(config) | post_processing(config)
        for split in ("train", "test"):
            found[row][f"differing {split} samples"] = loader(config, split)["differing samples"]
    return found


def of_parts() -> dict[str, Deviations]:
    """Part -> deviations, for what no row owns."""
    cases = oracle.read("misc/label_assign.json")
    rates = list(oracle.arrays("misc/lr.npz"))
    found = {
        f"targets, {len(cases)} cases": worst_of(map(targets, cases)),
        f"learning rate, {len(rates)} schedules": worst_of(map(learning_rates, rates)),
    }
    for tag in TRAJECTORIES:
        found[f"30 iterations, {tag}"] = trajectory(tag)
    found |= {
        "random truncation": truncation(),
        "resampling": resampling(),
        "order of training videos": order_of_training(),
        f"NMS, {len(list(nms_cases()))} cases": worst_of(map(nms, nms_cases())),
        "voting, 3 cases": worst_of(map(voting, range(3))),
        f"external classifiers, {len(fusions())} cases": worst_of(map(fusion, fusions())),
    }
    for name in EVALUATIONS:
        found[f"evaluation, case {name}"] = evaluation(name)
    return found


def _matrix(rows: dict[str, Deviations]) -> list[str]:
    """One line per row, one column per quantity, and a line of tolerances."""
    columns = list(dict.fromkeys(name for deviations in rows.values() for name in deviations))
    lines = [f"| row | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for row, deviations in rows.items():
        cells = [_figure(deviations.get(name)) for name in columns]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    cells = [_figure(TOLERANCE.get(name, 0)) for name in columns]
    lines.append(f"| *tolerance* | {' | '.join(cells)} |")
    return lines


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return f"{value:.0e}" if value < 1 else f"{value:g}"


def report() -> str:
    """The whole page."""
    rows, parts = per_row(), of_parts()
    releases = {}
    for config in RELEASES:
        releases[oracle.ROW_OF.get(config, config)] = release_network(config)
    versions = f"torch {torch.__version__.split('+')[0]}, numpy {np.__version__}"
    python = f"Python {platform.python_version()}, {platform.machine()}"
    lines = [
        HEADER,
        f"Measured with {versions}, {python}, {torch.get_num_threads()} threads, float32.",
        "",
        "## The 14 rows, against OpenTAD",
        "",
        NO_ORACLE,
        "",
        *_matrix(rows),
        "",
        "## actionformer_release: its layout of weights, its arithmetic",
        "",
        *_matrix(releases),
        "",
        "## What rows share",
        "",
        "| part | quantity | worst | tolerance |",
        "|---|---|---:|---:|",
    ]
    for part, deviations in parts.items():
        for name, value in deviations.items():
            allowed = _figure(TOLERANCE.get(name, 0))
            lines.append(f"| {part} | {name} | {_figure(value)} | {allowed} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="write docs/parity.md")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/parity.md")
    out = parser.parse_args().out
    write_text(out, report())
    print(out)


if __name__ == "__main__":
    main()
