"""How fast is it, against the published implementations?

One command, one table: docs/performance.md and a plot.

    python benchmarks/benchmark.py [--out docs/performance.md] [--quick]

The peers' times (the faster of OpenTAD and actionformer_release, everything padded to
`max_seq_len`, two threads) were measured on a machine that multiplies float32 matrices of 2048 x
2048 at 131 GFLOP/s. What the network does is compared through that rate: a peer's time counts as
time * 131 / the rate measured here, in the same run. Post-processing, evaluation and loading are
compared as they stand.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from step_memory import Trainer, batch_of
from torch.utils.flop_counter import FlopCounterMode

from actionformer import ActionFormer, load_experiment
from actionformer.data.features import FeatureStore, pack
from actionformer.data.loader import training_batches
from actionformer.data.view import View, views
from actionformer.detection import batched_nms
from actionformer.detection.predict import of_video, of_view
from actionformer.evaluation import mean_average_precision
from actionformer.files import write_text
from actionformer.params.experiment import Experiment
from actionformer.params.files import published_rows
from actionformer.progress import progress
from actionformer.provenance import environment
from actionformer.training.device import prepare_cpu

PEER_MATRIX_RATE = 131e9
THREADS = 2


@dataclass(frozen=True)
class Peer:
    """The faster published implementation at full length: seconds of a training step and of one
    video's forward.
    """

    batch: int
    step: float
    forward: float
    memory: float


PEERS = {
    "thumos14_i3d": Peer(2, 6.1, 0.89, 2.7e9),
    "activitynet_tsp": Peer(16, 1.35, 0.079, 1.1e9),
    "ego4d_slowfast": Peer(2, 3.0, 0.48, 2.0e9),
    "charades_i3d_rgb": Peer(4, 4.1, 0.40, 2.2e9),
}
# floors: full-length step; epoch and inference on real lengths
FLOORS = {
    "step": dict.fromkeys(PEERS, 1.15),
    "epoch": {"thumos14_i3d": 1.6, "epic_verb_slowfast": 2.1, "charades_i3d_rgb": 4.0},
    "inference": {"thumos14_i3d": 1.9, "epic_verb_slowfast": 3.3, "charades_i3d_rgb": 4.5},
}
POST_PROCESSING = {
    "thumos14_i3d": 0.050,
    "multithumos_i3d": 0.188,
    "epic_verb_slowfast": 0.098,
    "epic_noun_slowfast": 0.254,
    "ego4d_slowfast": 0.092,
    "activitynet_tsp": 0.0066,
}
SOFT_NMS = {2000: 0.047, 8000: 0.422}
# videos, detections, classes, thresholds, seconds
EVALUATION = [(211, 422_000, 20, 5, 170.0), (4_728, 945_600, 200, 10, 440.0)]
LOADING = 7.8

# quantiles of Charades' lengths in seconds (training, test), and at which
CHARADES_AT = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
CHARADES = {
    "train": (2.3, 15.7, 20.0, 27.0, 30.5, 32.2, 36.7, 41.7, 59.0, 194.3),
    "test": (3.1, 12.3, 16.7, 25.7, 30.6, 32.6, 35.8, 39.2, 47.5, 72.0),
}
REAL = Path(__file__).resolve().parents[2] / "shared/real"


# --------------------------------------------------------------------------------------- measuring


def seconds(work: Callable[[], Any], *, repeats: int, warm: int = 1) -> float:
    """The median over `repeats` calls, after `warm` ones."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def matrix_rate() -> float:
    """FLOP/s of a float32 product of two 2048 x 2048 matrices."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / seconds(lambda: a @ b, repeats=9, warm=3)


def lengths_of(row: str, split: str) -> list[int] | None:
    """Real lengths in steps of a row's videos; None where their source is not at hand."""
    features = load_experiment(row).features
    stride = features.stride_frames
    assert stride is not None
    if row == "charades_i3d_rgb":
        count = 7985 if split == "train" else 1863
        durations = np.interp((np.arange(count) + 0.5) / count, CHARADES_AT, CHARADES[split])
        return [max(1, int(duration * (features.fps or 24) / stride)) for duration in durations]
    if not REAL.exists():
        return None
    if row == "thumos14_i3d":
        prefix = "video_validation" if split == "train" else "video_test"
        with (REAL / "thumos14/video_info.csv").open() as file:
            return [
                int(float(r["frames"]) / stride)
                for r in csv.DictReader(file)
                if r["video_id"].startswith(prefix)
            ]
    listed = "train" if split == "train" else "validation"
    with (REAL / f"epic/EPIC_100_{listed}.csv").open() as file:
        used = {r["video_id"] for r in csv.DictReader(file)}
    with (REAL / "epic/EPIC_100_video_info.csv").open() as file:
        return [
            int(float(r["duration"]) * 30 / stride)
            for r in csv.DictReader(file)
            if r["video_id"] in used
        ]


def cropped(lengths: Sequence[int], experiment: Experiment) -> list[int]:
    """Lengths after random truncation: 90 to 100 % of a video, at most the window."""
    rng = np.random.default_rng(0)
    window = experiment.data.random_trunc.length
    return [min(window, int(length * rng.uniform(0.9, 1.0)) or 1) for length in lengths]


def training_flops(experiment: Experiment, lengths: Sequence[int]) -> float:
    """FLOPs of forward and backward."""
    model = ActionFormer(experiment.model).train()
    batch = batch_of(experiment, lengths, torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model.loss(batch.features_BCT, batch.mask_BT, batch.segments, batch.labels).total.backward()
    return float(counter.get_total_flops())


# -------------------------------------------------------------------------------- what is measured


def batch_at_full_length(row: str) -> int:
    """The batch of the peers' figures, otherwise the row's own."""
    return PEERS[row].batch if row in PEERS else load_experiment(row).training.batch_size


def full_length(row: str, repeats: int) -> dict[str, float]:
    """One training step and one forward pass at `max_seq_len`."""
    experiment = load_experiment(row)
    T = experiment.model.max_seq_len
    trainer, generator = Trainer(experiment), torch.Generator().manual_seed(0)
    batch = batch_of(experiment, [T] * batch_at_full_length(row), generator)
    step = seconds(lambda: trainer.step(batch), repeats=repeats)
    model = trainer.model.eval()
    one = batch_of(experiment, [T], generator)
    with torch.inference_mode():
        forward = seconds(lambda: model(one.features_BCT, one.mask_BT), repeats=repeats + 2)
    return {
        "step": step,
        "forward": forward,
        "flops": training_flops(experiment, [T] * batch_at_full_length(row)),
    }


def real_lengths(row: str, batches: int) -> dict[str, float] | None:
    """Seconds of a training step on batches drawn from the real lengths, and of a test video's
    forward pass.
    """
    experiment = load_experiment(row)
    train, test = lengths_of(row, "train"), lengths_of(row, "test")
    if train is None or test is None:
        return None
    generator, size = torch.Generator().manual_seed(0), experiment.training.batch_size
    order = torch.randperm(len(train), generator=generator).tolist()
    sample = [
        cropped([train[i] for i in order[k : k + size]], experiment)
        for k in range(0, size * batches, size)
    ]
    trainer, times = Trainer(experiment), []
    for lengths in [sample[0], *sample]:
        batch = batch_of(experiment, lengths, generator)
        times.append(seconds(partial(trainer.step, batch), repeats=1, warm=0))
    model, forwards = trainer.model.eval(), []
    limit = experiment.data.test_pad_length or max(test)
    order = torch.randperm(len(test), generator=generator)[: 4 * batches].tolist()
    chosen = [min(test[i], limit) for i in order]
    together = experiment.inference.batch_size
    groups = [chosen[k : k + together] for k in range(0, len(chosen), together)]
    with torch.inference_mode():
        for lengths in [groups[0], *groups]:
            some = batch_of(experiment, lengths, generator)
            forward = partial(model, some.features_BCT, some.mask_BT)
            taken = seconds(forward, repeats=1, warm=0)
            forwards += [taken / len(lengths)] * len(lengths)
    forwards = forwards[len(groups[0]) :]
    full = training_flops(experiment, [experiment.model.max_seq_len] * size)
    # what the peers pad these videos to, against full length
    padded = (
        statistics.fmean(trainer.model.published_length(length) for length in chosen)
        / experiment.model.max_seq_len
    )
    return {
        "step": statistics.fmean(times[1:]),
        "forward": statistics.fmean(forwards),
        "full_flops": full,
        "padded": padded,
    }


def memory(row: str) -> float:
    """Peak memory in bytes of a process that does nothing but three training steps at full length."""
    script = Path(__file__).with_name("step_memory.py")
    command = [sys.executable, str(script), row, str(batch_at_full_length(row)), str(THREADS)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def post_processing(row: str, repeats: int) -> float:
    """Seconds from decoded points of one full-length video to its detections."""
    experiment = load_experiment(row)
    model, params = experiment.model, experiment.inference
    rng, T = np.random.default_rng(0), experiment.model.max_seq_len
    points = sum(T // stride for stride in model.strides)
    centre = rng.uniform(0, T, points)
    half = np.exp(rng.uniform(np.log(2), np.log(0.6 * T), points)) / 2
    segments = torch.from_numpy(np.stack([centre - half, centre + half], 1).astype(np.float32))
    scores = torch.from_numpy(
        (rng.uniform(0, 1, (points, model.num_classes)) ** 6).astype(np.float32)
    )
    view = View(
        "v",
        600.0,
        {"v": np.zeros((1, 1))},
        slice(None),
        np.zeros((0, 2), np.float32),
        np.zeros(0, np.int64),
        30.0,
        4.0,
        8.0,
    )
    classes = [f"class {k}" for k in range(model.num_classes)]

    def work() -> None:
        of_video("v", [of_view(view, segments, scores, params)], params, classes, sliding=False)

    return seconds(work, repeats=repeats, warm=2)


def soft_nms(count: int, repeats: int) -> float:
    """Soft-NMS alone, all of one class, nothing left out."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 2304, count)
    segments = np.stack([start, start + np.exp(rng.uniform(0, 6, count))], 1).astype(np.float32)
    scores = rng.uniform(0, 1, count).astype(np.float32)
    labels = np.zeros(count, np.int64)

    def work() -> None:
        batched_nms(
            segments,
            scores,
            labels,
            sigma=0.5,
            min_score=0.001,
            max_segments=count,
            per_class=True,
            voting_threshold=0.0,
        )

    return seconds(work, repeats=repeats, warm=2)


def detections(videos: int, count: int, classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A made-up database and its detections, in the published form."""
    rng = np.random.default_rng(0)
    database, results = {}, {}
    per_video = count // videos
    for v in range(videos):
        start = rng.uniform(0, 180, 16)
        annotations = [
            {
                "segment": [float(s), float(s + rng.uniform(1, 20))],
                "label": f"c{rng.integers(classes)}",
            }
            for s in start
        ]
        database[f"v{v}"] = {"subset": "validation", "duration": 200.0, "annotations": annotations}
        starts = np.round(rng.uniform(0, 180, per_video), 2)
        ends = np.round(starts + rng.uniform(1, 20, per_video), 2)
        scores = np.round(rng.uniform(0, 1, per_video), 4)
        labels = rng.integers(classes, size=per_video)
        results[f"v{v}"] = [
            {"segment": [s, e], "score": c, "label": f"c{k}"}
            for s, e, c, k in zip(
                starts.tolist(), ends.tolist(), scores.tolist(), labels.tolist(), strict=True
            )
        ]
    return {"database": database}, {"results": results}


def evaluation(videos: int, count: int, classes: int, thresholds: int) -> dict[str, float]:
    """Seconds of mAP from parsed detections, and of reading their file."""
    database, results = detections(videos, count, classes)
    tiou = np.linspace(0.3, 0.7, thresholds).tolist()

    def work() -> None:
        mean_average_precision(database, results, subset="validation", tiou_thresholds=tiou)

    taken = seconds(work, repeats=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.json"
        path.write_text(json.dumps(results))
        reading = seconds(lambda: json.loads(path.read_text()), repeats=1, warm=0)
    return {"seconds": taken, "reading": reading}


def loading(videos: int) -> float:
    """Seconds of one pass over `videos` THUMOS-like feature files through the training loader."""
    experiment, rng = load_experiment("thumos14_i3d"), np.random.default_rng(0)
    lengths = (lengths_of("thumos14_i3d", "train") or [1600] * 200)[:videos]
    block = rng.standard_normal((max(lengths), 2048)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, database = Path(folder) / "features", {}
        source.mkdir()
        for i, length in enumerate(lengths):
            np.save(source / f"v{i}.npy", block[:length])
            annotation = {"segment": [1.0, 9.0], "label": "a"}
            database[f"v{i}"] = {
                "subset": "training",
                "duration": length * 4 / 30,
                "frame": length * 4,
                "annotations": [annotation],
            }
        pack(source, Path(folder) / "f.h5", dim=2048)
        training = views(
            {"database": database}, FeatureStore(Path(folder) / "f.h5"), experiment, "train"
        )

        def work() -> None:
            for _ in training_batches(training, batch_size=2, epoch=0, seed=0):
                pass

        return seconds(work, repeats=3) * 200 / len(lengths)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """p of time ~ size^p, by least squares in logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def growth(repeats: int) -> dict[str, tuple[list[float], list[float]]]:
    """How times grow: quantity -> (sizes, seconds)."""
    experiment = load_experiment("thumos14_i3d")
    trainer, generator = Trainer(experiment), torch.Generator().manual_seed(0)
    found: dict[str, tuple[list[float], list[float]]] = {}

    def step(lengths: Sequence[int]) -> float:
        batch = batch_of(experiment, lengths, generator)
        return seconds(lambda: trainer.step(batch), repeats=repeats)

    sizes = [288, 576, 1152, 2304]
    found["training step, length (batch 2)"] = (
        [float(s) for s in sizes],
        [step([s, s]) for s in sizes],
    )
    batches = [1, 2, 4]
    found["training step, batch (length 576)"] = (
        [float(b) for b in batches],
        [step([576] * b) for b in batches],
    )
    counts = [1000, 2000, 4000, 8000]
    found["soft-NMS, segments of one class"] = (
        [float(c) for c in counts],
        [soft_nms(c, repeats) for c in counts],
    )
    amounts = [50_000, 100_000, 200_000, 400_000]
    found["mAP, detections (20 classes)"] = (
        [float(a) for a in amounts],
        [evaluation(200, a, 20, 5)["seconds"] for a in amounts],
    )
    kinds = [10, 40, 160]
    found["mAP, classes (100,000 detections)"] = (
        [float(k) for k in kinds],
        [evaluation(200, 100_000, k, 5)["seconds"] for k in kinds],
    )
    return found


# ---------------------------------------------------------------------------------------- the page

HEADER = """\
# Performance

Written by `make benchmark`. Ratios are to the faster of the two published implementations: what the network does
through the matrix rate of the two machines (`benchmarks/benchmark.py`), the rest as it stands. Medians.

{processor}, {cores} cores, {threads} threads; torch {torch}, numpy {numpy}, Python {python}.
Float32 matrices of 2048 x 2048: {rate:.0f} GFLOP/s. Convolutions run in another library than matrix products (oneDNN,
MKL), which may be the faster one: shares of the matrix rate can exceed 100 %.
"""
REAL_LENGTHS = """\
A step of a training epoch, and a test video's forward pass in batches of the row's size, on lengths drawn from the real
ones; the peers pad to full length. EPIC's peer is reckoned from THUMOS-14's by the FLOPs.
"""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)] + [
        "| " + " | ".join(row) + " |" for row in rows
    ]


def _ratio(value: float, floor: float | None = None) -> list[str]:
    """A ratio, and the floor that it has to reach, if there is one."""
    digits = 2 if value < 10 else 0
    return [f"**{value:.{digits}f}x**"] + ([] if floor is None else [f"{floor:g}x"])


def full_length_table(rate: float, repeats: int) -> tuple[list[str], dict[str, float]]:
    """Steps and forward passes at full length; and the FLOPs of a step per row."""
    scale, rows, flops = PEER_MATRIX_RATE / rate, [], {}
    for row in progress(
        [*PEERS, *(row for row in published_rows() if row not in PEERS)], "full length", unit="row"
    ):
        peer, used = PEERS.get(row), memory(row)
        found = full_length(row, repeats if peer else 1)
        step, forward, flops[row] = found["step"], found["forward"], found["flops"]
        rows.append(
            [
                row,
                str(batch_at_full_length(row)),
                f"{step:.2f}",
                f"{1 / step:.2f}",
                f"{flops[row] / step / rate:.0%}",
                *(_ratio(peer.step * scale / step, FLOORS["step"][row]) if peer else ["–", "–"]),
                f"{forward:.3f}",
                *(_ratio(peer.forward * scale / forward) if peer else ["–"]),
                f"{used / 1e9:.1f}",
                f"{peer.memory / 1e9:.1f}" if peer else "–",
            ]
        )
    heads = [
        "row",
        "batch",
        "step, s",
        "steps/s",
        "of the matrix rate",
        "ratio",
        "floor",
        "forward, s",
        "ratio",
        "memory, GB",
        "theirs",
    ]
    return _table(heads, rows), flops


def real_lengths_table(rate: float, flops: dict[str, float], batches: int) -> list[str]:
    """Training and inference on real lengths."""
    scale, rows = PEER_MATRIX_RATE / rate, []
    for row in progress(list(FLOORS["epoch"]), "real lengths", unit="row"):
        found = real_lengths(row, batches)
        if found is None:
            rows.append([row, "the real lengths are not at hand", *["–"] * 7])
            continue
        peer = PEERS.get(row, PEERS["thumos14_i3d"])
        size = load_experiment(row).training.batch_size
        # the peer's step at this row's batch, and its forward pass at the length that it pads to
        if row in PEERS:
            step, forward = peer.step * size / peer.batch, peer.forward * found["padded"]
        else:
            more = found["full_flops"] / flops["thumos14_i3d"]
            step, forward = (
                peer.step * more,
                peer.forward * more * peer.batch / size * found["padded"],
            )
        rows.append(
            [
                row,
                str(size),
                f"{found['step']:.2f}",
                f"{size / found['step']:.2f}",
                *_ratio(step * scale / found["step"], FLOORS["epoch"][row]),
                f"{found['forward']:.3f}",
                *_ratio(forward * scale / found["forward"], FLOORS["inference"][row]),
            ]
        )
    heads = [
        "row",
        "batch",
        "step, s",
        "videos/s",
        "ratio",
        "floor",
        "forward, s",
        "ratio",
        "floor",
    ]
    return _table(heads, rows)


def rest_table(repeats: int, videos: int) -> list[str]:
    """Post-processing, evaluation, loading."""
    rows = []
    for row, theirs in progress(list(POST_PROCESSING.items()), "post-processing", unit="row"):
        taken = post_processing(row, 3 * repeats)
        rows.append(
            [
                f"post-processing of one video, {row}",
                f"{taken:.4f}",
                f"{theirs:g}",
                *_ratio(theirs / taken, 5),
            ]
        )
    for count, theirs in SOFT_NMS.items():
        taken = soft_nms(count, 2 * repeats)
        rows.append(
            [
                f"soft-NMS of {count} segments of one class",
                f"{taken:.4f}",
                f"{theirs:g}",
                *_ratio(theirs / taken),
                "",
            ]
        )
    for number, count, classes, thresholds, theirs in progress(
        EVALUATION, "evaluation", unit="size"
    ):
        found = evaluation(number, count, classes, thresholds)
        what = f"mAP of {count} detections: {number} videos, {classes} classes, {thresholds} thresholds"
        what += f" (reading the file: {found['reading']:.2f} s more)"
        rows.append(
            [
                what,
                f"{found['seconds']:.2f}",
                f"{theirs:g}",
                *_ratio(theirs / found["seconds"], 200),
            ]
        )
    taken = loading(videos)
    rows.append(
        [
            "one pass over the features of 200 THUMOS-14 videos",
            f"{taken:.2f}",
            f"{LOADING:g}",
            *_ratio(LOADING / taken, 3),
        ]
    )
    return _table(["what", "s", "theirs, s", "ratio", "floor"], rows)


def growth_table(grown: dict[str, tuple[list[float], list[float]]]) -> list[str]:
    rows = [
        [
            what,
            ", ".join(f"{s:g}" for s in sizes),
            ", ".join(f"{t:.3g}" for t in times),
            f"{exponent(sizes, times):.2f}",
        ]
        for what, (sizes, times) in grown.items()
    ]
    return _table(["what", "sizes", "seconds", "exponent"], rows)


def report(quick: bool) -> tuple[str, dict[str, tuple[list[float], list[float]]]]:
    """The whole page, and the growth to plot."""
    prepare_cpu(THREADS)
    repeats, batches = (2, 4) if quick else (4, 16)
    rate, facts = matrix_rate(), environment()
    parts = [HEADER.format(**facts, threads=THREADS, rate=rate / 1e9)]
    full, flops = full_length_table(rate, repeats)
    grown = growth(2)
    for title, text, table in (
        ("Full length", "", full),
        ("Real lengths", REAL_LENGTHS, real_lengths_table(rate, flops, batches)),
        ("Post-processing, evaluation, loading", "", rest_table(repeats, 40 if quick else 200)),
        ("Growth", "Time grows as size to the power of the exponent.\n", growth_table(grown)),
    ):
        parts.append(f"## {title}\n\n{text}{chr(10) if text else ''}" + "\n".join(table) + "\n")
    return "\n".join([*parts, "![Times against sizes](performance.png)\n"]), grown


def plot(grown: dict[str, tuple[list[float], list[float]]], out: Path) -> None:
    """Times against sizes, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(grown), figsize=(3.2 * len(grown), 3.2), layout="constrained"
    )
    for axis, (what, (sizes, times)) in zip(axes, grown.items(), strict=True):
        axis.loglog(sizes, times, marker="o", color="#3b6ea5")
        ideal = [times[0] * size / sizes[0] for size in sizes]
        axis.loglog(sizes, ideal, linestyle=":", color="gray")
        axis.set_title(what, fontsize=8)
        axis.set_ylabel("seconds (dotted: linear)", fontsize=7)
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        told = [times[0], times[-1]] if times[-1] > 1.2 * times[0] else times[:1]
        axis.set_yticks(told, [f"{taken:.2g}" for taken in told])
        axis.minorticks_off()
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "docs/performance.md"
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats, a quarter of the time")
    args = parser.parse_args()
    text, grown = report(args.quick)
    write_text(args.out, text)
    plot(grown, args.out.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
