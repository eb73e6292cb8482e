"""Batches: which videos, in which order, with which random draws, and how they are put together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actionformer.data.view import Sample, View


@dataclass(frozen=True)
class Batch:
    """Several samples as one: features (B, C, T), mask (B, T), and each sample's ground truth.

    T is the length of the longest sample.
    """

    features_BCT: Tensor
    mask_BT: Tensor
    segments: list[Tensor]
    labels: list[Tensor]

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
    features_BTC = torch.zeros(len(samples), length, channels)
    mask_BT = torch.zeros(len(samples), length, dtype=torch.bool)
    for b, sample in enumerate(samples):
        steps = min(length, sample.features_CT.shape[1])
        features_BTC[b, :steps] = sample.features_CT[:, :steps].T
        mask_BT[b, :steps] = sample.mask_T[:steps]
    return Batch(
        features_BTC.transpose(1, 2),
        mask_BT,
        [sample.segments_G2 for sample in samples],
        [sample.labels_G for sample in samples],
    )


def training_batches(
    views: Sequence[View], *, batch_size: int, epoch: int, seed: int
) -> Iterator[Batch]:
    """One epoch.

    The order depends on the epoch alone; the crops on seed, epoch and place in the database.
    """
    # as published: the same order in every run, whatever its seed
    order = torch.randperm(len(views), generator=torch.Generator().manual_seed(epoch)).tolist()
    for first in range(0, len(order), batch_size):
        samples = []
        # the last batch may be smaller: it is used, as published
        for i in order[first : first + batch_size]:
            rng = random.Random(f"{seed}/{epoch}/{i}")
            samples.append(views[i].load(rng))
        yield collate(samples)


def test_batches(
    views: Sequence[View], *, batch_size: int
) -> Iterator[tuple[Sequence[View], Batch]]:
    """All views in order, `batch_size` at a time."""
    rng = random.Random(0)  # test views draw nothing
    for first in range(0, len(views), batch_size):
        chosen = views[first : first + batch_size]
        yield chosen, collate([view.load(rng) for view in chosen])
