"""Where the rows of an edition stand: done, running, stopped, missing; what is next, and what it will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from actionformer import keys, layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.data import plan
from actionformer.data.annotations import load_database
from actionformer.experiment import Experiment
from actionformer.files import read_json
from actionformer.progress import clock

BACKWARD = 2
"""times the forward pass: products with the gradient, for inputs and for weights"""
MATRIX = 2048
NO_RECORD = "it does not say what it was made with: `actionformer adopt`"


@dataclass(frozen=True)
class RunStatus:
    """One row with one seed."""

    experiment: Experiment
    seed: int
    state: str
    """done, outdated, running, stopped, trained or missing"""
    epoch: int
    """epochs finished"""
    seconds: float | None
    """that they took; None where it isn't known"""
    score: float | None
    next_stage: str
    """the first command that has yet to run; empty when done"""
    why: Sequence[str] = ()
    """of an outdated run: what has changed since"""

    @property
    def seconds_left(self) -> float | None:
        """Of training, at the rate so far."""
        if not self.epoch or self.seconds is None:
            return None
        return self.seconds / self.epoch * (self.experiment.training.epochs - self.epoch)


def run_status(experiment: Experiment, seed: int) -> RunStatus:
    """What the files of a run tell."""
    run = layout.run(experiment.edition, experiment.name, seed)
    epoch, seconds = _trained(run)
    if _is_held(run / ".lock"):
        epoch, seconds = _progress(run)
        return RunStatus(experiment, seed, "running", epoch, seconds, None, "train")
    stage = _next_stage(experiment, run)
    if not stage:
        score = read_json(run / "metrics.json")["percent"]["mAP/average"]
        stage, why = outdated(experiment, seed)
        state = "outdated" if stage else "done"
        return RunStatus(experiment, seed, state, epoch, seconds, score, stage, why)
    if (run / "model.pt").exists():
        return RunStatus(experiment, seed, "trained", epoch, seconds, None, stage)
    state = "stopped" if (run / "checkpoint.pt").exists() else "missing"
    return RunStatus(experiment, seed, state, epoch, seconds, None, stage)


def outdated(experiment: Experiment, seed: int) -> tuple[str, list[str]]:
    """The first stage of a run that would give something else today, and why; nothing where all is up to date.

    A stage is held against today's params and code, and against the content of its inputs as far as they are there.
    """
    run = layout.run(experiment.edition, experiment.name, seed)
    products = {
        "train": layout.manifest(run / "model.pt"),
        "detect": layout.manifest(run / "detections.json"),
        "evaluate": run / "metrics.json",
    }
    now = {"seed": seed, **_contents(experiment, run)}
    for stage, record in products.items():
        made = keys.stored(record)
        if made is None:
            return stage, [NO_RECORD]
        why = keys.changes(stage, experiment, made)
        for name, md5 in made["inputs"].items():
            if now.get(name, md5) != md5:
                why.append(f"{name}: another content")
        if why:
            return stage, why
    return "", []


def _contents(experiment: Experiment, run: Path) -> dict[str, str]:
    """md5 of what the stages of a run read, as manifests tell it, of what is there."""
    manifests = {
        "database": databases.manifest_path(layout.database_of(experiment)),
        "store": stores.manifest_path(layout.store_of(experiment)),
        "model": layout.manifest(run / "model.pt"),
        "detections": layout.manifest(run / "detections.json"),
    }
    found = {name: str(read_json(path)["md5"]) for name, path in manifests.items() if path.exists()}
    classifier = layout.classifier_of(experiment)
    if classifier is not None and classifier.exists():
        found["classifier"] = provenance.source_md5(classifier)
    return found


def _trained(run: Path) -> tuple[int, float | None]:
    """Epochs finished and seconds that they took."""
    if (run / "history.csv").exists():
        history = pd.read_csv(run / "history.csv")
        return len(history), float(history["seconds"].sum())
    return _progress(run)


def _progress(run: Path) -> tuple[int, float | None]:
    """The same of a training that has not ended."""
    if not (run / layout.PROGRESS).exists():
        return 0, None
    progress = read_json(run / layout.PROGRESS)
    return int(progress["epoch"]), float(progress["seconds"])


def _next_stage(experiment: Experiment, run: Path) -> str:
    stops = [
        (layout.database_of(experiment), f"convert {experiment.data.dataset}"),
        (layout.store_of(experiment), f"pack {experiment.feature_owner} {experiment.data.features}"),
        (layout.audit(experiment), f"audit {experiment.name}"),
        (run / "model.pt", "train"),
        (run / "detections.json", "detect"),
        (run / "metrics.json", "evaluate"),
    ]
    raw = [*layout.annotation_files_of(experiment), layout.features_of(experiment)]
    built = [layout.database_of(experiment), layout.store_of(experiment)]
    if not all(path.exists() for path in built) and not all(path.exists() for path in raw):
        return "" if (run / "metrics.json").exists() else "fetch"
    return next((stage for path, stage in stops if not path.exists()), "")


def _is_held(lock: Path) -> bool:
    """Does another process hold a lock? Asks for a moment: who takes it waits longer than that."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True


# ---------------------------------------------------------------------------------------------- cost


def training_flops(experiment: Experiment) -> float | None:
    """Floating-point operations of one seed's training on full-length crops; None where no one says how many videos.

    Real crops are as long as their videos, so this is an upper bound.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from actionformer.model.actionformer import ActionFormer

    videos = _training_videos(experiment)
    if videos is None:
        return None
    length = experiment.data.random_trunc.length
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        network = ActionFormer(experiment.model).eval()
        network(torch.empty(1, experiment.model.in_channels, length), torch.ones(1, length, dtype=torch.bool))
    return float(counted.get_total_flops() * (1 + BACKWARD) * videos * experiment.training.epochs)


def _training_videos(experiment: Experiment) -> int | None:
    database = layout.database_of(experiment)
    if database.exists():
        return len(load_database(database, experiment.data.label_field).subset(experiment.dataset.train_subset))
    counts = experiment.dataset.published.get(experiment.dataset.train_subset)
    return None if counts is None else counts.videos


def matrix_rate() -> tuple[str, float]:
    """The device that training would use, and its float32 operations per second in matrix products."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(MATRIX, MATRIX, device=device)
    best = float("inf")
    for _ in range(4):  # the first one warms up
        began = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - began)
    return device, 2 * MATRIX**3 / best


# ---------------------------------------------------------------------------------------------- text


def as_text(rows: Sequence[Experiment], seeds: Sequence[int], *, released: bool, cost: bool) -> str:
    """A line per row and seed, then what is next; with gigabytes and hours per row if `cost`."""
    runs = [run_status(row, seed) for row in rows for seed in seeds]
    width = max(len(row.name) for row in rows)
    device, rate = matrix_rate() if cost else ("", 0.0)
    head = f"{'row':<{width}}  seed  {'state':<26} {'mAP':>6} {'trained':>9} {'left':>9}"
    lines = [head + ("  one seed takes      disk" if cost else "")]
    for run in runs:
        state = run.state
        if state in ("running", "stopped"):
            state += f", {run.epoch} of {run.experiment.training.epochs} epochs"
        line = f"{run.experiment.name:<{width}}  {run.seed:>4}  {state:<26} "
        left = run.seconds_left if run.state in ("running", "stopped") else None
        line += f"{'' if run.score is None else f'{run.score:.2f}':>6} "
        line += " ".join(f"{'' if seconds is None else clock(seconds):>9}" for seconds in (run.seconds, left))
        if cost and run.seed == seeds[0]:
            line += f"  {_hours(run, rate):<18}  {plan.disk([run.experiment])}"
        lines.append(line.rstrip())
    count = {state: sum(run.state == state for run in runs) for state in dict.fromkeys(run.state for run in runs)}
    lines += ["", ", ".join(f"{number} {state}" for state, number in count.items()) + f" of {len(runs)}"]
    for run in runs:
        if run.why:
            lines.append(f"outdated: {run.experiment.name}, seed {run.seed}, {run.next_stage}: {'; '.join(run.why)}")
    lines += _others(rows, seeds, released=released)
    waiting = next((run for run in runs if run.state != "done" and run.state != "running"), None)
    if waiting is not None:
        name = waiting.experiment.name
        stage = waiting.next_stage
        words = f"{stage} {name}, seed {waiting.seed}" if stage in ("train", "detect", "evaluate") else stage
        edition = "" if waiting.experiment.edition == "demo" else f" --config edition={waiting.experiment.edition}"
        lines.append(f"next: {words}{f' for {name}' if words == 'fetch' else ''} (snakemake --cores all{edition})")
    if cost:
        lines.append(
            "hours: measured where a seed has been trained here; otherwise at most, reckoned from the network's "
            f"operations on full-length crops at this machine's {rate / 1e9:.0f} GFLOP/s of float32 matrix products "
            f"({device}); unknown until a data set's annotations say how many videos it has"
        )
    return "\n".join(lines) + "\n"


def _others(rows: Sequence[Experiment], seeds: Sequence[int], *, released: bool) -> list[str]:
    """What a report needs beside the runs of the rows, and itself."""
    names = {row.name for row in rows}
    checkpoints = [layout.released_run(row) for row in rows if released and row.released is not None]
    fused = [row for row in rows if row.actions_with in names]
    actions = [layout.run(row.edition, layout.actions(row), seed) for row in fused for seed in seeds]
    lines = [
        f"{what}: {sum((folder / 'metrics.json').exists() for folder in folders)} of {len(folders)} done"
        for what, folders in (("published checkpoints", checkpoints), ("nouns and verbs fused", actions))
        if folders
    ]
    page = layout.report(rows[0].edition)
    return [*lines, f"report: {page}{'' if page.exists() else ' is not there yet'}"]


def _hours(run: RunStatus, rate: float) -> str:
    if run.state == "done" and run.seconds is not None:
        return f"{run.seconds / 3600:.2f} h (measured)"
    operations = training_flops(run.experiment)
    return "unknown" if operations is None else f"at most {operations / rate / 3600:.1f} h"
