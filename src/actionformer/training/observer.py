"""Who looks on while a network is trained.

Training gives the same weights whoever looks on, or nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

# what is measured of one epoch
Record = dict[str, float]


class Observer:
    """Looks on and does nothing; subclasses log, print, stop."""

    def started(
        self,
        run_id: str | None,
        history: Sequence[Record],
        trained_by: Sequence[Mapping[str, Any]],
    ) -> str | None:
        """Training begins, or goes on after the epochs of `history`.

        Args:
            run_id: what this method returned when this run first began, which the checkpoint keeps.
            trained_by: who trained which of the epochs so far.
        """
        return run_id

    def watching(self) -> AbstractContextManager[None]:
        """A context that is open while epochs run."""
        return nullcontext()

    def epoch_finished(self, epoch: int, record: Record) -> None:
        """Called once with every finished epoch, counted from 0, when its checkpoint is on disk."""

    def ended(self, trained_by: Sequence[Mapping[str, Any]]) -> None:
        """All epochs are trained and `model.pt` is written.

        `trained_by` says who trained which of them.
        """
