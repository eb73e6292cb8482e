"""The training loop, written out: its order of operations is the contract with the published results.

One iteration: set the learning rate, forward, backward, clip, AdamW step, EMA step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from actionformer.data.loader import Batch, training_batches
from actionformer.data.view import View
from actionformer.errors import InputError
from actionformer.experiment import Experiment, TrainingParams
from actionformer.files import atomic_path
from actionformer.model.actionformer import ActionFormer, Losses
from actionformer.progress import progress
from actionformer.training import checkpoint
from actionformer.training.observer import Observer, Record
from actionformer.training.optimizer import adamw, learning_rate


def training_step(
    model: ActionFormer, ema: AveragedModel, optimizer: torch.optim.Optimizer, batch: Batch, *, lr: float, clip: float
) -> tuple[Losses, torch.Tensor]:
    """One iteration; returns the losses and the gradient norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    device = model.loss_normalizer.device
    optimizer.zero_grad(set_to_none=True)  # before the forward pass: both would take memory at once
    losses = model.loss(
        batch.features_BCT.to(device),
        batch.mask_BT.to(device),
        [segments_N2.to(device) for segments_N2 in batch.segments],
        [labels_N.to(device) for labels_N in batch.labels],
    )
    losses.total.backward()
    gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    ema.update_parameters(model)
    return losses, gradient_norm


def train(
    experiment: Experiment,
    views: Sequence[View],
    classes: Sequence[str],
    *,
    seed: int,
    run: Path,
    device: str = "cpu",
    evaluate: Callable[[nn.Module], Record] | None = None,
    identity: str = "",
    facts: Mapping[str, Any] | None = None,
    who: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> list[Record]:
    """Train one row with one seed in folder `run`, or go on with it; returns a record per epoch.

    Args:
        views: training views, in database order.
        evaluate: called with the EMA network after every epoch from `first_eval_epoch` on; its numbers join the record.
        identity: of params, seed and data; a checkpoint with another identity is not gone on with.
        facts: kept in the checkpoint as they are.
        who: the commit, device and versions that train now. The checkpoint keeps the history of who trained which
            epochs, and a resume appends to it.
        observer: looks on.

    Writes `checkpoint.pt` after every epoch, `history.csv` and `model.pt` at the end. Interrupted at any point, the
    next call gives the same weights bit for bit: every epoch seeds its own random numbers. The caller's random numbers
    are left as they were.
    """
    if not views:
        raise InputError(f"{experiment.name}: no training video has both features and ground truth")
    observer = observer or Observer()
    params = experiment.training
    iterations = math.ceil(len(views) / params.batch_size)
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        model = ActionFormer(experiment.model).to(device)
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(params.ema_decay))
        optimizer = adamw(model, params)
        history: list[Record] = []
        trained_by: list[dict[str, Any]] = []
        run_id: str | None = None

        path = run / "checkpoint.pt"
        state = checkpoint.load(path) if path.exists() else {}
        if state.get("identity") == identity:
            model.load_state_dict(state["model"])
            ema.load_state_dict(state["ema"])
            optimizer.load_state_dict(state["optimizer"])
            history, run_id = state["history"], state["run_id"]
            trained_by = state["trained_by"]
        run_id = observer.started(run_id, history, trained_by)

        def save() -> None:
            """Everything that the next call needs to go on from here."""
            networks = {"model": model.state_dict(), "ema": ema.state_dict()}
            told = {"history": history, "trained_by": trained_by, "run_id": run_id}
            content = networks | told | {"optimizer": optimizer.state_dict(), "identity": identity}
            checkpoint.save(path, content | dict(facts or {}))

        if not history:
            save()  # an interruption in the first epoch goes on in the same run, too

        with observer.watching():
            for epoch in range(len(history), params.epochs):
                torch.manual_seed((seed << 20) + epoch + 1)
                record = _epoch(model, ema, optimizer, views, params, epoch=epoch, seed=seed, iterations=iterations)
                if not math.isfinite(record["loss/total"]):
                    raise InputError(
                        f"{experiment.name}: the loss of epoch {epoch} is {record['loss/total']}; lower training.lr"
                    )
                if evaluate is not None and epoch >= params.first_eval_epoch:
                    record |= evaluate(ema.module.eval())
                history.append(record)
                note_epoch(trained_by, epoch, who or {})
                save()
                observer.epoch_finished(epoch, record)

    _write_history(run / "history.csv", history)
    checkpoint.save(
        run / "model.pt",
        {
            "state_dict": {name: tensor.cpu() for name, tensor in ema.module.state_dict().items()},
            "classes": list(classes),
            "experiment": experiment.model_dump(mode="json"),
            "seed": seed,
        },
    )
    observer.ended(trained_by)
    return history


def _epoch(
    model: ActionFormer,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    views: Sequence[View],
    params: TrainingParams,
    *,
    epoch: int,
    seed: int,
    iterations: int,
) -> Record:
    """One pass over the training views; returns its means."""
    model.train()
    sums = torch.zeros(3, dtype=torch.float64)
    began = time.perf_counter()
    batches = training_batches(views, batch_size=params.batch_size, epoch=epoch, seed=seed)
    shown = progress(batches, f"epoch {epoch + 1}/{params.epochs}", total=iterations)
    for i, batch in enumerate(shown):
        lr = learning_rate(
            epoch * iterations + i,
            base=params.lr,
            warmup=params.warmup_epochs * iterations,
            total=params.schedule_epochs * iterations,
        )
        losses, gradient_norm = training_step(model, ema, optimizer, batch, lr=lr, clip=params.clip_grad_norm)
        step = torch.stack([losses.classification, losses.regression, gradient_norm])
        sums += step.detach().cpu().double()
    seconds = time.perf_counter() - began
    classification, regression, norm = (sums / iterations).tolist()
    return {
        "loss/total": classification + regression,
        "loss/classification": classification,
        "loss/regression": regression,
        "learning_rate": lr,
        "gradient_norm": norm,
        "videos_per_second": len(views) / seconds,
        "seconds": seconds,
    }


def note_epoch(trained_by: list[dict[str, Any]], epoch: int, who: Mapping[str, Any]) -> None:
    """Add an epoch to the history of who trained which: {"first_epoch", "last_epoch"} and `who`, counted from 0."""
    if trained_by:
        last = trained_by[-1]
        before = {key: value for key, value in last.items() if key not in ("first_epoch", "last_epoch")}
        if before == dict(who) and last["last_epoch"] == epoch - 1:
            last["last_epoch"] = epoch
            return
    trained_by.append({"first_epoch": epoch, "last_epoch": epoch, **who})


def _write_history(path: Path, history: Sequence[Record]) -> None:
    table = pd.DataFrame(history)
    table.insert(0, "epoch", range(len(history)))
    with atomic_path(path) as part:
        table.to_csv(part, index=False)
