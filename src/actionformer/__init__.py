"""ActionFormer's published results, reproducible from data to table."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionformer.api import ActionFormer, Experiment, load_experiment, predict

__all__ = ["ActionFormer", "Experiment", "load_experiment", "predict"]


def __getattr__(name: str) -> Any:
    """A name of `actionformer.api`, imported when it is asked for: that imports torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from actionformer import api

    return getattr(api, name)
