"""What a training costs in time: measured on a few steps, or reckoned from operations.

A seed is its steps, on batches of its videos' real lengths, and its evaluations. A batch takes
nearly as much more time as it has more steps (attention is windowed), so a few batches tell the
time of all.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from actionformer import interrupts
from actionformer.data.loader import Batch, of_like_lengths, order_of, padded
from actionformer.data.view import steps_kept
from actionformer.model.actionformer import ActionFormer
from actionformer.model.layers import weights_stay
from actionformer.params.experiment import Experiment, ModelParams
from actionformer.training.average import WeightAverage
from actionformer.training.loop import step_of
from actionformer.training.optimizer import adamw

# times the forward pass: products with the gradient, for inputs and for weights
BACKWARD = 2
MATRIX = 2048
# the first products of a process wait for threads, pages and the processor's clock
WARM_UP = 3
# which of a row's batches are measured, by their lengths from the shortest to the longest
MEASURED_AT = (0.1, 0.5, 0.95)
REPEATS = 2
# segments of a video whose features are random
SEGMENTS = 12


@dataclass(frozen=True)
class Line:
    """Seconds of a batch, which grow evenly with its steps, padding included."""

    constant: float
    per_step: float

    def seconds(self, batches: Sequence[BatchShape]) -> float:
        """Of several batches."""
        steps = sum(batch.steps for batch in batches)
        return len(batches) * self.constant + steps * self.per_step

    def times(self, factor: float) -> Line:
        """As many times as long."""
        return Line(factor * self.constant, factor * self.per_step)

    @staticmethod
    def through(steps: Sequence[int], seconds: Sequence[float]) -> Line:
        """The line that fits best of those that neither fall nor begin below zero.

        Where batches are nearly the same, a slow moment of the machine would tilt it as it likes.
        """
        level = Line(statistics.fmean(seconds), 0.0)
        if len(set(steps)) == 1:
            return level
        slope, constant = np.polyfit(steps, seconds, 1)
        if slope < 0:
            return level
        if constant < 0:
            return Line(0.0, float(np.dot(steps, seconds) / np.dot(steps, steps)))
        return Line(float(constant), float(slope))


@dataclass(frozen=True)
class Speed:
    """Seconds of a training batch and of a test batch, and the matrix rate that goes with them."""

    step: Line
    test: Line
    # operations a second, of `matrix_rate`
    rate: float

    def at(self, rate: float) -> Speed:
        """The same where the machine has another rate, as it has with other neighbours."""
        slower = self.rate / rate
        return Speed(self.step.times(slower), self.test.times(slower), rate)


@dataclass(frozen=True)
class BatchShape:
    """The videos of a batch: so many, padded to the longest."""

    videos: int
    length: int

    @property
    def steps(self) -> int:
        return self.videos * self.length


@dataclass(frozen=True)
class Batches:
    """The videos of all batches of every epoch of a training, and of an evaluation."""

    training: Sequence[Sequence[BatchShape]]
    test: Sequence[BatchShape]


def batches_of(experiment: Experiment, train: Sequence[int], test: Sequence[int]) -> Batches:
    """The batches of videos of so many steps, in the orders of a training.

    Crops are drawn as training does, but once: epochs differ in what is padded to what.
    """
    data, rng = experiment.data, random.Random(0)
    if data.loader == "resize":
        assert data.resize_length is not None
        train, test = [data.resize_length] * len(train), [data.resize_length] * len(test)
    longest, crop_ratio = data.random_trunc.length, data.random_trunc.crop_ratio
    crops = [steps_kept(length, longest, crop_ratio, rng) for length in train]
    epochs, batch_size = [], experiment.training.batch_size
    for epoch in range(experiment.training.epochs):
        ordered = [crops[i] for i in order_of(len(train), epoch)]
        firsts = range(0, len(ordered), batch_size)
        groups = [ordered[first : first + batch_size] for first in firsts]
        epochs.append([BatchShape(len(group), max(group)) for group in groups])
    inputs: list[int] = []
    for length in test:
        if data.loader == "sliding":
            assert data.window_size is not None
            step = max(int(data.window_size * (1 - data.window_overlap_ratio)), 1)
            inputs += [min(length, data.window_size)] * max(1, round(length / step))
        else:
            inputs.append(min(length, data.test_pad_length or length))
    batch_size = experiment.inference.batch_size
    together = of_like_lengths(inputs, experiment.model, batch_size=batch_size)
    # the longest stands first
    tests = [BatchShape(len(places), inputs[places[0]]) for places in together]
    return Batches(epochs, tests)


def training_seconds(experiment: Experiment, batches: Batches, speed: Speed) -> float:
    """Of one seed: all epochs, and an evaluation after each from `first_eval_epoch` on."""
    training = experiment.training
    evaluations = max(training.epochs - training.first_eval_epoch, 0)
    trained = sum(speed.step.seconds(epoch) for epoch in batches.training)
    return trained + evaluations * speed.test.seconds(batches.test)


# ---------------------------------------------------------------------------------------- measured


def batch_of(experiment: Experiment, lengths: Sequence[int], generator: torch.Generator) -> Batch:
    """Random features of these lengths, padded to the longest, with a dozen segments each."""
    C, T = experiment.model.in_channels, max(lengths)
    features_BCT = torch.randn(len(lengths), T, C, generator=generator).transpose(1, 2)
    mask_BT = torch.arange(T) < torch.tensor(lengths)[:, None]
    segments, labels = [], []
    for length in lengths:
        start = torch.rand(SEGMENTS, generator=generator) * length * 0.8
        end = start + 2 + torch.rand(SEGMENTS, generator=generator) * length * 0.2
        segments.append(torch.stack([start, end], 1))
        classes = experiment.model.num_classes
        labels.append(torch.randint(classes, (SEGMENTS,), generator=generator))
    return Batch(features_BCT * mask_BT[:, None], mask_BT, segments, labels)


class Trainer:
    """A network with its optimiser and average, ready for steps."""

    def __init__(self, experiment: Experiment, device: str = "cpu") -> None:
        params = experiment.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = ActionFormer(experiment.model, params.precision).train().to(device)
        ema, optimizer = WeightAverage(self.model, params.ema_decay), adamw(self.model, params)
        self._step, self._lengths = step_of(self.model, ema, optimizer, params)

    def step(self, batch: Batch) -> None:
        """One iteration, waited for."""
        if self._lengths:
            batch = padded(batch, self.model.params.max_seq_len, self._lengths)
        losses, norm = self._step(batch, lr=1e-5)
        float(losses.total.detach()), float(norm)


def measured(experiment: Experiment, batches: Batches, device: str) -> Speed:
    """How fast this row's batches are on this device.

    A machine that others share is half as fast for some seconds or minutes: every time is taken
    between two looks at the rate of matrix products, and told at the one that is usual.
    """
    trainer = Trainer(experiment, device)
    generator = torch.Generator().manual_seed(0)
    rates = [matrix_rate(device)]

    def line(shapes: Sequence[BatchShape], run: Callable[[Batch], None]) -> Line:
        """Through what some of these batches take, in products of matrices."""
        by_steps = {shape.steps: shape for shape in shapes}
        ordered = sorted(shape.steps for shape in shapes)
        chosen = sorted({ordered[int(place * (len(ordered) - 1))] for place in MEASURED_AT})
        products = []
        for steps in chosen:
            shape = by_steps[steps]
            batch = batch_of(experiment, [shape.length] * shape.videos, generator)
            batch = batch.each(lambda tensor: tensor.to(device))
            seconds = _typical(partial(run, batch), warm=1 if device == "cpu" else 2)
            rates.append(matrix_rate(device))
            products.append(seconds * statistics.fmean(rates[-2:]))
            interrupts.check()
        return Line.through(chosen, products)

    step = line([shape for epoch in batches.training for shape in epoch], trainer.step)
    network = trainer.model.eval()

    @torch.inference_mode()
    def forward(batch: Batch) -> None:
        levels = network(batch.features_BCT, batch.mask_BT)
        float(levels[-1].logits_BTK.sum())  # waits for a GPU

    with weights_stay(network):
        test = line(batches.test, forward)
    rate = statistics.median(rates)
    return Speed(step.times(1 / rate), test.times(1 / rate), rate)


def _typical(work: Callable[[], object], warm: int) -> float:
    """Seconds of a call after `warm` ones, of which a GPU may record the second; a mean."""
    times = []
    for _ in range(warm + REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.fmean(times[warm:])


# ---------------------------------------------------------------------------------------- reckoned


def forward_flops(params: ModelParams, length: int) -> float:
    """Floating-point operations of one video of `length` steps through the network."""
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        network = ActionFormer(params).eval()
        features_BCT = torch.empty(1, params.in_channels, length)
        network(features_BCT, torch.ones(1, length, dtype=torch.bool))
    return float(counted.get_total_flops())


def reckoned(experiment: Experiment, rate: float) -> Speed:
    """The same as `measured`, from operations and how many there are a second."""
    length = experiment.model.max_seq_len
    one_step = forward_flops(experiment.model, length) / length / rate
    return Speed(Line(0.0, one_step * (1 + BACKWARD)), Line(0.0, one_step), rate)


def matrix_rate(device: str, repeats: int = 3) -> float:
    """Operations a second of float32 products of 2048 x 2048 matrices, the median of several."""
    a, b = torch.randn(2, MATRIX, MATRIX, device=device)
    times = []
    for _ in range(WARM_UP + repeats):
        began = time.perf_counter()
        _ = a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * MATRIX**3 / statistics.median(times[WARM_UP:])
