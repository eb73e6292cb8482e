"""What `benchmark.py` measures: seconds and bytes, no words."""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import PEERS
from torch.utils.flop_counter import FlopCounterMode

from actionformer import ActionFormer, load_experiment
from actionformer.data.detections import read_results
from actionformer.data.features import FeatureStore, pack
from actionformer.data.loader import of_like_lengths, training_batches
from actionformer.data.view import View, views
from actionformer.detection.decode import candidates
from actionformer.detection.nms import batched_nms
from actionformer.detection.predict import in_seconds, of_video
from actionformer.evaluation import mean_average_precision
from actionformer.model.layers import weights_stay
from actionformer.params.experiment import Experiment
from actionformer.stages.status import batches_of
from actionformer.training import cost
from actionformer.training.cost import Trainer, batch_of, matrix_rate

THREADS = 2
# seconds: shorter work is measured many times over
AT_LEAST = 0.5
# seconds of steps for every repeat that is asked for: few short ones tell of one moment alone
STEPS_A_REPEAT = 2.5
# smaller products do not fill a GPU
GPU_MATRIX = 8192

# quantiles of Charades' lengths in seconds (training, test), and at which
CHARADES_AT = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
CHARADES = {
    "train": (2.3, 15.7, 20.0, 27.0, 30.5, 32.2, 36.7, 41.7, 59.0, 194.3),
    "test": (3.1, 12.3, 16.7, 25.7, 30.6, 32.6, 35.8, 39.2, 47.5, 72.0),
}
CHARADES_VIDEOS = {"train": 7985, "test": 1863}
REAL = Path(__file__).resolve().parents[2] / "shared/real"


@dataclass(frozen=True)
class Grown:
    """How times grow with a size."""

    what: str
    sizes: list[float]
    seconds: list[float]

    @property
    def exponent(self) -> float:
        """p of time ~ size^p, by least squares in logarithms."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])


def seconds(work: Callable[[], Any], *, repeats: int, warm: int = 1) -> float:
    """The median over `repeats` calls, after `warm` ones."""
    for _ in range(warm):
        work()
    return statistics.median(_timed(work) for _ in range(repeats))


@dataclass(frozen=True)
class Beside:
    """What work takes in seconds, and in the operations of matrix products."""

    seconds: float
    # what these would do in the same time, at the rate that the machine has right then
    products: float


def beside_products(work: Callable[[], Any], repeats: int = 1) -> Beside:
    """The median of `repeats` times, each with matrix products before and after it.

    A machine that others share has faster and slower moments, of seconds and of minutes: a rate
    that is measured at the beginning is not that of the work.
    """
    before, taken, products = matrix_rate("cpu"), [], []
    for _ in range(repeats):
        # short work comes many times: after the products its data is in no cache
        times = [_timed(work)]
        while sum(times) < AT_LEAST:
            times.append(_timed(work))
        after = matrix_rate("cpu")
        taken.append(statistics.median(times))
        products.append(taken[-1] * (before + after) / 2)
        before = after
    return Beside(statistics.median(taken), statistics.median(products))


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ----------------------------------------------------------------------------------------- lengths


def lengths_of(row: str, split: str) -> list[int] | None:
    """Real lengths in steps of a row's videos; None where their source is not at hand."""
    features = load_experiment(row).features
    stride = features.stride_frames
    assert stride is not None
    if row == "charades_i3d_rgb":
        count = CHARADES_VIDEOS[split]
        durations = np.interp((np.arange(count) + 0.5) / count, CHARADES_AT, CHARADES[split])
        return [max(1, int(duration * (features.fps or 24) / stride)) for duration in durations]
    if not REAL.exists():
        return None
    lengths = []
    if row == "thumos14_i3d":
        prefix = "video_validation" if split == "train" else "video_test"
        for video in _lines(REAL / "thumos14/video_info.csv"):
            if video["video_id"].startswith(prefix):
                lengths.append(int(float(video["frames"]) / stride))
        return lengths
    listed = "train" if split == "train" else "validation"
    used = {segment["video_id"] for segment in _lines(REAL / f"epic/EPIC_100_{listed}.csv")}
    for video in _lines(REAL / "epic/EPIC_100_video_info.csv"):
        if video["video_id"] in used:
            lengths.append(int(float(video["duration"]) * 30 / stride))
    return lengths


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def cropped(lengths: Sequence[int], experiment: Experiment) -> list[int]:
    """Lengths after random truncation: 90 to 100 % of a video, at most the window."""
    rng = np.random.default_rng(0)
    window = experiment.data.random_trunc.length
    return [min(window, int(length * rng.uniform(0.9, 1.0)) or 1) for length in lengths]


# ----------------------------------------------------------------------------------------- network


def batch_at_full_length(row: str) -> int:
    """The batch of the peers' figures, otherwise the row's own."""
    return PEERS[row].batch if row in PEERS else load_experiment(row).training.batch_size


def training_flops(experiment: Experiment, lengths: Sequence[int]) -> float:
    """Operations of one step on videos of these lengths, as convolutions are defined.

    On the meta device: on a CPU wide ones take fewer (`model.convolution`).
    """
    with torch.device("meta"):
        model = ActionFormer(experiment.model).train()
    batch = batch_of(experiment, lengths, torch.Generator().manual_seed(0))
    batch = batch.each(lambda tensor: tensor.to("meta"))
    with FlopCounterMode(display=False) as counted:
        losses = model.loss(batch.features_BCT, batch.mask_BT, batch.segments, batch.labels)
        losses.total.backward()
    return float(counted.get_total_flops())


@dataclass(frozen=True)
class FullLength:
    """One training step and one forward pass at `max_seq_len`; the step's operations."""

    step: Beside
    forward: Beside
    flops: float


def full_length(row: str, repeats: int) -> FullLength:
    """A row's, after a step and a pass that warm up."""
    experiment = load_experiment(row)
    T = experiment.model.max_seq_len
    lengths = [T] * batch_at_full_length(row)
    trainer, generator = Trainer(experiment), torch.Generator().manual_seed(0)
    one_step = partial(trainer.step, batch_of(experiment, lengths, generator))
    one_step()
    enough = round(repeats * STEPS_A_REPEAT / _timed(one_step))
    step = beside_products(one_step, max(repeats, enough))
    model, one = trainer.model.eval(), batch_of(experiment, [T], generator)
    with torch.inference_mode(), weights_stay(model):
        one_pass = partial(model, one.features_BCT, one.mask_BT)
        one_pass()
        forward = beside_products(one_pass, 2 * repeats)
    return FullLength(step, forward, training_flops(experiment, lengths))


@dataclass(frozen=True)
class RealLengths:
    """A training step and a test video's forward pass in the mean, on the real lengths."""

    step: Beside
    forward: Beside
    # operations of a step at full length
    full_flops: float
    # what the peers pad these videos to, against full length
    padded: float


def real_lengths(row: str, batches: int) -> RealLengths | None:
    """A row's; None where the lengths are not at hand."""
    experiment = load_experiment(row)
    train, test = lengths_of(row, "train"), lengths_of(row, "test")
    if train is None or test is None:
        return None
    generator, size = torch.Generator().manual_seed(0), experiment.training.batch_size
    order = torch.randperm(len(train), generator=generator).tolist()
    sample = []
    for first in range(0, size * batches, size):
        videos = [train[i] for i in order[first : first + size]]
        sample.append(cropped(videos, experiment))
    trainer, steps = Trainer(experiment), []
    for lengths in [sample[0], *sample]:  # the first one warms up
        batch = batch_of(experiment, lengths, generator)
        steps.append(beside_products(partial(trainer.step, batch)))

    model, passes = trainer.model.eval(), []
    limit = experiment.data.test_pad_length or max(test)
    inputs = [min(length, limit) for length in test]
    longest = experiment.model.max_seq_len
    # of all videos: those of a few would be padded more
    together = of_like_lengths(inputs, experiment.model, batch_size=experiment.inference.batch_size)
    order = torch.randperm(len(together), generator=generator)[: 2 * batches].tolist()
    groups = [[inputs[place] for place in together[i]] for i in order]
    with torch.inference_mode(), weights_stay(model):
        for lengths in [groups[0], *groups]:
            some = batch_of(experiment, lengths, generator)
            passes.append(beside_products(partial(model, some.features_BCT, some.mask_BT)))
    chosen = [length for lengths in groups for length in lengths]
    padded = [model.published_length(length) for length in chosen]
    return RealLengths(
        step=_mean(steps[1:], len(sample)),
        forward=_mean(passes[1:], len(chosen)),
        full_flops=training_flops(experiment, [longest] * size),
        padded=statistics.fmean(padded) / longest,
    )


def _mean(parts: Sequence[Beside], count: int) -> Beside:
    """Of `count` things that were measured together in these parts."""
    taken = sum(part.seconds for part in parts)
    products = sum(part.products for part in parts)
    return Beside(taken / count, products / count)


def latency(row: str, device: str, repeats: int) -> dict[str, float]:
    """Seconds of one forward pass of a video at full length: of the network, of its backbone."""
    experiment = load_experiment(row)
    T = experiment.model.max_seq_len
    model = ActionFormer(experiment.model).eval().to(device)
    video = batch_of(experiment, [T], torch.Generator().manual_seed(0))
    video = video.each(lambda tensor: tensor.to(device))
    x_BTC = video.features_BCT.transpose(1, 2)
    works = {
        "network": partial(model, video.features_BCT, video.mask_BT),
        "backbone": partial(model.backbone, x_BTC, video.mask_BT, T),
    }
    found = {}
    with torch.inference_mode(), weights_stay(model):
        for name, work in works.items():
            found[name] = seconds(partial(_finished, work, device), repeats=repeats, warm=3)
    return found


@dataclass(frozen=True)
class OnGPU:
    """A training step of a row's batch at full length on a GPU, and one seed of the row."""

    seconds: float
    # peak bytes that tensors took, and that PyTorch held for them
    used: float
    held: float
    # of the published videos, evaluations included; None where their lengths are not known
    hours: float | None


def on_gpu(experiment: Experiment, repeats: int) -> OnGPU:
    """A row's, as its params want it."""
    lengths = [experiment.model.max_seq_len] * experiment.training.batch_size
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(experiment, "cuda")
    batch = batch_of(experiment, lengths, torch.Generator().manual_seed(0)).each(torch.Tensor.cuda)
    taken = seconds(partial(trainer.step, batch), repeats=repeats, warm=5)
    used, held = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    batches, hours = batches_of(experiment), None
    if batches is not None:
        speed = cost.measured(experiment, batches, "cuda")
        hours = cost.training_seconds(experiment, batches, speed) / 3600
    return OnGPU(taken, used, held, hours)


def gpu_rates() -> dict[str, float]:
    """Precision of `model.precision` -> operations a second of products in its arithmetic."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    rates = {}
    for precision, kind in (
        ("published", torch.float32),
        ("float32", torch.float32),
        ("bf16", torch.bfloat16),
    ):
        torch.backends.cuda.matmul.allow_tf32 = precision == "published"
        a, b = torch.randn(2, GPU_MATRIX, GPU_MATRIX, device="cuda", dtype=kind)
        work = partial(_finished, partial(torch.mm, a, b), "cuda")
        rates[precision] = 2 * GPU_MATRIX**3 / seconds(work, repeats=10, warm=5)
    torch.backends.cuda.matmul.allow_tf32 = allowed
    return rates


def _finished(work: Callable[[], Any], device: str) -> None:
    """Work, to its end on the device."""
    work()
    if device == "cuda":
        torch.cuda.synchronize()


def memory(row: str) -> float:
    """Peak bytes of a process that does nothing but some training steps at full length."""
    return _alone(row, os.environ)[0]


def busy(row: str, policy: Mapping[str, str], others: int) -> float:
    """Seconds of a step beside other processes that never rest.

    Args:
        policy: variables that say what threads do that wait; OpenMP's own way where it is empty.
    """
    said = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    there = {name: value for name, value in os.environ.items() if name not in said}
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        return _alone(row, there | policy)[1]
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()


def _alone(row: str, environment: Mapping[str, str]) -> tuple[float, float]:
    """Peak bytes, and seconds of a step at full length, of a process that does nothing else."""
    script = Path(__file__).with_name("step_memory.py")
    command = [sys.executable, str(script), row, str(batch_at_full_length(row)), str(THREADS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    size, taken = done.stdout.split()
    return float(size), float(taken)


# ------------------------------------------------------------------------------------ around it


def post_processing(row: str, repeats: int) -> float:
    """Seconds from decoded points of one full-length video to its detections."""
    experiment = load_experiment(row)
    model, params = experiment.model, experiment.inference
    rng, T = np.random.default_rng(0), model.max_seq_len
    points = sum(T // stride for stride in model.strides)
    centre = rng.uniform(0, T, points)
    half = np.exp(rng.uniform(np.log(2), np.log(0.6 * T), points)) / 2
    segments = np.stack([centre - half, centre + half], 1).astype(np.float32)
    scores = (rng.uniform(0, 1, (points, model.num_classes)) ** 6).astype(np.float32)
    decoded = torch.from_numpy(segments), torch.from_numpy(scores)
    nothing = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    view = View("v", 600.0, {"v": np.zeros((1, 1))}, slice(None), *nothing, 30.0, 4.0, 8.0)
    classes = [f"class {k}" for k in range(model.num_classes)]

    def work() -> None:
        found = in_seconds(view, candidates(*decoded, params), params)
        of_video("v", [found], params, classes, sliding=False)

    return seconds(work, repeats=repeats, warm=2)


def soft_nms(count: int, repeats: int) -> float:
    """Soft-NMS alone, all of one class, nothing left out."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 2304, count)
    segments = np.stack([start, start + np.exp(rng.uniform(0, 6, count))], 1).astype(np.float32)
    scores = rng.uniform(0, 1, count).astype(np.float32)
    work = partial(
        batched_nms,
        segments,
        scores,
        np.zeros(count, np.int64),
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
    database: dict[str, Any] = {}
    results: dict[str, Any] = {}
    per_video = count // videos
    for v in range(videos):
        annotations = []
        for start in rng.uniform(0, 180, 16):
            segment = [float(start), float(start + rng.uniform(1, 20))]
            annotations.append({"segment": segment, "label": f"c{rng.integers(classes)}"})
        database[f"v{v}"] = {"subset": "validation", "duration": 200.0, "annotations": annotations}
        starts = np.round(rng.uniform(0, 180, per_video), 2)
        ends = np.round(starts + rng.uniform(1, 20, per_video), 2)
        scores = np.round(rng.uniform(0, 1, per_video), 4).tolist()
        labels = rng.integers(classes, size=per_video).tolist()
        found = []
        for segment, score, label in zip(
            np.stack([starts, ends], 1).tolist(), scores, labels, strict=True
        ):
            found.append({"segment": segment, "score": score, "label": f"c{label}"})
        results[f"v{v}"] = found
    return {"database": database}, {"results": results}


def evaluation(videos: int, count: int, classes: int, thresholds: int) -> dict[str, float]:
    """Seconds of mAP from parsed detections, and of reading their file."""
    database, results = detections(videos, count, classes)
    tiou = np.linspace(0.3, 0.7, thresholds).tolist()
    work = partial(
        mean_average_precision, database, results, subset="validation", tiou_thresholds=tiou
    )
    taken = seconds(work, repeats=5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.json"
        path.write_text(json.dumps(results))
        reading = seconds(partial(read_results, path), repeats=1, warm=0)
    return {"seconds": taken, "reading": reading}


def loading(videos: int) -> float:
    """Seconds of one pass over `videos` THUMOS-like feature files through the training loader."""
    experiment, rng = load_experiment("thumos14_i3d"), np.random.default_rng(0)
    lengths = (lengths_of("thumos14_i3d", "train") or [1600] * 200)[:videos]
    block = rng.standard_normal((max(lengths), 2048)).astype(np.float32)
    annotations = [{"segment": [1.0, 9.0], "label": "a"}]
    with tempfile.TemporaryDirectory() as name:
        folder, database = Path(name), {}
        (folder / "features").mkdir()
        for i, length in enumerate(lengths):
            np.save(folder / f"features/v{i}.npy", block[:length])
            facts = {"subset": "training", "duration": length * 4 / 30, "frame": length * 4}
            database[f"v{i}"] = facts | {"annotations": annotations}
        pack(folder / "features", folder / "f.h5", dim=2048)
        store = FeatureStore(folder / "f.h5")
        training = views({"database": database}, store, experiment, "train")

        def work() -> None:
            for _ in training_batches(training, batch_size=2, epoch=0, seed=0):
                pass

        return seconds(work, repeats=3) * 200 / len(lengths)


def growth(repeats: int) -> list[Grown]:
    """How times grow with lengths, batches, segments, detections and classes."""
    experiment = load_experiment("thumos14_i3d")
    trainer, generator = Trainer(experiment), torch.Generator().manual_seed(0)

    def step(lengths: Sequence[int]) -> float:
        batch = batch_of(experiment, lengths, generator)
        return seconds(partial(trainer.step, batch), repeats=repeats)

    def grown(what: str, sizes: Sequence[int], taken: Callable[[int], float]) -> Grown:
        return Grown(what, [float(size) for size in sizes], [taken(size) for size in sizes])

    return [
        grown(
            "training step, length (batch 2)",
            [288, 576, 1152, 2304],
            lambda length: step([length, length]),
        ),
        grown(
            "training step, batch (length 576)",
            [1, 2, 4],
            lambda batch: step([576] * batch),
        ),
        grown(
            "soft-NMS, segments of one class",
            [1000, 2000, 4000, 8000],
            lambda count: soft_nms(count, repeats),
        ),
        grown(
            "mAP, detections (20 classes)",
            [50_000, 100_000, 200_000, 400_000],
            lambda count: evaluation(200, count, 20, 5)["seconds"],
        ),
        grown(
            "mAP, classes (100,000 detections)",
            [10, 40, 160],
            lambda classes: evaluation(200, 100_000, classes, 5)["seconds"],
        ),
    ]
