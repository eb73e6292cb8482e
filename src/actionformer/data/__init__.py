"""From publishers' files to batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionformer.data.view import random_truncation, views

__all__ = ["random_truncation", "views"]


def __getattr__(name: str) -> Any:
    """Import torch only where views are used: converting, packing and evaluating don't."""
    if name in __all__:
        from actionformer.data import view

        return getattr(view, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
