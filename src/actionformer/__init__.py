"""ActionFormer's published results, reproducible from data to table."""

from typing import TYPE_CHECKING, Any

from actionformer.experiment import Experiment, load_experiment

if TYPE_CHECKING:
    from actionformer.detection.from_files import predict_files as predict
    from actionformer.model.actionformer import ActionFormer

__all__ = ["ActionFormer", "Experiment", "load_experiment", "predict"]


def __getattr__(name: str) -> Any:
    """Import torch only where the network is used: most commands don't."""
    if name == "ActionFormer":
        from actionformer.model.actionformer import ActionFormer

        return ActionFormer
    if name == "predict":
        from actionformer.detection.from_files import predict_files

        return predict_files
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
