"""Detections against ground truth. Knows neither torch nor the network."""

from actionformer.evaluation.average_precision import AveragePrecision, mean_average_precision
from actionformer.evaluation.recall import Recall, recall_at_kx

__all__ = ["AveragePrecision", "Recall", "mean_average_precision", "recall_at_kx"]
