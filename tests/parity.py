"""How far ours is from the published implementations: what the parity tests judge and
docs/parity.md shows.

python tests/parity.py [--out docs/parity.md]

Each function runs one part of ours on the oracles' inputs and returns its worst deviation per
quantity; `TOLERANCE` says how large each may be. Quantities whose name begins with "differing"
count what has to be equal and isn't.
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
from actionformer.detection import batched_nms
from actionformer.detection.classifiers import load_classifier
from actionformer.detection.decode import decode
from actionformer.detection.nms import vote
from actionformer.detection.predict import of_video, of_view
from actionformer.evaluation import mean_average_precision, recall_at_kx
from actionformer.files import write_text
from actionformer.model.state_dict_adapter import (
    from_published,
    params_for_layout,
    published_layout,
)
from actionformer.model.targets import assign_targets, points
from actionformer.params.experiment import TrainingParams
from actionformer.params.files import published_rows
from actionformer.progress import progress
from actionformer.training import learning_rate, parameter_groups
from actionformer.training.loop import training_step
from actionformer.training.optimizer import adamw

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
    return {name: value for name, value in found.items() if not value <= TOLERANCE.get(name, 0)}


# ------------------------------------------------------------------------------ network and losses


def network(config: str) -> Deviations:
    """Names and shapes, outputs, losses, normaliser, gradients and targets of one row's full-size
    network.
    """
    params = oracle.without_randomness(oracle.experiment_of(config).model)
    entries = oracle.read(f"{config}/state_dict.json")["entries"]
    state = {
        f"module.{name}": tensor
        for name, tensor in oracle.published_weights(entries, params).items()
    }
    assert published_layout(state) == "opentad"
    model = ActionFormer(params_for_layout(params, "opentad"))
    model.load_state_dict(from_published(state))
    expected, stored = oracle.read(f"{config}/oracle.json"), oracle.arrays(f"{config}/oracle.npz")
    parameters = {e["name"]: e["shape"] for e in entries if e["param"]}
    ours = {oracle.opentad_name(name): list(p.shape) for name, p in model.named_parameters()}
    return {
        "differing parameters": len(
            set(map(str, ours.items())) ^ set(map(str, parameters.items()))
        ),
        **_losses(model, expected, expected, stored, stored),
        **_outputs(model, expected, expected, stored),
        **_targets(model, expected, stored),
        **_parameter_groups(model, expected["optim_groups"]),
    }


def release_network(config: str) -> Deviations:
    """The same for actionformer_release: its own layout of weights, its own arithmetic."""
    entries = oracle.read(f"release/{config}/state_dict.json")["entries"]
    params = oracle.without_randomness(oracle.experiment_of(config).model)
    state = {
        f"module.{name}": tensor
        for name, tensor in oracle.published_weights(entries, params).items()
    }
    layout = published_layout(state)
    assert layout == "actionformer_release"
    model = ActionFormer(params_for_layout(params, layout))
    model.load_state_dict(from_published(state))
    inputs, stored = oracle.read(f"{config}/oracle.json"), oracle.arrays(f"{config}/oracle.npz")
    expected, outputs = (
        oracle.read(f"release/{config}/oracle.json"),
        oracle.arrays(f"release/{config}/oracle.npz"),
    )
    return {
        **_losses(model, inputs, expected, stored, outputs),
        **_outputs(model, inputs, expected, outputs),
    }


def _batch(model: ActionFormer, record: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return oracle.masked_input(
        record["input_seed_key"], model.params.in_channels, record["T"], record["lens"]
    )


def _losses(model: ActionFormer, inputs: Any, expected: Any, truth: Any, stored: Any) -> Deviations:
    """Three training batches in a row on one running normaliser, then the first one again in
    evaluation mode.
    """
    worst: Deviations = {}
    model.train()
    model.loss_normalizer.fill_(model.params.loss_normalizer_init)
    translate = oracle.opentad_name if expected is inputs else oracle.release_name
    names = [translate(name) for name, _ in model.named_parameters()]
    columns = [expected["grad_norm_names"].index(name) for name in names]
    for case in ("train_A", "train_B", "train_C"):
        record = expected[case]
        segments, labels = _ground_truth(truth, case)
        model.zero_grad()
        losses = model.loss(*_batch(model, inputs[case]), segments, labels)
        losses.total.backward()
        regression = record.get("reg_loss_weighted")
        if regression is None:
            regression = model.params.reg_loss_weight * record["reg_loss_unweighted"]
        _keep(worst, "classification loss", _relative(losses.classification, record["cls_loss"]))
        _keep(worst, "regression loss", _relative(losses.regression, regression))
        _keep(
            worst,
            "total loss",
            _relative(losses.total, record.get("cost", record.get("final_loss"))),
        )
        _keep(
            worst, "normaliser", _relative(model.loss_normalizer, record["loss_normalizer_after"])
        )
        norms = np.array(
            [0.0 if p.grad is None else p.grad.double().norm().item() for p in model.parameters()]
        )
        _keep(
            worst,
            "gradient norm",
            _relative(math.sqrt((norms**2).sum()), record["global_grad_norm"]),
        )
        theirs = np.maximum(stored[f"{case}/grad_norms"][columns], 0)  # -1: no gradient
        _keep(
            worst,
            "gradient norms per tensor",
            float(abs(norms - theirs).max() / record["global_grad_norm"]),
        )
    if "val_loss_A" in expected:
        with torch.no_grad():
            losses = model.eval().loss(
                *_batch(model, inputs["train_A"]), *_ground_truth(truth, "train_A")
            )
        record = expected["val_loss_A"]
        for name, loss in (
            ("cls_loss", losses.classification),
            ("reg_loss", losses.regression),
            ("cost", losses.total),
        ):
            _keep(worst, "validation loss", _relative(loss, record[name]))
    return worst


def _ground_truth(stored: Any, case: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return tuple(  # type: ignore[return-value]
        [torch.from_numpy(stored[f"{case}/gt_{kind}{b}"]) for b in (0, 1)]
        for kind in ("segments", "labels")
    )


def _outputs(model: ActionFormer, inputs: Any, expected: Any, stored: Any) -> Deviations:
    """Logits and offsets at valid steps, and the segments and scores decoded from them."""
    worst: Deviations = {}
    model.eval()
    for case in ("eval_norm", "eval_over"):
        record = inputs[case]
        features, mask = _batch(model, record)
        size = expected[f"{case}/cls_l0"]["shape"][0]
        with torch.no_grad():
            levels = model(features[:size], mask[:size])
        for i, level in enumerate(levels):
            for key, kind, value in (
                ("cls", "logits", level.logits_BTK),
                ("reg", "offsets", level.offsets_BT2),
            ):
                facts = expected[f"{case}/{key}_l{i}"]
                full = torch.zeros(facts["shape"])
                kept = min(full.shape[2], value.shape[1])
                full[:, :, :kept] = (value * level.mask_BT[..., None]).transpose(1, 2)[:, :, :kept]
                found = full.numpy().reshape(-1)[:: facts["step"]]
                _keep(worst, kind, _absolute(found, stored[f"{case}/{key}_l{i}"].reshape(-1)))
        for b in range(size) if f"{case}/proposals0" in expected else ():
            segments_P2, scores_PK = (part.numpy() for part in decode(levels, b))
            stride_P2 = np.concatenate(
                [np.full((int(lv.mask_BT[b].sum()), 2), lv.stride) for lv in levels]
            )
            for key, kind, value, unit in (
                ("proposals", "decoded segments", segments_P2, stride_P2),
                ("scores", "scores", scores_PK, np.ones_like(scores_PK)),
            ):
                step = expected[f"{case}/{key}{b}"]["step"]
                value, unit = value.reshape(-1)[::step], unit.reshape(-1)[::step]
                _keep(
                    worst,
                    kind,
                    _absolute(value / unit, stored[f"{case}/{key}{b}"].reshape(-1) / unit),
                )
    return worst


def _targets(model: ActionFormer, expected: Any, stored: Any) -> Deviations:
    """Positives, their classes and their regression targets in the first training batch, at the
    published length.
    """
    params, record = model.params, expected["train_A"]
    length = model.published_length(record["T"])
    lengths = [length // stride for stride in params.strides]
    grid = points(lengths, params.strides, params.regression_range)
    index, classes, regression = [], [], []
    for b, (segments_G2, labels_G) in enumerate(
        zip(*_ground_truth(stored, "train_A"), strict=True)
    ):
        target_PK, offset_P2 = assign_targets(
            grid, segments_G2, labels_G, num_classes=params.num_classes,
            center_sample_radius=params.center_sample_radius, keep_only_shortest=params.keep_only_shortest_gt,
        )  # fmt: skip
        valid_P = torch.cat(
            [
                torch.arange(n) * s < record["lens"][b]
                for n, s in zip(lengths, params.strides, strict=True)
            ]
        )
        positive = torch.nonzero((target_PK.sum(1) > 0) & valid_P)[:, 0]
        index += [(b, int(p)) for p in positive]
        classes.append(target_PK[positive])
        regression.append(offset_P2[positive])
    differing = _differs(np.array(index), stored["train_A/pos_index"])
    differing += _differs(
        np.argwhere(torch.cat(classes).numpy()), stored["train_A/pos_cls_nonzero"]
    )
    differing += _differs(torch.cat(regression).numpy(), stored["train_A/pos_reg"])
    return {"differing targets": differing + (len(index) != record["num_pos"])}


def _parameter_groups(model: ActionFormer, expected: dict[str, Any]) -> Deviations:
    names = {id(p): oracle.opentad_name(name) for name, p in model.named_parameters()}
    decay, no_decay = (
        {names[id(p)] for p in group["params"]} for group in parameter_groups(model, 0.05)
    )
    return {
        "differing parameter groups": len(decay ^ set(expected["decay"]))
        + len(no_decay ^ set(expected["no_decay"]))
    }


# ---------------------------------------------------------------------------------------- training


def targets(case: dict[str, Any]) -> Deviations:
    """One of the label assignment cases: edges, limits, equal lengths, reversed and empty segments."""
    stored, i, strides = oracle.arrays("misc/label_assign.npz"), case["case"], [1, 2, 4, 8, 16, 32]
    classes_PK, offsets_P2 = assign_targets(
        points([case["T"] // stride for stride in strides], strides, case["regression_range"]),
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
    expected = oracle.arrays("misc/lr.npz")[key]
    match = re.fullmatch(r"warm(\d+)_max(\d+)_iters(\d+)_end(\d+)_lr(.+)", key)
    assert match is not None
    warmup, epochs, iterations, _ = (int(group) for group in match.groups()[:4])
    found = [
        learning_rate(
            i, base=float(match[5]), warmup=warmup * iterations, total=epochs * iterations
        )
        for i in range(len(expected))
    ]
    return {
        "learning rate": max(_relative(a, b) for a, b in zip(found, expected.tolist(), strict=True))
    }


def trajectory(tag: str) -> Deviations:
    """Thirty iterations of training: schedule, clipping, AdamW and EMA on a small network."""
    params = oracle.trajectory_params(tag)
    model = ActionFormer(params).train()
    entries = oracle.read(f"trajectory/{tag}_state.json")
    model.load_state_dict(from_published(oracle.published_weights(entries, params)))
    optimizer = adamw(model, TrainingParams(lr=1e-3, weight_decay=0.05))
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    truth, record = (
        oracle.arrays("trajectory/trajectory_gt.npz"),
        oracle.read("trajectory/trajectory.json")[tag],
    )
    T, worst = params.max_seq_len, Deviations()
    for it in range(30):
        lengths = [T, int(oracle.drawn(f"traj/{it}/len").integers(T // 4, T))]
        features, mask = oracle.masked_input(f"traj/{it}/inputs", params.in_channels, T, lengths)
        segments = [torch.from_numpy(truth[f"T{T}/{it}/segs{b}"]) for b in (0, 1)]
        labels = [torch.from_numpy(truth[f"T{T}/{it}/labels{b}"]) for b in (0, 1)]
        rate = learning_rate(it, base=1e-3, warmup=15, total=105)
        losses, norm = training_step(
            model, ema, optimizer, Batch(features, mask, segments, labels), lr=rate, clip=1.0
        )
        expected = {key: values[it] for key, values in record["f32"].items()}
        _keep(worst, "learning rate", _relative(rate, expected["lr"]))
        for key, loss in (
            ("cls", losses.classification),
            ("reg", losses.regression),
            ("cost", losses.total),
        ):
            _keep(worst, "trajectory of the loss", _relative(loss, expected[key]))
        _keep(worst, "trajectory of the gradient norm", _relative(norm, expected["gn"]))
        _keep(
            worst, "trajectory of the normaliser", _relative(model.loss_normalizer, expected["ln"])
        )
    for network, key, kind in (
        (model, "final_f32", "trained"),
        (ema.module, "ema_f32", "averaged"),
    ):
        for name, tensor in network.state_dict().items():
            if (
                name != "loss_normalizer"
            ):  # the published average truncates it to an integer (QUIRKS 26)
                l2 = record[key][oracle.opentad_name(name)][2]
                _keep(worst, f"norms of the {kind} weights", _relative(tensor.double().norm(), l2))
    return worst


# -------------------------------------------------------------------------------------------- data

PROBE = torch.tensor([[0, 1], [10, 20.5], [-3, 5], [100.25, 190.75], [1000, 5000]])


def loader(config: str, split: str) -> Deviations:
    """Which videos, which steps, masks, ground truth, random draws and the way back to seconds.

    The published loaders match subsets by substring; items that are there only because of it are
    left out.
    """
    case, stored = oracle.read(f"data/{config}.json"), oracle.arrays(f"data/{config}.npz")
    experiment = oracle.experiment_of(config)
    # videos without features: the published rows have a list of them, or not
    gone = set(case["blocked"]) if oracle.row(config)["data"]["has_missing_files_list"] else set()
    features = {}
    for video, shape in case["feats"].items():
        array = (
            oracle.drawn(f"data/{config}/feat/{video}").standard_normal(shape).astype(np.float32)
        )
        array[:, 0] = np.arange(len(array))
        if video not in gone:
            features[video] = array
    subset = case["splits"][split]["subset_name"]
    items = [
        (i, item)
        for i, item in enumerate(case["splits"][split]["items"])
        if case["anno"]["database"][item["video"]]["subset"] == subset
    ]
    ours = views(case["anno"], features, experiment, split)  # type: ignore[arg-type]
    if [view.video for view in ours] != [item["video"] for _, item in items]:
        return {"differing samples": float("inf")}
    differing = 0
    for view, (i, item) in zip(ours, items, strict=True):
        rng = random.Random(1000 + i)
        sample = view.load(rng)
        equal = list(sample.features_CT.shape) == item["shape"]
        equal &= int(sample.mask_T.sum()) == item["valid"]
        equal &= rng.randint(0, 10**9) == item["rnd_state_probe"]
        equal &= not _differs(sample.features_CT[0].numpy(), stored[f"{split}/{i}/row0"])
        equal &= abs(sample.features_CT.double().sum().item() - item["sum"]) <= 1e-9 * abs(
            item["sum"]
        )
        equal &= not _differs(view.to_seconds(PROBE).numpy(), stored[f"{split}/{i}/seconds"])
        if split == "train":
            equal &= not _differs(sample.segments_G2.numpy(), stored[f"{split}/{i}/gt_segments"])
            equal &= not _differs(sample.labels_G.numpy(), stored[f"{split}/{i}/gt_labels"])
        differing += not equal
    return {"differing samples": differing}


def truncation() -> Deviations:
    """Random truncation drawn from Python's generator: what is kept, and what the next draw is."""
    stored, differing = oracle.arrays("data/random_trunc.npz"), 0
    for i, case in enumerate(oracle.read("data/random_trunc.json")):
        if case["kwargs"]:  # options that no row uses
            continue
        rng = random.Random(case["seed"])
        features, segments, labels = random_truncation(
            np.arange(case["T"], dtype=np.float32)[:, None], stored[f"{i}/in_segments"], stored[f"{i}/in_labels"],
            length=case["trunc_len"], threshold=case["thresh"], crop_ratio=case["crop_ratio"], rng=rng,
        )  # fmt: skip
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
        if match:
            T, L, theirs = int(match[2]), int(match[3]), stored[key]
            features = oracle.drawn(f"resize/{T}").standard_normal((T, 5)).astype(np.float32)
            features[:, 0] = np.arange(T)
            found = (
                resized(features, L, half_precision=True)
                if match[1] == "roi"
                else linearly_resized(features, L)
            )
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
            order = torch.randperm(
                int(match[1]), generator=torch.Generator().manual_seed(int(match[2]))
            )
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
    segments, scores, labels = batched_nms(
        *(stored[f"{i}/in_{name}"] for name in ("segs", "scores", "labels")),
        sigma=kwargs["sigma"],
        min_score=kwargs["min_score"],
        max_segments=kwargs["max_seg_num"],
        per_class=kwargs["multiclass"],
        voting_threshold=kwargs["voting_thresh"],
        method="hard"
        if not kwargs["use_soft_nms"]
        else "linear"
        if kwargs.get("method") == 1
        else "gaussian",
        iou_threshold=kwargs["iou_threshold"],
    )
    theirs, their_scores, their_labels = (
        stored[f"{i}/out_{name}"] for name in ("segs", "scores", "labels")
    )
    # equals in any order
    ours_by, theirs_by = (
        np.lexsort((s[:, 1], s[:, 0], k, -c))
        for s, c, k in ((segments, scores, labels), (theirs, their_scores, their_labels))
    )
    differing = _differs(scores, their_scores) or _differs(labels[ours_by], their_labels[theirs_by])
    return {
        "differing NMS cases": differing,
        "kept segments": math.inf if differing else _absolute(segments[ours_by], theirs[theirs_by]),
    }


def voting(j: int) -> Deviations:
    stored, case = oracle.arrays("misc/nms.npz"), oracle.read("misc/nms.json")[-3 + j]
    segments, scores = stored[f"voting{j}/in_segs"], stored[f"voting{j}/in_scores"]
    return {
        "voted segments": _absolute(
            vote(segments[::3], segments, scores, case["thr"]), stored[f"voting{j}/out"]
        )
    }


CLASSIFIERS = {
    "CUHKANETClassifier": "cuhk",
    "TCANetHACSClassifier": "tcanet",
    "StandardClassifier": "standard",
}


def fusion(i: int) -> Deviations:
    """One external classifier; the kinds that no row uses are left out."""
    case, stored = oracle.read("misc/classifiers.json")[i], oracle.arrays("misc/classifiers.npz")
    classifier = load_classifier(
        oracle.ORACLES / "misc" / case["file"], CLASSIFIERS[case["type"]], case["topk"]
    )  # type: ignore[arg-type]
    segments, scores, labels = classifier.fuse(
        case["video"], stored[f"{i}/in_segs"], stored[f"{i}/in_scores"]
    )
    differing = _differs(segments, stored[f"{i}/out_segs"]) + (
        labels != stored[f"{i}/out_labels"].tolist()
    )
    return {
        "differing fusions": differing,
        "fused scores": max(
            _relative(a, b) for a, b in zip(scores, stored[f"{i}/out_scores"], strict=True)
        ),
    }


def fusions() -> list[int]:
    return [
        i
        for i, case in enumerate(oracle.read("misc/classifiers.json"))
        if case["type"] in CLASSIFIERS and not case["kwargs"]
    ]


def post_processing(config: str) -> Deviations:
    """From made-up candidates through NMS, seconds, classifier and rounding: detections to the last
    digit.
    """
    experiment, expected = oracle.experiment_of(config), oracle.read(f"{config}/oracle.json")
    stored, case, params = (
        oracle.arrays(f"{config}/oracle.npz"),
        expected["post_synth"],
        experiment.inference,
    )
    collected: dict[str, list[Any]] = {}
    for i, ((video, _), meta) in enumerate(zip(case["windows"], case["metas"], strict=True)):
        rng, count, span = (
            oracle.drawn(f"{config}/post_synth/{i}"),
            case["N"],
            experiment.model.max_seq_len,
        )
        centre = rng.uniform(0, span, count)
        length = np.exp(rng.uniform(np.log(2), np.log(0.6 * span), count))
        scores = (rng.uniform(0, 1, (count, experiment.model.num_classes)) ** 6).astype(np.float32)
        segments = np.stack([centre - length / 2, centre + length / 2], 1).astype(np.float32)
        start = meta.get("window_start_frame")
        view = View(
            video, meta["duration"], {video: np.zeros((1, 1))}, slice(None), np.zeros((0, 2), np.float32),
            np.zeros(0, np.int64), meta["fps"], meta.get("snippet_stride", 0.0), meta.get("offset_frames", 0.0),
            window=None if start is None else Window(int(start / meta["snippet_stride"]), 0, 0),
            resize_length=meta.get("resize_length"),
        )  # fmt: skip
        found = of_view(view, torch.from_numpy(segments), torch.from_numpy(scores), params)
        collected.setdefault(video, []).append(found)
    facts, differing = experiment.dataset.classifier, 0
    classes = [f"class_{k:03d}" for k in range(experiment.model.num_classes)]
    classifier = None
    if params.use_classifier and facts is not None:
        classifier = load_classifier(
            oracle.ORACLES / config / "external_cls.json", facts.kind, facts.top_k
        )
    for video, parts in collected.items():
        found = of_video(video, parts, params, classes, classifier, sliding=expected["sliding"])
        ours = Counter(
            (d["label"], d["segment"][0] + 0.0, d["segment"][1], d["score"]) for d in found
        )
        theirs = Counter(
            (str(label), round(float(s), 2) + 0.0, round(float(e), 2), round(float(score), 4))
            for (s, e), score, label in zip(
                *(
                    stored[f"post_synth/dets/{video}/{name}"]
                    for name in ("segments", "scores", "labels")
                ),
                strict=True,
            )
        )
        differing += sum(((ours - theirs) + (theirs - ours)).values())
    return {"differing detections": differing}


# -------------------------------------------------------------------------------------- evaluation

EVALUATIONS = [name for name in oracle.read("eval/results.json") if name != "pieces"]


def evaluation(name: str) -> Deviations:
    """AP per class and threshold, and recall@kx, of one pair of files."""
    case = oracle.read("eval/results.json")[name]
    paths = [oracle.ORACLES / f"eval/{name}_{kind}.json" for kind in ("gt", "pred")]
    options = {
        "subset": "validation",
        "tiou_thresholds": case["tiou"],
        "blocked": case["blocked"] or (),
    }
    result = mean_average_precision(*paths, **options)
    if name == "ties":  # the published order among equal scores is arbitrary
        return {"mAP with ties": abs(result.average - case["metrics"]["average_mAP"])}
    order = [result.classes.index(label) for label in case["class_order"]]
    found = {
        "AP": max(
            _absolute(result.ap_KU[order].T, case["ap"]),
            abs(result.average - case["metrics"]["average_mAP"]),
        )
    }
    if case["top_k"]:
        recall = recall_at_kx(*paths, top_k=case["top_k"], **options)
        found["recall"] = _absolute(recall.recall_UX, np.mean(case["recall"], -1))
    return found


# -------------------------------------------------------------------------------------- deviations


def _keep(worst: Deviations, name: str, value: float) -> None:
    worst[name] = max(worst.get(name, 0.0), value)


def _relative(ours: Any, theirs: float) -> float:
    """0 / 0 is 0: a loss without positives."""
    ours = float(ours.detach() if isinstance(ours, torch.Tensor) else ours)
    return abs(ours - theirs) / abs(theirs) if theirs else abs(ours)


def _absolute(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(abs(ours - theirs).max(initial=0)) if ours.shape == theirs.shape else math.inf


def _differs(ours: Any, theirs: Any) -> int:
    return int(not np.array_equal(np.asarray(ours), np.asarray(theirs)))


# ---------------------------------------------------------------------------------- docs/parity.md

HEADER = """\
# Parity with the published implementations

Written by `make parity`; the same measurements are part of `make test`, which fails where one is beyond its tolerance.
Each figure is the worst deviation between this project and the stored outputs of the published code (`tests/oracles`:
OpenTAD 3dd7b032, actionformer_release 61ea7eb9), on the same weights and inputs. Losses, gradient norms, rates and
trajectories: relative (a tensor's gradient norm: relative to the whole gradient's). Everything else: absolute, decoded
segments in strides. *Differing* counts what has to be equal and isn't. Where ours deviates on purpose stands in
[differences.md](differences.md).
"""
NO_ORACLE = (
    "A dash: the published outputs of this row are not at hand. Its hyperparameters equal the published ones, and "
    "every part that it is made of is measured on other rows, except what `tests/test_data.py` checks by hand: HACS's "
    "filters and its ground truth on fractions of a frame, and the overlapping windows of Charades-VideoMAE."
)


def worst_of(found: Iterable[Deviations]) -> Deviations:
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
    found |= {f"30 iterations, {tag}": trajectory(tag) for tag in TRAJECTORIES}
    found |= {
        "random truncation": truncation(),
        "resampling": resampling(),
        "order of training videos": order_of_training(),
        f"NMS, {len(list(nms_cases()))} cases": worst_of(map(nms, nms_cases())),
        "voting, 3 cases": worst_of(map(voting, range(3))),
        f"external classifiers, {len(fusions())} cases": worst_of(map(fusion, fusions())),
    }
    return found | {f"evaluation, case {name}": evaluation(name) for name in EVALUATIONS}


def _matrix(rows: dict[str, Deviations]) -> list[str]:
    """One line per row, one column per quantity, and a line of tolerances."""
    columns = list(dict.fromkeys(name for deviations in rows.values() for name in deviations))
    lines = ["| row | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for row, deviations in rows.items():
        lines.append(
            f"| {row} | " + " | ".join(_figure(deviations.get(name)) for name in columns) + " |"
        )
    return [
        *lines,
        "| *tolerance* | " + " | ".join(_figure(TOLERANCE.get(name, 0)) for name in columns) + " |",
    ]


def _figure(value: float | None) -> str:
    return (
        "–"
        if value is None
        else "0"
        if value == 0
        else f"{value:.0e}"
        if value < 1
        else f"{value:g}"
    )


def report() -> str:
    """The whole page."""
    rows, parts = per_row(), of_parts()
    releases = {oracle.ROW_OF.get(config, config): release_network(config) for config in RELEASES}
    lines = [
        HEADER,
        f"Measured with torch {torch.__version__.split('+')[0]}, numpy {np.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}, {torch.get_num_threads()} threads, float32.",
        *("", "## The 14 rows, against OpenTAD", "", NO_ORACLE, "", *_matrix(rows)),
        *(
            "",
            "## actionformer_release: its layout of weights, its arithmetic",
            "",
            *_matrix(releases),
        ),
        *(
            "",
            "## What rows share",
            "",
            "| part | quantity | worst | tolerance |",
            "|---|---|---:|---:|",
        ),
    ]
    for part, deviations in parts.items():
        for name, value in deviations.items():
            lines.append(
                f"| {part} | {name} | {_figure(value)} | {_figure(TOLERANCE.get(name, 0))} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="write docs/parity.md")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/parity.md")
    out = parser.parse_args().out
    write_text(out, report())
    print(out)


if __name__ == "__main__":
    main()
