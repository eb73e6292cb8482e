"""The training loop, written out: its order of operations is the contract with published results.

One iteration: set the learning rate, forward, backward, clip, AdamW step, EMA step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from actionformer.data.loader import Batch, padded, sent, training_batches
from actionformer.data.view import View
from actionformer.errors import InputError
from actionformer.model.actionformer import ActionFormer, Losses
from actionformer.model.precision import convolutions_in
from actionformer.params.experiment import Experiment, TrainingParams
from actionformer.progress import progress
from actionformer.training import checkpoint, compiled, recorded
from actionformer.training.average import WeightAverage
from actionformer.training.device import release_memory
from actionformer.training.history import write_history
from actionformer.training.observer import Observer, Record
from actionformer.training.optimizer import adamw, learning_rate
from actionformer.training.recorded import RecordedSteps, Step

# numbers of the averaged network after an epoch
Evaluate = Callable[[ActionFormer], Record]


@dataclass(frozen=True)
class Origin:
    """What a training is made of and who trains, as the checkpoint keeps it."""

    # the name of what the weights depend on: params, seed and data. A checkpoint, which keeps it
    # under "identity", is gone on with where the two are equal
    weights: str = ""
    # the record behind that name
    made_with: Mapping[str, Any] | None = None
    # the commit, device and versions that train now
    who: Mapping[str, Any] = field(default_factory=dict)
    # what made the features, where they say so (`data.extracted`); kept in `model.pt`
    extractor: Mapping[str, str] | None = None


@dataclass
class _Training:
    """All that changes while a network is trained, and what of it a checkpoint keeps."""

    model: ActionFormer
    ema: WeightAverage
    optimizer: torch.optim.Optimizer
    step: Step
    # how many lengths the step's batches may have; 0: any
    lengths: int
    history: list[Record] = field(default_factory=list)
    # who trained which epochs
    trained_by: list[dict[str, Any]] = field(default_factory=list)
    run_id: str | None = None

    def go_on(self, path: Path, origin: Origin, epochs: int) -> None:
        """Take over a checkpoint of the same weights, if there is one; they take so many epochs."""
        state = checkpoint.load(path) if path.exists() else {}
        if state.get("identity") != origin.weights:
            return
        try:
            checkpoint.refuse_odd_state(state, epochs)
            _refuse_other_kinds(state["ema"], self.ema)
            self.ema.load_state_dict(state["ema"])
            if "optimizer" in state:  # else the training has ended
                _refuse_other_kinds(state["model"], self.model)
                self.model.load_state_dict(state["model"])
                stepped = bool(state["history"])
                checkpoint.refuse_odd_moments(state["optimizer"], self.optimizer, stepped=stepped)
                self.optimizer.load_state_dict(state["optimizer"])
            self.history, self.trained_by = state["history"], state["trained_by"]
            self.run_id = state["run_id"]
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[-1].strip()
            wrong = f"not a checkpoint of this network ({reason})"
            raise InputError(f"{path}: {wrong}; delete it, then train again") from None

    def save(self, path: Path, origin: Origin) -> None:
        """Write everything that the next call needs to go on from here."""
        content: dict[str, Any] = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "history": self.history,
            "trained_by": self.trained_by,
            "run_id": self.run_id,
            "optimizer": self.optimizer.state_dict(),
            "identity": origin.weights,
        }
        if origin.made_with is not None:
            content["made_with"] = origin.made_with
        checkpoint.save_state(path, content)


def _refuse_other_kinds(state: Mapping[str, Any], network: torch.nn.Module) -> None:
    """Raise `ValueError` for tensors of another kind, which torch would convert without a word."""
    for name, mine in network.state_dict().items():
        tensor = state.get(name)
        if torch.is_tensor(tensor) and tensor.dtype != mine.dtype:
            raise ValueError(f"{name} is of {tensor.dtype}, expected {mine.dtype}")
        if torch.is_tensor(tensor) and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds what is no finite number")


def train(
    experiment: Experiment,
    views: Sequence[View],
    classes: Sequence[str],
    *,
    seed: int,
    run: Path,
    device: str = "cpu",
    evaluate: Evaluate | None = None,
    origin: Origin | None = None,
    observer: Observer | None = None,
) -> list[Record]:
    """Train one row with one seed in folder `run`, or go on with it; returns a record per epoch.

    Args:
        views: training views, in database order.
        evaluate: called with the EMA network after every epoch from `first_eval_epoch` on; its
            numbers join the record.
        origin: what the weights are made with, and by whom; kept in the checkpoint, where the
            history of who trained which epochs goes on.
        observer: is told of the start, of every epoch and of the end.

    Writes `checkpoint.pt` after every epoch, `history.csv` and `model.pt` at the end. Interrupted
    at any point, the next call gives the same weights bit for bit: every epoch seeds its own random
    numbers. The caller's random numbers are left as they were.
    """
    if not views:
        raise InputError(f"{experiment.name}: no training video has both features and ground truth")
    origin, observer = origin or Origin(), observer or Observer()
    params = experiment.training
    path = run / "checkpoint.pt"
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        model = ActionFormer(experiment.model, params.precision).to(device)
        ema = WeightAverage(model, params.ema_decay)
        optimizer = adamw(model, params)
        training = _Training(model, ema, optimizer, *step_of(model, ema, optimizer, params))
        training.go_on(path, origin, params.epochs)
        history = training.history
        training.run_id = observer.started(training.run_id, history, training.trained_by)
        if not history:
            # an interruption in the first epoch goes on in the same run, too
            training.save(path, origin)
        with observer.watching():
            for epoch in range(len(history), params.epochs):
                # of its own, whatever was drawn before: so an interrupted training goes on alike
                torch.manual_seed((seed << 20) + epoch + 1)
                what = f"{experiment.name}, seed {seed}: epoch {epoch + 1}/{params.epochs}"
                record = _epoch(training, views, params, epoch=epoch, seed=seed, what=what)
                loss = record["loss/total"]
                if not math.isfinite(loss):
                    wrong = f"the loss of epoch {epoch} is {loss}; lower training.lr"
                    raise InputError(f"{experiment.name}: {wrong}")
                if evaluate is not None and epoch >= params.first_eval_epoch:
                    release_memory()
                    record |= evaluate(ema.module.eval())
                    release_memory()
                history.append(record)
                note_epoch(training.trained_by, epoch, origin.who)
                training.save(path, origin)
                observer.epoch_finished(epoch, record)

    write_history(run / "history.csv", history)
    weights = {name: tensor.cpu() for name, tensor in ema.module.state_dict().items()}
    content = {
        "state_dict": weights,
        "classes": list(classes),
        "experiment": experiment.model_dump(mode="json"),
        "seed": seed,
    }
    if origin.extractor is not None:
        content["extractor"] = dict(origin.extractor)
    # written at the very end: whoever finds it may use it
    checkpoint.save(run / "model.pt", content)
    observer.ended(training.trained_by)
    return history


def _epoch(
    training: _Training,
    views: Sequence[View],
    params: TrainingParams,
    *,
    epoch: int,
    seed: int,
    what: str,
) -> Record:
    """One pass over the training views, called `what` while it runs; returns its means."""
    training.model.train()
    iterations = math.ceil(len(views) / params.batch_size)
    steps = []
    began = time.perf_counter()
    batches = training_batches(views, batch_size=params.batch_size, epoch=epoch, seed=seed)
    if training.lengths:
        longest = training.model.params.max_seq_len
        most_segments = max(len(view.segments_G2) for view in views)
        shape = (longest, training.lengths, most_segments)
        batches = (padded(batch, *shape) for batch in batches)
    batches = sent(batches, str(training.model.loss_normalizer.device))
    shown = progress(batches, what, unit="step", total=iterations)
    for i, batch in enumerate(shown):
        lr = learning_rate(
            epoch * iterations + i,
            base=params.lr,
            warmup=params.warmup_epochs * iterations,
            total=params.schedule_epochs * iterations,
        )
        losses, gradient_norm = training.step(batch, lr=lr)
        step = torch.stack([losses.classification, losses.regression, gradient_norm])
        steps.append(step.detach())
    # asked for at the end alone: a GPU would have to be waited for after every step
    means = torch.stack(steps).cpu().double().mean(0)
    seconds = time.perf_counter() - began
    classification, regression, norm = means.tolist()
    return {
        "loss/total": classification + regression,
        "loss/classification": classification,
        "loss/regression": regression,
        "learning_rate": lr,
        "gradient_norm": norm,
        "videos_per_second": len(views) / seconds,
        "seconds": seconds,
    }


def step_of(
    model: ActionFormer,
    ema: WeightAverage,
    optimizer: torch.optim.Optimizer,
    params: TrainingParams,
) -> tuple[Step, int]:
    """One iteration as a row's params want it; how many lengths its batches may have, 0 for any.

    Where steps are compiled or recorded, every length costs time and memory once.
    """
    step: Step = partial(training_step, model, ema, optimizer, clip=params.clip_grad_norm)
    lengths = 0
    if params.cuda_graphs and model.loss_normalizer.is_cuda:
        step, lengths = RecordedSteps(step, ema, optimizer), recorded.LENGTHS
    if params.compile:  # the averaged network is a copy, and stays as it is
        compiled.compile_network(model)
        lengths = compiled.LENGTHS
    return step, lengths


def training_step(
    model: ActionFormer,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    lr: float | torch.Tensor,
    clip: float,
) -> tuple[Losses, torch.Tensor]:
    """One iteration; returns the losses and the gradient norm before clipping.

    The batch is on the network's device. Nothing depends on values that a GPU would have to be
    asked for (tests/test_training.py).
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)  # before the forward pass: both would take memory at once
    with convolutions_in(model.precision):  # backward, too
        losses = model.loss(batch.features_BCT, batch.mask_BT, batch.segments, batch.labels)
        losses.total.backward()
    # over all parameters at once, as published
    gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    ema.update_parameters(model)
    return losses, gradient_norm


def note_epoch(trained_by: list[dict[str, Any]], epoch: int, who: Mapping[str, Any]) -> None:
    """Add an epoch, counted from 0, to the history of who trained which.

    A session is {"first_epoch", "last_epoch"} and `who`; the last one goes on if it is the same.
    """
    if trained_by:
        last = trained_by[-1]
        same = {"first_epoch": last["first_epoch"], "last_epoch": epoch - 1, **who}
        if last == same:
            last["last_epoch"] = epoch
            return
    trained_by.append({"first_epoch": epoch, "last_epoch": epoch, **who})
