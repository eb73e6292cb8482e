"""Batches: which videos, in which order, with which random draws, and how they are put together."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from actionformer.data.view import Sample, View
from actionformer.params.experiment import ModelParams

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

# threads that read, crop and resample the next batches while a step runs
WORKERS = 2


@dataclass(frozen=True)
class Batch:
    """Several samples as one: features (B, C, T), mask (B, T), and each sample's ground truth.

    T is the length of the longest sample.
    """

    features_BCT: Tensor
    mask_BT: Tensor
    segments: list[Tensor]
    labels: list[Tensor]

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        return [self.features_BCT, self.mask_BT, *self.segments, *self.labels]

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with every tensor changed."""
        return Batch(
            change(self.features_BCT),
            change(self.mask_BT),
            [change(segments_G2) for segments_G2 in self.segments],
            [change(labels_G) for labels_G in self.labels],
        )


def sent(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    """The batches on a device.

    To a CUDA device a batch is copied beside the steps before it, whose results nobody waits for.
    """
    if not device.startswith("cuda"):
        for batch in batches:
            yield batch.each(lambda tensor: tensor.to(device))
        return
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def copied(tensor: Tensor) -> Tensor:
        result = tensor.pin_memory().to(device, non_blocking=True)
        # its memory must not be given away while steps still read it
        result.record_stream(computing)
        return result

    for batch in batches:
        with torch.cuda.stream(copying):
            there = batch.each(copied)
        computing.wait_stream(copying)
        yield there


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples together, without the padding that none of them needs."""
    length = max(int(sample.mask_T.sum()) for sample in samples)
    channels = samples[0].features_CT.shape[0]
    # numpy copies with one thread: torch would start more beside those of the step
    features_BTC = np.zeros((len(samples), length, channels), np.float32)
    mask_BT = np.zeros((len(samples), length), bool)
    for b, sample in enumerate(samples):
        steps = min(length, sample.features_CT.shape[1])
        features_BTC[b, :steps] = sample.features_CT[:, :steps].T.numpy()
        mask_BT[b, :steps] = sample.mask_T[:steps].numpy()
    return Batch(
        torch.from_numpy(features_BTC).transpose(1, 2),
        torch.from_numpy(mask_BT),
        [sample.segments_G2 for sample in samples],
        [sample.labels_G for sample in samples],
    )


def padded(batch: Batch, longest: int, parts: int, segments: int = 0) -> Batch:
    """The batch in one of few shapes: padded to the next of `parts` equal parts of `longest`.

    Padding is safe: what stands beyond a video's last step and one step of every level changes
    nothing (METHOD section 6), and no point lies inside a segment (0, 0).

    Args:
        segments: that every video is given at least, the missing ones (0, 0).
    """
    length = batch.mask_BT.shape[1]
    part = -(-longest // parts)
    missing = -(-length // part) * part - length
    features_BTC = F.pad(batch.features_BCT.transpose(1, 2), (0, 0, 0, missing))
    segments_of, labels_of = [], []
    for segments_G2, labels_G in zip(batch.segments, batch.labels, strict=True):
        none = max(segments - len(labels_G), 0)
        segments_of.append(F.pad(segments_G2, (0, 0, 0, none)))
        labels_of.append(F.pad(labels_G, (0, none)))
    mask_BT = F.pad(batch.mask_BT, (0, missing))
    return Batch(features_BTC.transpose(1, 2), mask_BT, segments_of, labels_of)


def training_batches(
    views: Sequence[View], *, batch_size: int, epoch: int, seed: int, workers: int = WORKERS
) -> Iterator[Batch]:
    """One epoch, read ahead by so many threads.

    The order depends on the epoch alone; the crops on seed, epoch and place in the database.
    """
    order = order_of(len(views), epoch)

    def load(places: Sequence[int]) -> Batch:
        samples = []
        for i in places:
            rng = random.Random(f"{seed}/{epoch}/{i}")
            samples.append(views[i].load(rng))
        return collate(samples)

    # the last batch may be smaller: it is used, as published
    firsts = range(0, len(order), batch_size)
    return _ahead(load, [order[first : first + batch_size] for first in firsts], workers)


def order_of(count: int, epoch: int) -> list[int]:
    """The order of so many training videos in an epoch: by their places in the database.

    As published: the same in every run, whatever its seed.
    """
    generator = torch.Generator().manual_seed(epoch)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def of_like_lengths(
    lengths: Sequence[int], params: ModelParams, *, batch_size: int
) -> list[list[int]]:
    """Places of the inputs of every test batch, the longest ones first.

    A batch has, with what the network pads, as many steps as `batch_size` inputs of `max_seq_len`,
    so that short inputs, of which one alone takes nearly as long as several, come together. One
    that is longer is alone: a position table is stretched over it, and over it only
    (`Backbone.forward`).
    """
    longest = params.max_seq_len
    room = batch_size * longest
    batches: list[list[int]] = []
    padded_to = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batches and padded_to <= longest and (len(batches[-1]) + 1) * padded_to <= room:
            batches[-1].append(place)
        else:
            batches.append([place])
            padded_to = params.padded_length(lengths[place])
    return batches


def batches_of_views(batches: Iterable[Sequence[View]]) -> Iterator[Batch]:
    """Test views, put together as they are given, read ahead."""

    def load(chosen: Sequence[View]) -> Batch:
        rng = random.Random(0)  # test views draw nothing
        return collate([view.load(rng) for view in chosen])

    return _ahead(load, batches, WORKERS)


def _ahead(load: Callable[[Item], Loaded], items: Iterable[Item], workers: int) -> Iterator[Loaded]:
    """What `load` makes of every item, in their order, begun before it is asked for."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
    try:
        begun: deque[Future[Loaded]] = deque()
        for item in items:
            begun.append(pool.submit(load, item))
            if len(begun) > workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
