"""What `from actionformer import ...` gives, and what stays as it is: the facade above all rooms.

load_experiment   a row of the tables with every value resolved
Experiment        what that is
ActionFormer      the network and its loss
predict           detections in feature files, with trained weights
"""

from __future__ import annotations

from actionformer.detection.from_files import predict_files as predict
from actionformer.model.actionformer import ActionFormer
from actionformer.params.experiment import Experiment
from actionformer.params.files import load_experiment

__all__ = ["ActionFormer", "Experiment", "load_experiment", "predict"]
