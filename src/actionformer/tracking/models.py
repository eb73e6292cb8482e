"""Trained networks as models that MLflow loads and serves, registered for their row."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import FileLock
from mlflow import pyfunc
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from actionformer.detection.timing import AS_TRAINED, OF_A_VIDEO
from actionformer.files.md5 import file_md5
from actionformer.params.experiment import Experiment
from actionformer.tracking.artifacts import linked
from actionformer.tracking.store import (
    LOCK,
    as_default_store,
    is_local,
    make_addresses_relative,
    tag_of,
)

# MLflow's limit
LONGEST_DESCRIPTION = 5000


def log_model(client: MlflowClient, run_id: str, run: Path, experiment: Experiment) -> None:
    """The trained network as a model that MLflow loads and serves, registered for its row.

    Its weights are a link to the run's model.pt where the store lies here.
    """
    weights = run / "model.pt"
    if not weights.exists():
        return  # a published checkpoint, or actions fused from two runs
    md5 = file_md5(weights)
    if tag_of(client, run_id, "model") == md5:
        return
    made = client.get_run(run_id)
    _remove_unfinished(client, made)
    model = client.create_logged_model(
        made.info.experiment_id,
        name=_model_name(experiment.name),
        source_run_id=run_id,
        model_type="actionformer",
        tags={"row": experiment.name, "edition": experiment.edition, "weights": md5},
    )
    make_addresses_relative()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        with warnings.catch_warnings():
            # MLflow would run the network on an example it is given; the file is written below.
            # In a terminal it says so in colour.
            warnings.filterwarnings("ignore", ".*An input example was not provided")
            pyfunc.save_model(
                path,
                loader_module="actionformer.serving",
                data_path=str(weights),
                signature=_signature(experiment),
                # none that could be installed from an index: this project is no package there
                pip_requirements=[],
                metadata={"row": experiment.name, "edition": experiment.edition},
            )
        example = {"inputs": np.zeros((4, experiment.features.dim)).tolist()}
        (path / "serving_input_example.json").write_text(json.dumps(example))
        client.log_model_artifacts(model.model_id, str(path))
    _link_weights(client.get_logged_model(model.model_id).artifact_location, weights)
    client.finalize_logged_model(model.model_id, "READY")
    name = registered_name(experiment)
    with FileLock(LOCK), suppress(MlflowException):
        client.create_registered_model(name)  # unless it is there
    with as_default_store():
        client.create_model_version(
            name,
            f"models:/{model.model_id}",
            run_id=run_id,
            model_id=model.model_id,
            tags={"seed": made.data.tags["seed"]},
        )
    make_addresses_relative()
    client.set_tag(run_id, "model", md5)


def _remove_unfinished(client: MlflowClient, made: Run) -> None:
    """Take away models of a run that a killed process has begun: no version leads to them.

    Of this folder's store alone: on a server another machine may be logging one.
    """
    if not is_local():
        return
    versions = client.search_model_versions(f"run_id = '{made.info.run_id}'")
    # a version that is searched for has no model_id
    finished = {version.source.removeprefix("models:/") for version in versions}
    begun = client.search_logged_models(
        [made.info.experiment_id], f"source_run_id = '{made.info.run_id}'"
    )
    for model in begun:
        if model.model_id not in finished:
            client.delete_logged_model(model.model_id)
            shutil.rmtree(_local_path(model.artifact_location), ignore_errors=True)


def _local_path(address: str) -> Path:
    """Where artifacts lie whose address leads into this machine's file system."""
    return Path(address.removeprefix("file://"))


def _link_weights(address: str, weights: Path) -> None:
    """Let a stored model's weights be the run's own file, where both lie on one disk."""
    stored = _local_path(address) / "data" / weights.name
    if "://" in address.removeprefix("file://") or not stored.exists():
        return
    linked(weights, stored)  # on another disk it stays a copy


def _signature(experiment: Experiment) -> ModelSignature:
    """Features of one video and its timing in; a table of detections out."""
    timing = [ParamSpec(name, "double", AS_TRAINED) for name in OF_A_VIDEO]
    columns = [ColSpec("string", "label")]
    columns += [ColSpec("double", name) for name in ("start", "end", "score")]
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, experiment.features.dim))]),
        outputs=Schema(columns),
        params=ParamSchema(timing),
    )


def registered_name(experiment: Experiment) -> str:
    """What a row's models are registered as."""
    return _model_name(f"{experiment.edition}-{experiment.name}")


def _model_name(name: str) -> str:
    """A name without what MLflow forbids in names of models."""
    return re.sub(r"[/:.%\"']", "_", name)


def describe_model(client: MlflowClient, experiment: Experiment, card: str) -> None:
    """Let a row's card be the description of its registered model."""
    name = registered_name(experiment)
    description = card.split("---\n", 2)[-1].strip()[:LONGEST_DESCRIPTION]
    for model in client.search_registered_models(f"name = '{name}'"):
        if model.description != description:
            client.update_registered_model(name, description=description)
