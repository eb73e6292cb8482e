"""ActionFormer's published results, reproducible from data to table."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionformer.api import (
        ActionFormer,
        Experiment,
        load_experiment,
        load_published,
        predict,
        published_model,
    )

__version__ = "0.1.0"

__all__ = [
    "ActionFormer",
    "Experiment",
    "__version__",
    "load_experiment",
    "load_published",
    "predict",
    "published_model",
]


def __getattr__(name: str) -> Any:
    """A name of `actionformer.api`, imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from actionformer import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
