"""Files of a run: `checkpoint.pt` to go on from, `model.pt` to use.

A finished training's checkpoint keeps its averaged weights and history alone (`slim`).

Both load with `weights_only=True`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actionformer.errors import InputError, first_line
from actionformer.files.archives import check_sums
from actionformer.files.writing import atomic_path
from actionformer.model.actionformer import ActionFormer
from actionformer.params.experiment import Experiment
from actionformer.params.stored import stored_experiment
from actionformer.training import packing

# of numbers in weights
KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint or model file; equal content makes equal bytes.

    Raises:
        NoRoom: the disk is full; the file that was there stays.
    """
    with atomic_path(path, _bytes_of(content)) as part, part.open("wb") as file:
        try:
            torch.save(content, file)  # given a path, it would write the file's name into the file
        except RuntimeError as error:
            # torch says where in the archive it was, and not what the disk said
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training's `checkpoint.pt`; otherwise as `save`."""
    save(path, packing.packed(state))


def _bytes_of(content: Any) -> int:
    """How many bytes the tensors in a content take."""
    if isinstance(content, Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        return sum(_bytes_of(value) for value in content.values())
    return 0


def load(path: Path, *, maker: str = "train", tensors: bool = True) -> dict[str, Any]:
    """The content of a checkpoint or model file, on the CPU.

    torch reads a file in which a byte has changed as if nothing were wrong: the checksums that the
    file itself holds are compared before.

    Args:
        maker: the command that makes such files.
        tensors: False leaves the tensors' bytes on disk: only what is said beside them may be used.
    """
    try:
        check_sums(path, _any_part if tensors else _is_no_tensor)
        # torch warns of kinds of tensors that nobody writes any more; what is wrong is said below
        with (
            torch.serialization.safe_globals(_numpy_scalars()),
            warnings.catch_warnings(action="ignore"),
        ):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=not tensors)
        if isinstance(content, dict) and packing.is_packed(content):
            content = packing.unpacked(content, copy=tensors)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {maker} first") from None
    except Exception as error:  # a damaged file can raise anything
        reason = first_line(error)
        raise InputError(
            f"{path}: not a complete checkpoint ({reason}); delete it and {maker} again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint of this project")
    return content


def refuse_odd_state(state: Mapping[str, Any], epochs: int) -> None:
    """Raise `ValueError` where a checkpoint says something else than a training has written.

    Args:
        epochs: of the whole training.
    """
    keys = {"history": {"loss/total", "seconds"}, "trained_by": {"first_epoch", "last_epoch"}}
    for name, expected in keys.items():
        records = state[name]
        if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
            raise ValueError(f"{name} is no list of records")
        for record in records:
            if not all(isinstance(record.get(key), int | float) for key in expected):
                raise ValueError(f"a record of {name} lacks {' or '.join(sorted(expected))}")
    if len(state["history"]) > epochs:
        raise ValueError(f"{len(state['history'])} epochs, the training has {epochs}")
    if not isinstance(state["run_id"], str | None):
        raise ValueError("run_id is no text")


def refuse_odd_moments(state: Any, optimizer: torch.optim.Optimizer, *, stepped: bool) -> None:
    """Raise `ValueError` for moments that aren't the optimiser's, which torch takes as they are.

    It would go on with other weights, or write outside of a tensor that is too small.

    Args:
        stepped: has it taken a step? Before its first it has no moments, then those of all weights.
    """
    moments = state["state"]
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    count = len(parameters) if stepped else 0
    if set(moments) != set(range(count)):
        raise ValueError(f"moments of {len(moments)} weights, expected those of {count}")
    for place, kept in moments.items():
        shape = parameters[place].shape
        for name, expected in {"step": (), "exp_avg": shape, "exp_avg_sq": shape}.items():
            tensor = kept.get(name)
            if not torch.is_tensor(tensor) or tensor.dtype != torch.float32:
                raise ValueError(f"{name} of weight {place} is no tensor of float32")
            if tensor.shape != expected or not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} of weight {place} has another shape, or no finite number")


def _any_part(name: str) -> bool:
    return True


def _is_no_tensor(name: str) -> bool:
    """Does a part of a file of torch's hold what stands beside the tensors?"""
    return name.endswith("data.pkl")


def slim(path: Path) -> None:
    """Drop from a finished training's checkpoint what only going on needs: three quarters of it.

    The averaged weights stay, from which `model.pt` can be written again.
    """
    if not path.exists() or "optimizer" not in load(path, tensors=False):
        return
    content = load(path)
    save_state(path, {key: content[key] for key in content if key not in ("model", "optimizer")})


def _numpy_scalars() -> list[Any]:
    """What a number of numpy's is unpickled with, which runs no code.

    Published checkpoints hold some beside the weights, such as the learning rate of a schedule.
    """
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    # numpy 1 called it by the first of these names
    named = [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]
    kinds = (np.bool_, np.int32, np.int64, np.float16, np.float32, np.float64)
    return [*named, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def load_model(path: Path) -> tuple[ActionFormer, Experiment, list[str]]:
    """The network with its weights, its experiment and its class names, from `model.pt`."""
    if path.is_dir():
        raise InputError(f"{path}: a folder; expected the model.pt of a run in it")
    try:
        content = load(path)
    except InputError:
        if path.exists():
            raise InputError(
                f"{path}: not a model.pt that training has written, or not a complete one"
            ) from None
        raise
    missing = {"state_dict", "experiment", "classes"} - set(content)
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(sorted(missing))}; not a model.pt of this project"
        )
    experiment = stored_experiment(content["experiment"], str(path))
    model = network_with(content["state_dict"], experiment, str(path))
    classes = class_names(content["classes"], str(path))
    scored = experiment.model.num_classes
    # a network that tells actions from background alone has one, and a classifier names them
    if len(classes) != scored and (scored > 1 or not classes):
        raise InputError(f"{path}: names {len(classes)} classes, its network has {scored}")
    return model, experiment, classes


def network_with(weights: Any, experiment: Experiment, where: str) -> ActionFormer:
    """The network of an experiment with the weights that a file holds, ready to detect.

    Raises:
        InputError: names or shapes other than the network's, or what is no finite number.
    """
    if not isinstance(weights, Mapping) or not all(map(torch.is_tensor, weights.values())):
        raise InputError(f"{where}: its weights are no tensors by name")
    _refuse_no_numbers(weights, where)
    # initial weights are drawn, and then replaced: the caller's random numbers stay
    with torch.random.fork_rng(devices=[]):
        network = ActionFormer(experiment.model, experiment.training.precision)
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[-1].strip()
        raise InputError(f"{where}: does not fit its params ({reason})") from None
    return network.eval()


def _refuse_no_numbers(weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that would find nothing, without a word."""
    for name, tensor in weights.items():
        is_plain = tensor.layout == torch.strided and tensor.dtype in KINDS and not tensor.is_meta
        if not is_plain or not torch.isfinite(tensor.float()).all():
            wrong = f"the weight {name} holds what is no finite number"
            raise InputError(f"{where}: {wrong}; make or get the file again")


def class_names(content: Any, where: str) -> list[str]:
    """Class names as a file of weights lists them."""
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{where}: its classes are no list of names")
    return content


def experiment_of(path: Path) -> Experiment:
    """The experiment that a `model.pt` was trained with, without its weights."""
    content = load(path, tensors=False)
    if "experiment" not in content:
        raise InputError(f"{path}: lacks experiment; not a model.pt of this project")
    return stored_experiment(content["experiment"], str(path))


def extractor_of(path: Path) -> dict[str, str] | None:
    """What made the features that a `model.pt` was trained on, where they said so.

    {"extractor": name, "identity", "weights_md5"}.
    """
    told = load(path, tensors=False).get("extractor")
    if told is None:
        return None
    if not isinstance(told, dict) or set(told) != {"extractor", "identity", "weights_md5"}:
        raise InputError(f"{path}: its extractor is none; not a model.pt of this project")
    return {name: str(value) for name, value in told.items()}


def load_published(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a published checkpoint, under their published names.

    Raises:
        InputError: no such file, not a checkpoint, or content other than tensors and plain values.
    """
    content = load(path, maker="fetch")
    weights = content.get("state_dict_ema", content)
    if not isinstance(weights, dict) or not all(
        isinstance(tensor, Tensor) for tensor in weights.values()
    ):
        found = ", ".join(str(key) for key in content)
        raise InputError(
            f"{path}: holds {found or 'nothing'}; expected the averaged weights, state_dict_ema"
        )
    _refuse_no_numbers(weights, str(path))
    return weights
