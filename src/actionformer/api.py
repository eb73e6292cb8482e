"""What `from actionformer import ...` gives, and what stays as it is: the facade above all rooms.

load_experiment   a row of the tables with every value resolved
Experiment        what that is
ActionFormer      the network and its loss; from_pretrained: with trained weights, to detect
predict           detections in videos or feature files, with trained weights
train             a row with one seed
evaluate          scores of any detections
detections        any detections as a table
plot_timeline     ground truth and detections of a video
load_published    the tensors of a published checkpoint
published_model   the network that they are the weights of
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from actionformer.params.experiment import Experiment
from actionformer.params.files import load_experiment

if TYPE_CHECKING:
    from actionformer.facade import (
        ActionFormer,
        detections,
        evaluate,
        plot_timeline,
        predict,
        train,
    )
    from actionformer.model.state_dict_adapter import published_model
    from actionformer.training.checkpoint import load_published

__all__ = [
    "ActionFormer",
    "Experiment",
    "detections",
    "evaluate",
    "load_experiment",
    "load_published",
    "plot_timeline",
    "predict",
    "published_model",
    "train",
]

# what needs torch, which takes seconds to import: module and name there
NEEDS_TORCH = {
    "ActionFormer": ("actionformer.facade", "ActionFormer"),
    "detections": ("actionformer.facade", "detections"),
    "evaluate": ("actionformer.facade", "evaluate"),
    "load_published": ("actionformer.training.checkpoint", "load_published"),
    "plot_timeline": ("actionformer.facade", "plot_timeline"),
    "predict": ("actionformer.facade", "predict"),
    "published_model": ("actionformer.model.state_dict_adapter", "published_model"),
    "train": ("actionformer.facade", "train"),
}


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for."""
    if name not in NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, name_there = NEEDS_TORCH[name]
    return getattr(import_module(module), name_there)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
