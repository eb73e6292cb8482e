"""Where the rows of an edition stand, as their files tell it: done, running, stopped, missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from actionformer import layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.errors import InputError
from actionformer.files import read_json
from actionformer.params import keys
from actionformer.params.experiment import OWN, Experiment
from actionformer.progress import progress
from actionformer.reporting import status_text
from actionformer.reporting.status_text import Costs, RunStatus
from actionformer.stages import inputs
from actionformer.training.history import read_history

WHY_NO_RECORD = "it does not say what it was made with: `actionformer adopt`"


def status(
    rows: Sequence[Experiment],
    seeds: Sequence[int],
    calls: Mapping[str, str],
    *,
    released: bool,
    cost: bool,
) -> str:
    """A line per row and seed, then what is next; with gigabytes and hours per row if `cost`.

    Args:
        calls: row -> the command that makes what it lacks.
    """
    runs = [run_status(row, seed) for row in rows for seed in seeds]
    costs = _costs(runs) if cost else None
    others = _others(rows, seeds, released=released)
    return status_text.as_text(runs, calls, others=others, costs=costs)


def own_rows() -> list[str]:
    """The experiments given by path that have runs here: their files, as they were named.

    Raises:
        InputError: none.
    """
    folder = layout.results(OWN)
    found = []
    for path in sorted(folder.glob(f"*/seed*/{layout.PROGRESS}")):
        row = str(read_json(path).get("row", ""))
        if row not in found and Path(row).is_file():
            found.append(row)
    if not found:
        wanted = "--rows FILE.yaml names one, wherever it stands"
        raise InputError(f"{folder}: no run of an experiment of your own; {wanted}")
    return found


def run_status(experiment: Experiment, seed: int) -> RunStatus:
    """What the files of a run tell."""
    run = layout.run(experiment.edition, experiment.name, seed)
    epoch, seconds = _trained(run)
    if _is_held(layout.run_lock(run)):
        # history.csv, which is written at the end, may be that of an earlier training
        epoch, seconds = _progress(run)
        return RunStatus(experiment, seed, "running", epoch, seconds, None, "train")
    stage = _next_stage(experiment, run)
    if not stage:
        score = read_json(run / "metrics.json")["percent"]["mAP/average"]
        stage, why = outdated(experiment, seed)
        state = "outdated" if stage else "done"
        return RunStatus(experiment, seed, state, epoch, seconds, score, stage, why)
    state = "missing"
    if (run / "model.pt").exists():
        state = "trained"
    elif (run / "checkpoint.pt").exists():
        why = _why_not_gone_on_with(experiment, run)
        if why:
            return RunStatus(experiment, seed, "outdated", epoch, seconds, None, "train", why)
        state = "stopped"
    return RunStatus(experiment, seed, state, epoch, seconds, None, stage)


def _why_not_gone_on_with(experiment: Experiment, run: Path) -> list[str]:
    """What of today's params an unfinished training was not begun with."""
    # torch: only where there is one
    from actionformer.training import checkpoint

    try:
        made = checkpoint.load(run / "checkpoint.pt", tensors=False).get("made_with")
    except InputError as error:
        return [str(error)]
    return [WHY_NO_RECORD] if made is None else keys.changes("train", experiment, made)


def outdated(experiment: Experiment, seed: int) -> tuple[str, list[str]]:
    """The first stage of a run that would give something else today, and why; nothing otherwise.

    A stage is held against today's params and code, and against the content of its inputs as far as
    they are there.
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
            return stage, [WHY_NO_RECORD]
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
    found = {}
    for name, path in manifests.items():
        if path.exists():
            found[name] = str(read_json(path)["md5"])
    classifier = layout.classifier_of(experiment)
    if classifier is not None and classifier.exists():
        found["classifier"] = provenance.source_md5(classifier)
    return found


def _trained(run: Path) -> tuple[int, float | None]:
    """Epochs finished and seconds that they took."""
    if (run / "history.csv").exists():
        history = read_history(run / "history.csv")
        return len(history), sum(record["seconds"] for record in history)
    return _progress(run)


def _progress(run: Path) -> tuple[int, float | None]:
    """The same of a training that has not ended."""
    if not (run / layout.PROGRESS).exists():
        return 0, None
    progress = read_json(run / layout.PROGRESS)
    return int(progress["epoch"]), float(progress["seconds"])


def _next_stage(experiment: Experiment, run: Path) -> str:
    """The first command that has yet to run; empty where a run is finished."""
    raw = [*layout.annotation_files_of(experiment), layout.features_of(experiment)]
    built = [layout.database_of(experiment), layout.store_of(experiment)]
    if not _all_there(built) and not _all_there(raw):
        return "" if (run / "metrics.json").exists() else "fetch"
    pack = f"pack {experiment.feature_argument} {experiment.data.features}"
    stops = {
        f"convert {experiment.dataset_argument}": layout.database_of(experiment),
        pack: layout.store_of(experiment),
        f"audit {experiment.name}": layout.audit(experiment),
        "train": run / "model.pt",
        "detect": run / "detections.json",
        "evaluate": run / "metrics.json",
    }
    for stage, path in stops.items():
        if not path.exists():
            return stage
    return ""


def _all_there(paths: Sequence[Path]) -> bool:
    return all(path.exists() for path in paths)


def _is_held(lock: Path) -> bool:
    """Does another process hold a lock? Asks for a moment: who takes it waits longer than that."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _others(rows: Sequence[Experiment], seeds: Sequence[int], *, released: bool) -> list[str]:
    """What a report needs beside the runs of the rows, and itself; a line each."""
    names = {row.name for row in rows}
    checkpoints, actions = [], []
    for row in rows:
        if released and row.released is not None:
            checkpoints.append(layout.released_run(row))
        if row.actions_with in names:
            actions += [layout.run(row.edition, layout.actions(row), seed) for seed in seeds]
    lines = []
    for what, folders in (
        ("published checkpoints", checkpoints),
        ("nouns and verbs fused", actions),
    ):
        if folders:
            done = sum((folder / "metrics.json").exists() for folder in folders)
            lines.append(f"{what}: {done} of {len(folders)} done")
    page = layout.report(rows[0].edition)
    return [*lines, f"report: {page}{'' if page.exists() else ' is not there yet'}"]


def _costs(runs: Sequence[RunStatus]) -> Costs:
    """Hours that one seed takes here, of rows whose first seed is not done."""
    # torch: a dry run asks `outdated` alone, and does without
    import torch

    from actionformer.training.cost import matrix_rate, training_flops

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = matrix_rate(device)
    hours: dict[str, float | None] = {}
    told = set()
    for run in progress(runs, "reckon hours", unit="run"):
        row = run.experiment
        if row.name not in told and run.measured_hours is None:
            videos = _training_videos(row)
            hours[row.name] = None if videos is None else training_flops(row, videos) / rate / 3600
        told.add(row.name)
    return Costs(device, rate, hours)


def _training_videos(experiment: Experiment) -> int | None:
    """How many videos a row trains on, if its database or its params say so."""
    path, subset = layout.database_of(experiment), experiment.dataset.train_subset
    if path.exists():
        return len(inputs.database_of(experiment).subset(subset))
    counts = experiment.dataset.published.get(subset)
    if counts is None or counts.videos is None:
        return None
    return min(counts.videos, experiment.data.videos or counts.videos)
