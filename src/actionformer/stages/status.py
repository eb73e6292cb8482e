"""Where the rows of an edition stand, as their files tell it: done, running, stopped, missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from actionformer import layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import features as stores
from actionformer.data import plan
from actionformer.data.features import FeatureStore
from actionformer.errors import InputError
from actionformer.files.md5 import digest
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json
from actionformer.metrics_file import read_metrics
from actionformer.params import keys
from actionformer.params.experiment import OWN, Experiment
from actionformer.params.files import PARAMS, load_extractor
from actionformer.progress import progress
from actionformer.reporting import status_text
from actionformer.reporting.status_text import Costs, Hours, RunStatus
from actionformer.stages import inputs
from actionformer.synthetic.statistics import STATISTICS
from actionformer.training.history import read_history

if TYPE_CHECKING:  # torch takes seconds, and most of what asks does without
    from actionformer.training.cost import Batches, Speed

# of the rate of matrix products, what a training reaches that nobody has measured here
REACHED = 0.8
WHY_NO_RECORD = "it does not say what it was made with: `actionformer adopt`"


def status(
    rows: Sequence[Experiment],
    seeds: Sequence[int],
    calls: Mapping[str, str],
    *,
    released: bool,
    cost: bool,
    measure: bool = False,
    params: Path = PARAMS,
) -> str:
    """A line per row and seed, then what is next; with gigabytes and hours per row if `cost`.

    Args:
        calls: row -> the command that makes what it lacks.
        measure: reckon hours from steps that are run now, where none have been on this machine.
    """
    runs = [run_status(row, seed, params) for row in rows for seed in seeds]
    costs = None
    if cost or measure:
        costs = _costs(runs, len(seeds), params, measure=measure)
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
        row = str(read_object(path).get("row", ""))
        if row not in found and Path(row).is_file():
            found.append(row)
    if not found:
        wanted = "--rows FILE.yaml names one, wherever it stands"
        raise InputError(f"{folder}: no run of an experiment of your own; {wanted}")
    return found


def run_status(experiment: Experiment, seed: int, params: Path = PARAMS) -> RunStatus:
    """What the files of a run tell."""
    run = layout.run(experiment.edition, experiment.name, seed)
    epoch, seconds = _trained(run)
    if layout.is_held(layout.run_lock(run)):
        # history.csv, which is written at the end, may be that of an earlier training
        epoch, seconds = _progress(run)
        return RunStatus(experiment, seed, "running", epoch, seconds, None, "train")
    stage = _next_stage(experiment, run, params)
    if not stage:
        score = read_metrics(run / "metrics.json")["percent"]["mAP/average"]
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
            found[name] = str(read_object(path, "md5")["md5"])
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
    progress = read_object(run / layout.PROGRESS, "epoch", "seconds")
    return int(progress["epoch"]), float(progress["seconds"])


def _next_stage(experiment: Experiment, run: Path, params: Path) -> str:
    """The first command that has yet to run; empty where a run is finished."""
    raw = [*layout.annotation_files_of(experiment), layout.raw_features_of(experiment)]
    built = [layout.database_of(experiment), layout.store_of(experiment)]
    if not _all_there(built) and not _all_there(raw):
        return "" if (run / "metrics.json").exists() else "fetch"
    pack = f"pack {experiment.feature_argument} {experiment.data.features}"
    stops = {
        f"convert {experiment.dataset_argument}": layout.database_of(experiment),
        **_stops_before_pack(experiment, params),
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


def _stops_before_pack(experiment: Experiment, params: Path) -> dict[str, Path]:
    """Commands that make a row's features of videos, and what they write; none once extracted."""
    features, manifest = experiment.features, layout.extracted_manifest(experiment)
    if features.videos is None or manifest.exists() or layout.store_of(experiment).exists():
        return {}
    called = f"{experiment.feature_argument} --features {experiment.data.features}"
    stops = {f"extract --dataset {called}": manifest}
    assert features.extractor is not None
    try:
        _, _, weights = load_extractor(features.extractor, params)
    except InputError:  # `extract` says what is wrong with it; other rows have their states, too
        return stops
    return {f"fetch --extractor {features.extractor}": weights, **stops}


def _all_there(paths: Sequence[Path]) -> bool:
    return all(path.exists() for path in paths)


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


def _costs(runs: Sequence[RunStatus], seeds: int, params: Path, *, measure: bool) -> Costs:
    """Hours and disk of all rows; hours are reckoned of those whose first seed is not done."""
    disk = {run.experiment.name: plan.disk(run.experiment, seeds, params) for run in runs}
    rows: dict[str, Experiment] = {}
    for run in runs:
        if run.measured_hours is None:
            rows.setdefault(run.experiment.name, run.experiment)
    device, rate, hours = hours_of(list(rows.values()), measure=measure)
    return Costs(device, rate, hours, disk)


def hours_of(
    rows: Sequence[Experiment], *, measure: bool
) -> tuple[str, float, dict[str, Hours | None]]:
    """The device, its rate of matrix products, and row -> how long one seed takes on it.

    Args:
        measure: run some steps of every row whose speed is not known on this machine.
    """
    # torch: a dry run asks `outdated` alone, and does without
    import torch

    from actionformer.training import cost

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = cost.matrix_rate(device)
    hours: dict[str, Hours | None] = {}
    batches_of_row = {}
    for row in progress(rows, "reckon hours", unit="row"):
        batches = batches_of_row[row.name] = batches_of(row)
        if batches is not None and measure and _speed_key(row, device) not in _speeds():
            _measure(row, batches, device)
    # once all are measured: what rate is usual depends on every one
    for row in rows:
        batches = batches_of_row[row.name]
        if batches is None:
            hours[row.name] = None
            continue
        speed = speed_of(row, device)
        is_measured = speed is not None
        if speed is None:
            speed = cost.reckoned(row, rate * REACHED)
        taken = cost.training_seconds(row, batches, speed) / 3600
        hours[row.name] = Hours(taken, is_measured)
    return device, rate, hours


def batches_of(row: Experiment) -> Batches | None:
    """The batches of a row's epochs and evaluations; None where nobody knows its videos."""
    from actionformer.training import cost

    lengths = _lengths(row)
    return None if lengths is None else cost.batches_of(row, *lengths)


def _measure(row: Experiment, batches: Batches, device: str) -> None:
    """Measure how fast a row's batches are on this machine, and keep it."""
    from actionformer.training import cost
    from actionformer.training.device import prepare_cpu

    prepare_cpu(row.training.threads)
    speed = asdict(cost.measured(row, batches, device)) | {"machine": _machine(row, device)}
    write_json(layout.SPEEDS, _speeds() | {_speed_key(row, device): speed})


def speed_of(row: Experiment, device: str) -> Speed | None:
    """How fast a row's batches are on this machine; None where nobody has measured it.

    At the matrix rate that was usual when rows were measured on it.

    Raises:
        InputError: `build/speeds.json` holds something else than `--measure` writes.
    """
    from actionformer.training.cost import Line, Speed

    speeds, machine = _speeds(), _machine(row, device)
    told = speeds.get(_speed_key(row, device))
    if told is None:
        return None
    try:
        rates = [one["rate"] for one in speeds.values() if one["machine"] == machine]
        return Speed(Line(**told["step"]), Line(**told["test"]), told["rate"]).at(median(rates))
    except (KeyError, TypeError, ZeroDivisionError):
        wrong = "holds something else than `status --measure` writes"
        raise InputError(f"{layout.SPEEDS}: {wrong}; delete it, then measure again") from None


def _speeds() -> dict[str, Any]:
    """What was measured in this folder: row's key -> `Speed`, and the machine."""
    told = read_object(layout.SPEEDS) if layout.SPEEDS.exists() else {}
    # earlier versions kept no rate
    return {key: speed for key, speed in told.items() if isinstance(speed, dict)}


def _speed_key(experiment: Experiment, device: str) -> str:
    """What seconds of a batch depend on: the network, its batches, and the machine."""
    training = experiment.training.model_dump(
        include={"batch_size", "precision", "compile", "cuda_graphs"}
    )
    model = experiment.model.model_dump(mode="json")
    machine = _machine(experiment, device)
    # named: earlier versions told seconds by the length of a batch, not by all of its steps
    test = {"inputs_of_full_length": experiment.inference.batch_size}
    return digest([model, training, test, machine])


def _machine(experiment: Experiment, device: str) -> str:
    """What the rate of matrix products depends on, but for the moment."""
    environment = provenance.environment()
    machine = [environment[key] for key in ("processor", "cores", "gpus", "torch")]
    return digest([device, experiment.training.threads, machine])


def _lengths(experiment: Experiment) -> tuple[list[int], list[int]] | None:
    """Steps of the training and of the evaluated videos.

    As the feature store has them, else as their durations give them, else as they are published.
    """
    dataset = experiment.dataset
    database, store = layout.database_of(experiment), layout.store_of(experiment)
    if not database.exists():
        return _published_lengths(experiment)
    videos = inputs.database_of(experiment)
    packed = FeatureStore(store).lengths if store.exists() else None
    found = []
    for subset in (dataset.train_subset, dataset.eval_subset):
        lengths = []
        for video in videos.subset(subset):
            trains = subset == dataset.train_subset
            if trains and not len(video.segments_G2):
                continue
            if packed is None:
                lengths.append(_steps(experiment, video.duration))
            elif video.name in packed:
                lengths.append(packed[video.name])
        found.append(lengths)
    return found[0], found[1]


def _published_lengths(experiment: Experiment) -> tuple[list[int], list[int]] | None:
    """Steps of videos as many and as long as the published ones; None where that is not known."""
    known = STATISTICS.get(experiment.feature_owner)
    if known is None:
        return None
    found = []
    for subset in (known.train, known.test):
        count = known.videos[subset]
        if experiment.data.videos is not None:
            count = min(count, experiment.data.videos)
        durations = [known.duration_at((i + 0.5) / count) for i in range(count)]
        found.append([_steps(experiment, duration) for duration in durations])
    return found[0], found[1]


def _steps(experiment: Experiment, duration: float) -> int:
    """How many steps the features of a video have."""
    features = experiment.features
    # of features without a stride only the video counts
    stride = features.stride_frames or 16
    return max(int(duration * (features.fps or 30) / stride), 1)
