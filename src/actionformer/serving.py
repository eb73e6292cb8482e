"""A run's weights as MLflow loads and serves them (pyfunc): features in, detections out.

`mlflow models serve` and `mlflow.pyfunc.load_model` call `_load_pyfunc` with the path of a
`model.pt`; no code and no pickle is stored with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from actionformer.detection.timing import AS_TRAINED, OF_A_VIDEO
from actionformer.errors import InputError
from actionformer.facade import ActionFormer, detections

NAME = "features"


class Served:
    """Trained weights behind MLflow's interface."""

    def __init__(self, model: ActionFormer) -> None:
        self._model = model

    def predict(self, model_input: Any, params: Mapping[str, float] | None = None) -> pd.DataFrame:
        """Detections in the features of one video: label, start, end (seconds), score.

        Args:
            model_input: (steps, channels).
            params: `fps`, `stride`, `offset` and `duration` of the video; below 0: as trained.

        Raises:
            MlflowException: features of another shape; no frame rate. Its server says why.
        """
        given = {}
        for name in OF_A_VIDEO:
            value = float((params or {}).get(name, AS_TRAINED))
            given[name] = None if value < 0 else value
        try:
            found = self._model.predict(np.asarray(model_input, np.float32), **given)
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return detections({NAME: found}).drop(columns="video")


def _load_pyfunc(path: str) -> Served:
    return Served(ActionFormer.from_pretrained(Path(path)))
