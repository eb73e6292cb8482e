"""Is a run what its params, seed and data give? It is trained again, and compared bit for bit.

For `verify --rerun`: all else that `verify` compares follows from the weights and the detections.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from actionformer import layout, provenance
from actionformer.data.view import views
from actionformer.errors import InputError
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.model.precision import effective
from actionformer.params import keys
from actionformer.params.experiment import Experiment
from actionformer.stages import inputs
from actionformer.stages.detect import detector
from actionformer.stages.train import Say, alone_in
from actionformer.training import loop
from actionformer.training.checkpoint import load_model
from actionformer.training.device import leased_device
from actionformer.training.history import read_history
from actionformer.training.observer import Observer

# what an epoch is measured by that a machine cannot repeat
TIMED = {"seconds", "videos_per_second"}


def train_again(
    experiment: Experiment, seed: int, *, device: str, gpu_slots: int | None = None, say: Say
) -> list[str]:
    """Train a run again, detect with it again, and return a line for everything that differs.

    An interrupted call goes on from its last epoch, like any training.

    Raises:
        InputError: the run is not there, is outdated, or was trained on another kind of device or
            in another precision, where other digits would mean nothing.
    """
    run = layout.run(experiment.edition, experiment.name, seed)
    made = inputs.training_record(experiment, seed)
    then = keys.stored(layout.manifest(inputs.existing(run / "model.pt", _maker(experiment, seed))))
    why = ["what it was made with is not known"]
    if then is not None:
        why = keys.changes("train", experiment, then)
        if not why and then["inputs"] != made["inputs"]:
            why = ["its data are others now"]
    if why:
        raise InputError(f"{run}: trained otherwise than today ({'; '.join(why[:3])})")
    _refuse_other_detections(experiment, run, seed)
    lineage = read_object(run / "lineage.json")
    sessions = provenance.trained_by(lineage, experiment.training.epochs)
    again = layout.AGAIN / experiment.edition / experiment.name / run.name
    database, features = inputs.opened(experiment)
    if (again / "model.pt").exists():
        shutil.rmtree(again)  # of an earlier call, which found differences
    with alone_in(again), leased_device(device, gpu_slots, say) as chosen:
        _refuse_other_device(
            run, sessions, chosen, effective(experiment.training.precision, chosen)
        )
        say(f"{run}: trained again in {again}, on {chosen}")
        loop.train(
            experiment,
            views(database, features, experiment, "train"),
            database.classes,
            seed=seed,
            run=again,
            device=chosen,
            origin=loop.Origin(keys.short_name(made), made),
            observer=_Says(experiment.training.epochs, say),
        )
        different = _compared(run, again)
        network, _, classes = load_model(again / "model.pt")
        results = detector(experiment, database, features)(network.to(chosen), classes, chosen)
        here = _hardware(provenance.who(chosen, effective(network.precision, chosen)))
    inputs.write_detections(again, results)
    detected = read_object(layout.manifest(run / "detections.json")).get("detected_by")
    if detected is not None and _hardware(detected) != here:
        say(f"{run / 'detections.json'}: of {_hardware(detected)}, this is {here}: not compared")
    elif file_md5(again / "detections.json") != file_md5(run / "detections.json"):
        different.append(f"{run / 'detections.json'}: not what these weights detect")
    if not different:
        shutil.rmtree(again)
    return different


def _refuse_other_detections(experiment: Experiment, run: Path, seed: int) -> None:
    """Raise `InputError` where detections of today's params would be others than those there."""
    path = inputs.existing(run / "detections.json", f"detect {experiment.argument} --seed {seed}")
    made = keys.stored(layout.manifest(path))
    why = ["what they were made with is not known"]
    if made is not None:
        why = keys.changes("detect", experiment, made)
    if why:
        raise InputError(f"{path}: made otherwise than today ({'; '.join(why[:3])})")


def _maker(experiment: Experiment, seed: int) -> str:
    return f"train {experiment.argument} --seed {seed}"


class _Says(Observer):
    """Tells of every epoch."""

    def __init__(self, epochs: int, say: Say) -> None:
        self._epochs = epochs
        self._say = say

    def epoch_finished(self, epoch: int, record: Mapping[str, float]) -> None:
        self._say(f"epoch {epoch + 1}/{self._epochs}  loss {record['loss/total']:.4f}")


def _refuse_other_device(
    run: Path, sessions: Sequence[Mapping[str, Any]], device: str, precision: str
) -> None:
    """Raise `InputError` where the same training would give other last digits, and is not wrong."""
    here = _hardware(provenance.who(device, precision))
    for session in sessions:
        there = _hardware(session)
        if there != here:
            raise InputError(
                f"{run}: trained on {there}, this is {here}: their last digits differ, and a "
                "comparison would say nothing"
            )


def _hardware(session: Mapping[str, Any]) -> str:
    """The kind of device of a session, and its precision."""
    kind = str(session["device"]).partition(":")[0]
    environment = session["environment"]
    named = ", ".join(dict.fromkeys(environment.get("gpus", [])))
    name = environment["processor"] if kind == "cpu" else named or kind
    return f"{kind} ({name}) in {session.get('precision', 'float32')}"


def _compared(run: Path, again: Path) -> list[str]:
    """A line per weight that differs, and the epoch from which on the trainings differ."""
    weights = [
        torch.load(folder / "model.pt", weights_only=True)["state_dict"] for folder in (run, again)
    ]
    different = []
    for name, tensor in weights[0].items():
        other = weights[1][name]
        if not torch.equal(tensor, other):
            largest = float((tensor.double() - other.double()).abs().max())
            different.append(f"{run / 'model.pt'}: {name} differs by up to {largest:.3g}")
    histories = [read_history(folder / "history.csv") for folder in (run, again)]
    for epoch, (then, now) in enumerate(zip(*histories, strict=False), 1):
        for name in now.keys() - TIMED:
            if then.get(name) != now[name]:
                different.append(
                    f"{run / 'history.csv'}: epoch {epoch}, {name} is {then.get(name)}, trained "
                    f"again {now[name]}; what follows may differ, too"
                )
                return different
    return different
