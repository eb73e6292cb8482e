"""Networks over test views, batch by batch: what they say of every view, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from actionformer.data.loader import ordered_batches, sent
from actionformer.data.view import View
from actionformer.model.actionformer import Level
from actionformer.model.layers import weights_stay
from actionformer.progress import progress


def levels_of_views(
    networks: Sequence[nn.Module], views: Sequence[View], *, batch_size: int, device: str, what: str
) -> Iterator[tuple[View, list[list[Level]]]]:
    """Every view in order, with the levels of each network: batches of one.

    A GPU computes a batch while the caller works on the one before. The networks' weights have to
    stay as they are until the last view has come.

    Args:
        what: stands beside the bar that shows how far it is.
    """
    groups = [views[first : first + batch_size] for first in range(0, len(views), batch_size)]
    batches = sent(ordered_batches(views, batch_size=batch_size), device)
    shown = progress(batches, what, unit="batch", total=len(groups))
    before: _OnTheWay | None = None
    with weights_stay(*networks):
        for group, batch in zip(groups, shown, strict=True):
            levels = [network(batch.features_BCT, batch.mask_BT) for network in networks]
            begun = _OnTheWay(group, levels, device)
            if before is not None:
                yield from before.arrived()
            before = begun
    if before is not None:
        yield from before.arrived()


class _OnTheWay:
    """What networks say of a batch, on its way to the CPU, which asks a GPU for it once."""

    def __init__(
        self, group: Sequence[View], of_networks: Sequence[Sequence[Level]], device: str
    ) -> None:
        self._group = group
        self._event: torch.cuda.Event | None = None
        cuda = device.startswith("cuda")

        def fetched(tensor: Tensor) -> Tensor:
            return tensor.to("cpu", non_blocking=cuda)

        self._levels = []
        for levels in of_networks:
            self._levels.append([level.each(fetched) for level in levels])
        if cuda:
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(device))

    def arrived(self) -> Iterator[tuple[View, list[list[Level]]]]:
        """Its views, once all is there."""
        if self._event is not None:
            self._event.synchronize()
        for b, view in enumerate(self._group):
            yield view, [[level.sample(b) for level in levels] for levels in self._levels]
