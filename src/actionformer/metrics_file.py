"""metrics.json of a run, read and checked: what tables, figures and MLflow tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from actionformer.errors import InputError
from actionformer.files.reading import read_object

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Git(BaseModel):
    commit: StrictStr
    dirty: StrictBool


class Environment(BaseModel):
    """What a computation was installed from, and may say more of."""

    lock: StrictStr


class Session(BaseModel):
    """Who trained which epochs, counted from 0."""

    first_epoch: StrictInt
    last_epoch: StrictInt
    git: Git
    device: StrictStr
    environment: Environment
    precision: StrictStr = "float32"


class Evaluation(BaseModel):
    """Who evaluated a run; of a published checkpoint, on which machine, too."""

    git: Git
    lock: StrictStr | None = None
    environment: Environment | None = None

    @model_validator(mode="after")
    def _has_lock(self) -> Evaluation:
        if self.lock is None and self.environment is None:
            raise ValueError("lacks the lock of its environment")
        return self


class Lineage(BaseModel):
    """What a run was made of."""

    identity: StrictStr
    params: StrictStr
    data_version: StrictStr
    pinned: StrictBool
    files: dict[str, StrictStr]
    trained_by: list[Session]
    evaluated_by: Evaluation | None = None


class PerClass(BaseModel):
    instances: StrictInt
    ap: list[Number]


class Metrics(BaseModel):
    """The numbers of an evaluation, under their names; of actions there are none per class."""

    percent: dict[str, Number]
    videos: StrictInt
    instances: StrictInt
    classes: dict[str, PerClass] = {}


def whole_metrics(path: Path, tiou: Sequence[float] = ()) -> dict[str, Any]:
    """`read_metrics` of a file that says where its numbers come from.

    Raises:
        InputError: what `read_metrics` raises, and a file of an earlier version.
    """
    metrics = read_metrics(path, tiou)
    if not {"made_with", "lineage"} <= set(metrics):
        raise InputError(f"{path}: of an earlier version; `actionformer adopt` takes it over")
    return metrics


def read_metrics(path: Path, tiou: Sequence[float] = ()) -> dict[str, Any]:
    """What an evaluation has written: numbers that are numbers, under their names.

    Of a row whose published checkpoint is another row's it holds none, but why (`none`).

    Args:
        tiou: thresholds of which it must hold the mAP.

    Raises:
        InputError: no such file, a missing key, or something else in the place of a number.
    """
    metrics = read_object(path)
    if not {"made_with", "lineage"} <= set(metrics):
        # of an earlier version, which `actionformer adopt` takes over
        return metrics
    try:
        Lineage.model_validate(metrics["lineage"])
        if "none" in metrics:
            return metrics
        Metrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(f"{path}: {wrong}; evaluate again, which writes it anew") from None
    known = [name.rpartition("mAP/")[2] for name in metrics["percent"] if "mAP/" in name]
    for name in ("average", *(f"{threshold:g}" for threshold in tiou)):
        if name not in known:
            raise InputError(f"{path}: lacks mAP/{name}; evaluate again, which writes it anew")
    return metrics
