"""Networks over test views, batch by batch: what they say of every view, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from actionformer.data.loader import batches_of_views, of_like_lengths, sent
from actionformer.data.view import View
from actionformer.model.actionformer import ActionFormer, Level
from actionformer.model.layers import weights_stay
from actionformer.progress import progress


def levels_of_views(
    networks: Sequence[ActionFormer],
    views: Sequence[View],
    *,
    batch_size: int,
    device: str,
    what: str,
) -> Iterator[tuple[int, list[list[Level]]]]:
    """The place of every view, the longest first, with the levels of each network: batches of one.

    A GPU computes a batch while the caller works on the one before. The networks' weights have to
    stay as they are until the last view has come.

    Args:
        batch_size: as `of_like_lengths` has it, of inputs as long as the networks' `max_seq_len`.
        what: stands beside the bar that shows how far it is.
    """
    lengths = [view.steps for view in views]
    places = of_like_lengths(lengths, networks[0].params, batch_size=batch_size)
    groups = [[views[place] for place in places_B] for places_B in places]
    batches = sent(batches_of_views(groups), device)
    shown = progress(batches, what, unit="batch", total=len(places))
    before: _OnTheWay | None = None
    with weights_stay(*networks):
        for places_B, batch in zip(places, shown, strict=True):
            levels = [network(batch.features_BCT, batch.mask_BT) for network in networks]
            begun = _OnTheWay(places_B, levels, device)
            if before is not None:
                yield from before.arrived()
            before = begun
    if before is not None:
        yield from before.arrived()


class _OnTheWay:
    """What networks say of a batch, on its way to the CPU, which asks a GPU for it once."""

    def __init__(
        self, places_B: Sequence[int], of_networks: Sequence[Sequence[Level]], device: str
    ) -> None:
        self._places_B = places_B
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

    def arrived(self) -> Iterator[tuple[int, list[list[Level]]]]:
        """Its views' places and levels, once all is there."""
        if self._event is not None:
            self._event.synchronize()
        for b, place in enumerate(self._places_B):
            yield place, [[level.sample(b) for level in levels] for levels in self._levels]
