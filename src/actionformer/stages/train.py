"""Training of a row with one seed; what lies in its folder is gone on with or moved aside."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from actionformer import layout, provenance
from actionformer.data.view import views
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json, write_text
from actionformer.model.actionformer import ActionFormer
from actionformer.model.precision import effective
from actionformer.params import keys
from actionformer.params.experiment import Experiment
from actionformer.params.files import as_yaml
from actionformer.run_log import RunLog
from actionformer.stages import inputs, share
from actionformer.stages.detect import detector
from actionformer.stages.evaluate import row_metrics
from actionformer.tracking.careful import Careful
from actionformer.tracking.runs import finish
from actionformer.training import checkpoint, loop
from actionformer.training.device import leased_device, to_stderr

if TYPE_CHECKING:
    from actionformer.result_cache import Entry, ResultCache

Say = Callable[[str], None]

# share of the initial weights in the averaged ones at the end; of published rows at most 0.03
MOST_INITIAL = 0.1
# bytes of resampled videos that are kept: all of ActivityNet's
TRAINING_ROOM, TEST_ROOM = 4e9, 2e9


def train(
    experiment: Experiment,
    seed: int,
    *,
    device: str,
    gpu_slots: int | None = None,
    scratch: Path | None = None,
    cache: ResultCache | None = None,
    anew: bool = False,
    say: Say,
) -> None:
    """Train a row with one seed, or go on with it; MLflow sees every epoch.

    What lies in the run's folder and was made with other params, data or arithmetic is moved aside,
    never overwritten; a run that is there and the same is left as it is.

    Args:
        device: of `leased_device`, as is `gpu_slots`.
        scratch: of `inputs.opened`.
        cache: a run that is there is fetched, unless its training has begun here; others get there.
        anew: move aside and start over, whatever lies there or in the cache.
    """
    run = layout.run(experiment.edition, experiment.name, seed)
    with ExitStack() as stack:
        stack.enter_context(alone_in(run))
        made = inputs.training_record(experiment, seed)
        begun = _record_of_checkpoint(run)
        goes_on = begun is not None and keys.same("train", experiment, begun, made)
        if not anew and _is_trained(experiment, run, made):
            if begun is not None and not goes_on:  # a later training, which was given up
                unfinished = [run / "checkpoint.pt", run / layout.PROGRESS]
                _tell(say, _set_aside(run, unfinished, begun, experiment))
            say(f"{run}: trained with these params, data and seed already; `--anew` starts over")
            told = read_object(run / "lineage.json") | training_lineage(experiment, seed, made)
            write_json(run / "lineage.json", told)
            checkpoint.slim(run / "checkpoint.pt")
            if told.get("mlflow_run") is not None:
                # it may have been killed between its last file and the end of MLflow's run
                Careful(run)(finish, told["mlflow_run"])
            if cache is not None:
                share.keep_training(cache, run)
            return
        if anew or not goes_on:
            there = _record_of_model(run) or begun
            if there is None and (run / "metrics.json").exists():
                there = inputs.NO_RECORD
            if there is not None:
                # but for locks: this process holds one, and one that logs the run may the other
                files = sorted(path for path in run.iterdir() if path.suffix != ".lock")
                _tell(say, _set_aside(run, files, there, experiment))
            begun = None
        lineage = training_lineage(experiment, seed, made)
        told = {"seed": seed} | lineage
        is_new = not anew and begun is None
        if cache is not None and is_new and _is_fetched(cache, experiment, run, made, told, say):
            return
        database, features = inputs.opened(experiment, scratch)
        training_views = views(database, features, experiment, "train", room=TRAINING_ROOM)
        run_detector = detector(experiment, database, features, room=TEST_ROOM)
        _warn_of_initial_weights(experiment, len(training_views), say)
        chosen = stack.enter_context(leased_device(device, gpu_slots, say))
        say(f"{experiment.name}, seed {seed}: {chosen}, {experiment.training.threads} threads")

        def evaluate(network: ActionFormer) -> dict[str, float]:
            """mAP of the averaged weights, after an epoch."""
            results = run_detector(network, database.classes, chosen)
            percent: dict[str, float] = row_metrics(experiment, database, results)["percent"]
            return percent

        who = provenance.who(chosen, effective(experiment.training.precision, chosen))
        # once the training has begun, which a damaged checkpoint would refuse: the manifest must
        # never lie beside another model than its own
        manifest = layout.manifest(run / "model.pt")
        log = RunLog(experiment, run, lineage | {"seed": seed}, who, say, outdated=manifest)
        stack.enter_context(log)
        loop.train(
            experiment,
            training_views,
            database.classes,
            seed=seed,
            run=run,
            device=chosen,
            evaluate=evaluate,
            origin=loop.Origin(
                keys.short_name(begun or made), begun or made, who, inputs.extractor_of(experiment)
            ),
            observer=log,
        )
        # Only now, and the manifest last: with it the run is whole. What a workflow was promised
        # must not lie there half-way, after an interruption.
        write_text(run / "params.yaml", as_yaml(experiment))
        facts = {"seed": seed, "trained_by": log.trained_by, "mlflow_run": log.run_id}
        write_json(run / "lineage.json", facts | lineage)
        inputs.write_manifest(run / "model.pt", made)
        checkpoint.slim(run / "checkpoint.pt")
    if cache is not None:
        share.keep_training(cache, run)


def _is_fetched(
    cache: ResultCache,
    experiment: Experiment,
    run: Path,
    made: Mapping[str, Any],
    lineage: Mapping[str, Any],
    say: Say,
) -> bool:
    """Was the run fetched from a cache? It says who trained it, like one that was trained here."""

    def write_rest(entry: Entry) -> None:
        write_text(run / "params.yaml", as_yaml(experiment))
        origin = {"fetched_from": cache.address, "mlflow_run": entry.mlflow_run}
        write_json(run / "lineage.json", {"trained_by": entry.made_by, **origin, **lineage})
        # before the model, which is put in its place last: a model of unknown origin is set aside
        told = {"md5": entry.files["model.pt"].md5, "made_with": made}
        write_json(layout.manifest(run / "model.pt"), told)

    entry = cache.fetch(made, [run / "model.pt", run / "history.csv"], write_rest)
    if entry is None:
        return False
    say(f"{run}: {share.fetched_text(cache, entry)}")
    return True


def _warn_of_initial_weights(experiment: Experiment, videos: int, say: Say) -> None:
    """A short training can end before its averaged weights have forgotten the initial ones."""
    params = experiment.training
    steps = math.ceil(videos / params.batch_size) * params.epochs
    share = params.ema_decay**steps
    if share > MOST_INITIAL:
        better = 0.05 ** (1 / max(steps, 1))
        _tell(
            say,
            f"after {steps} steps the averaged weights are still {share:.0%} the initial ones "
            f"(training.ema_decay {params.ema_decay:g}): train longer, or set it to {better:.3f}",
        )


def _tell(say: Say, line: str) -> None:
    """Say something to whoever started the job, too: a job's words go into its log."""
    say(line)
    if not sys.stdout.isatty():
        to_stderr(line)


def alone_in(run: Path) -> Any:
    """A lock on a run folder: two processes must not train the same run."""
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(layout.run_lock(run))
    try:
        return lock.acquire(timeout=1)  # `status` holds it for a moment to see whether anybody does
    except Timeout:
        raise InputError(f"{run}: another process trains here; wait for it, or end it") from None


def _record_of_model(run: Path) -> Mapping[str, Any] | None:
    """What the model in a run's folder was made with; a record of nothing where it is not known."""
    if not (run / "model.pt").exists():
        return None
    return keys.stored(layout.manifest(run / "model.pt")) or inputs.NO_RECORD


def _record_of_checkpoint(run: Path) -> Mapping[str, Any] | None:
    """The same of a checkpoint."""
    if not (run / "checkpoint.pt").exists():
        return None
    content = checkpoint.load(run / "checkpoint.pt", tensors=False)
    made = content.get("made_with")
    return made if keys.is_record(made, "train") else inputs.NO_RECORD


def _is_trained(experiment: Experiment, run: Path, made: Mapping[str, Any]) -> bool:
    """Is the model of this record there, with all that belongs to it?"""
    there = keys.stored(layout.manifest(run / "model.pt"))
    files = [run / name for name in layout.TRAINED]
    whole = all(file.exists() for file in files)
    return whole and there is not None and keys.same("train", experiment, there, made)


def _set_aside(
    run: Path, files: Sequence[Path], there: Mapping[str, Any], experiment: Experiment
) -> str:
    """Move files of a run's folder to where nothing overwrites them; says where to and why.

    Args:
        there: the record that they were made with.
    """
    aside = layout.earlier(run, keys.short_name(there))
    aside.mkdir(parents=True)
    for path in files:
        if path != layout.run_lock(run) and path.exists():
            path.rename(aside / path.name)
    why = keys.changes("train", experiment, there)
    if not why:
        why = ["its data or seed are others, or it starts over"]
    return f"{run}: the run that lay there is kept in {aside} ({'; '.join(why[:3])})"


def training_lineage(
    experiment: Experiment, seed: int, trained: Mapping[str, Any]
) -> dict[str, Any]:
    """What is known of a run when its training begins: its data, and names for what it is made of.

    Args:
        trained: the record of the training.
    """
    run = layout.run(experiment.edition, experiment.name, seed)
    before = keys.stored(layout.manifest(run / "detections.json"))
    detected = keys.record("detect", experiment, inputs.classifier_md5(experiment), before)
    evaluated = keys.record("evaluate", experiment, {}, keys.stored(run / "metrics.json"))
    weights = keys.short_name(trained)
    named = inputs.lineage_names(weights, trained["key"], detected, evaluated)
    return named | inputs.data_lineage(experiment)
