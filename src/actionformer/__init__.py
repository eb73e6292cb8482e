"""ActionFormer's published results, reproducible from data to table."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionformer.api import (
        ActionFormer,
        Experiment,
        detections,
        evaluate,
        load_experiment,
        load_published,
        plot_timeline,
        predict,
        published_model,
        train,
    )

__version__ = "0.1.0"

__all__ = [
    "ActionFormer",
    "Experiment",
    "__version__",
    "detections",
    "evaluate",
    "load_experiment",
    "load_published",
    "plot_timeline",
    "predict",
    "published_model",
    "train",
]


def __getattr__(name: str) -> Any:
    """A name of `actionformer.api`, imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from actionformer import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
