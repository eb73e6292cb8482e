"""The optimiser, its schedule, the loop, checkpoints."""

from actionformer.training.optimizer import learning_rate, parameter_groups

__all__ = ["learning_rate", "parameter_groups"]
