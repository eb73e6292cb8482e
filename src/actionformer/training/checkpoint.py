"""Files of a run: `checkpoint.pt` to go on from, `model.pt` to use. Both load with `weights_only=True`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from actionformer.errors import InputError
from actionformer.experiment import Experiment, stored_experiment
from actionformer.files import atomic_path
from actionformer.model.actionformer import ActionFormer


def save(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as part:
        torch.save(content, part)


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint or model file, on the CPU."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; train the row first") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a complete checkpoint ({reason}); delete it and train again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint of this project")
    return content


def load_model(path: Path) -> tuple[ActionFormer, Experiment, list[str]]:
    """The network with its weights, the experiment it was trained with, and its class names, from `model.pt`."""
    content = load(path)
    missing = {"state_dict", "experiment", "classes"} - set(content)
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; not a model.pt of this project")
    experiment = stored_experiment(content["experiment"], str(path))
    model = ActionFormer(experiment.model)
    model.load_state_dict(content["state_dict"])
    return model.eval(), experiment, list(content["classes"])
