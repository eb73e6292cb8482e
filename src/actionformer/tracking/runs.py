"""Runs: begun and found again, what their tags, params and data say, metrics of epochs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from actionformer import layout, provenance
from actionformer.files.reading import read_object
from actionformer.params.experiment import Experiment
from actionformer.params.stored import evaluated_experiment
from actionformer.tracking.store import (
    LOCK,
    filter_of,
    is_local,
    make_addresses_relative,
    new_client,
    open_store,
    tag_of,
)

Result = TypeVar("Result")

# tags: what a run was created for; that it has its params and data
TOKEN, DESCRIBED = "token", "described"
# what runs are compared by
SCORE = "mAP/average"
# MLflow's limits
LONGEST_PARAM, PARAMS_AT_ONCE, METRICS_AT_ONCE = 6000, 100, 1000
LONGEST_DIGEST = 36
# what MLflow answers to a client that another was quicker than: "exists" of an experiment, and a
# database's refusal of a data set's second row
LOST = ("RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
# a call can lose once for each thing that it would make, and makes two at most
TRIES = 3


def start(experiment: Experiment, lineage: Mapping[str, Any], run_id: str | None) -> str:
    """Go on with a child run, or begin one; returns its id.

    Either way its tags tell the present lineage. A run keeps the params it began with: other
    params, even those of post-processing alone, begin another run.

    Args:
        run_id: the run, where it is known. One that was begun for the same token (`lineage`), by a
            process that was killed before it could tell anybody the id, is gone on with, too.
    """
    client = open_store()
    # two seeds that start together must not both make their row's run
    with FileLock(LOCK):
        if run_id is None:
            run_id = _begun(client, lineage.get(TOKEN))
        if run_id is None or tag_of(client, run_id, "params") != lineage["params"]:
            run_id = _create(client, experiment, lineage)
    client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    if tag_of(client, run_id, DESCRIBED) is None:
        _describe(client, run_id, experiment, lineage)
    tag(run_id, experiment, lineage)
    return run_id


def _begun(client: MlflowClient, token: str | None) -> str | None:
    """The run that was created for a token."""
    if token is None:
        return None
    tables = [table.experiment_id for table in client.search_experiments()]
    found = client.search_runs(tables, filter_of({TOKEN: token}), max_results=1)
    return str(found[0].info.run_id) if found else None


def _create(client: MlflowClient, experiment: Experiment, lineage: Mapping[str, Any]) -> str:
    """A new child run, which can be found by its token from its first moment."""
    experiment_id = experiment_of(client, experiment)
    # MLflow knows a child run by this tag alone
    tags = {"mlflow.parentRunId": parent_of(client, experiment, experiment_id)}
    if TOKEN in lineage:
        tags[TOKEN] = lineage[TOKEN]
    tags |= _tags(experiment, lineage)
    run = client.create_run(experiment_id, run_name=_name(experiment, lineage), tags=tags)
    return str(run.info.run_id)


def _describe(
    client: MlflowClient, run_id: str, experiment: Experiment, lineage: Mapping[str, Any]
) -> None:
    """Give a new run its params and data."""
    params = []
    for key, value in _flat(_resolved(experiment)):
        params.append(Param(key, str(value)[:LONGEST_PARAM]))
    if lineage["seed"] is not None:
        params.append(Param("seed", str(lineage["seed"])))
    for first in range(0, len(params), PARAMS_AT_ONCE):
        client.log_batch(run_id, params=params[first : first + PARAMS_AT_ONCE])
    datasets = _datasets(experiment, lineage)
    _beside_others(lambda: client.log_inputs(run_id, datasets=datasets))
    if lineage.get("kind") != "actions":
        # MLflow's comparison opens on the metric that was logged first; its value is not known yet
        client.log_batch(run_id, metrics=_metrics({SCORE: math.nan}, step=0))
    client.set_tag(run_id, DESCRIBED, "true")


def _beside_others(call: Callable[[], Result]) -> Result:
    """What a call returns, made again where another client has just made the same thing.

    MLflow looks for an experiment or a data set first and makes it then, so that of two clients
    that find none one is refused. No lock of ours helps: a server's clients are on many machines.
    """
    for _ in range(TRIES - 1):
        try:
            return call()
        except MlflowException as error:
            if error.error_code not in LOST:
                raise
    return call()


def _datasets(experiment: Experiment, lineage: Mapping[str, Any]) -> list[DatasetInput]:
    """What a run reads, for MLflow's column of data sets: by its version, with every file's md5."""
    dataset = experiment.dataset
    # MLflow's limit; a version is an md5 and ".dir"
    version = str(lineage["data_version"])[:LONGEST_DIGEST]
    # MLflow keeps one data set per name and version: what it says must not depend on the run that
    # comes first. A published checkpoint is no data.
    checkpoint = layout.released_checkpoint_of(experiment)
    files = {name: md5 for name, md5 in lineage["files"].items() if name != str(checkpoint)}
    source = {"homepage": dataset.homepage, "files": files}
    found = []
    for context, subset in (("train", dataset.train_subset), ("eval", dataset.eval_subset)):
        if context == "train" and lineage["seed"] is None:
            continue  # nothing was trained here
        known = Dataset(
            name=f"{dataset.name}, {experiment.data.features}, {subset}",
            digest=version,
            source_type="dvc",
            source=json.dumps(source),
            profile=json.dumps({"features": experiment.data.features, "subset": subset}),
        )
        found.append(DatasetInput(known, [InputTag("mlflow.data.context", context)]))
    return found


def _name(experiment: Experiment, lineage: Mapping[str, Any]) -> str:
    """What a run is called."""
    kind = lineage.get("kind", "")
    return layout.run_name(experiment.name, lineage["seed"], lineage["identity"], kind)


def tag(run_id: str, experiment: Experiment, lineage: Mapping[str, Any]) -> None:
    """Let a run's tags tell this lineage."""
    tags = [RunTag(key, value) for key, value in _tags(experiment, lineage).items()]
    new_client().log_batch(run_id, tags=tags)


def rename(experiment: Experiment, before: Mapping[str, Any], lineage: Mapping[str, Any]) -> None:
    """Let the run of an earlier lineage, if there is one, go by its present names."""
    client = open_store()
    run_id = find(client, experiment, before)
    if run_id is not None:
        client.update_run(run_id, name=_name(experiment, lineage))
        tag(run_id, experiment, lineage)


def find(client: MlflowClient, experiment: Experiment, lineage: Mapping[str, Any]) -> str | None:
    """The child run of these params and data: the one that trained, or one of this identity."""
    trained = lineage.get("mlflow_run")  # none trained the published checkpoint
    if trained is not None and tag_of(client, trained, "identity") == lineage["identity"]:
        return str(trained)
    wanted = {
        "identity": lineage["identity"],
        "edition": experiment.edition,
        "row": experiment.name,
        "seed": str(lineage["seed"]),
    }
    tables = [table.experiment_id for table in client.search_experiments()]
    found = client.search_runs(tables, filter_of(wanted), max_results=1)
    return str(found[0].info.run_id) if found else None


def _tags(experiment: Experiment, lineage: Mapping[str, Any]) -> dict[str, str]:
    """Where a run's numbers come from."""
    dataset, loading = experiment.dataset, experiment.data.loading_text
    kind = lineage.get("kind") or ("released" if lineage["seed"] is None else "seed")
    sessions = provenance.trained_by(lineage, experiment.training.epochs)
    computed_by = sessions or [provenance.evaluated_by(lineage)]
    commits = _each(computed_by, "git", "commit")
    dirty = any(part["git"]["dirty"] for part in computed_by)
    pinned = "" if lineage["pinned"] else ", not as pinned"
    note = (
        f"**{dataset.name}, {experiment.row}**: {_what(experiment, lineage, kind)}, "
        f"{experiment.edition} edition.\n\n"
        f"Data `{lineage['data_version'][:12]}`{pinned}, commit {commits}. "
        f"Evaluated: {dataset.protocol}. Loading: {loading}."
    )
    return {
        "mlflow.note.content": note,
        "kind": kind,
        "edition": experiment.edition,
        "row": experiment.name,
        "seed": str(lineage["seed"]),
        "protocol": dataset.protocol,
        "loading": loading,
        "remark": dataset.remark or "",
        "departs": "; ".join(experiment.departs),
        "identity": lineage["identity"],
        "params": lineage["params"],
        "trained": provenance.history_text(sessions) or "not here",
        "git.commit": commits,
        "git.dirty": str(dirty).lower(),
        "data.version": lineage["data_version"],
        "data.files": json.dumps(lineage["files"]),
        "data.pinned": str(lineage["pinned"]).lower(),
        "lock": _each(computed_by, "environment", "lock"),
        "processor": _each(computed_by, "environment", "processor"),
        "torch": _each(computed_by, "environment", "torch"),
    }


def _what(experiment: Experiment, lineage: Mapping[str, Any], kind: str) -> str:
    """What was evaluated, in words."""
    if kind == "released":
        return "the published checkpoint, not trained here"
    if kind == "actions":
        return f"seed {lineage['seed']}, fused with {experiment.actions_with} into actions"
    return f"seed {lineage['seed']}"


def _each(sessions: Sequence[Mapping[str, Any]], part: str, key: str) -> str:
    """What the sessions that computed a run say of themselves, each once, in their order."""
    return ", ".join(dict.fromkeys(str(session[part][key]) for session in sessions))


def log_epochs(run_id: str, epochs: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
    """Metrics of some epochs, in their order: (epoch, its end in milliseconds, record) of each."""
    metrics = []
    for epoch, ended, record in epochs:
        metrics += [Metric(key, value, ended, epoch) for key, value in record.items()]
    for first in range(0, len(metrics), METRICS_AT_ONCE):
        some = metrics[first : first + METRICS_AT_ONCE]
        new_client().log_batch(run_id, metrics=some)


def log_history(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    """Metrics of all epochs so far, where the run lacks them.

    MLflow would keep a second value of the same step.
    """
    known = {metric.step for metric in new_client().get_metric_history(run_id, "loss/total")}
    now = milliseconds()
    lacking = [(e, now, record) for e, record in enumerate(history) if e not in known]
    log_epochs(run_id, lacking)


def log_new(client: MlflowClient, run_id: str, metrics: Mapping[str, float], *, step: int) -> None:
    """Log what differs from the run's latest values, so that evaluating again adds nothing."""
    known = client.get_run(run_id).data.metrics
    new = {key: value for key, value in metrics.items() if known.get(key) != value}
    if new:
        client.log_batch(run_id, metrics=_metrics(new, step=step))


def _metrics(values: Mapping[str, float], *, step: int) -> list[Metric]:
    now = milliseconds()
    return [Metric(key, value, now, step) for key, value in values.items()]


def milliseconds() -> int:
    """Now, as MLflow counts."""
    return int(time.time() * 1000)


def end(run_id: str, status: str) -> None:
    """Set a run's status: FINISHED, FAILED or KILLED."""
    new_client().set_terminated(run_id, status)


def finish(run_id: str) -> None:
    """End a run that was trained to its end, if nobody has ended it yet."""
    if is_local() and not layout.TRACKING_FILE.exists():
        return  # `track` makes it, with all runs
    if open_store().get_run(run_id).info.status == RunStatus.to_string(RunStatus.RUNNING):
        end(run_id, "FINISHED")


def experiment_of(client: MlflowClient, experiment: Experiment) -> str:
    """The id of a row's table in MLflow, which is made where there is none."""
    name = f"{experiment.edition}/{experiment.table}"
    return _beside_others(lambda: _table_called(client, name))


def _table_called(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    created = client.create_experiment(name)
    make_addresses_relative()
    return str(created)


def parent_of(client: MlflowClient, experiment: Experiment, experiment_id: str) -> str:
    wanted = {"kind": "row", "row": experiment.name}
    found = client.search_runs([experiment_id], filter_of(wanted), max_results=1)
    if found:
        return str(found[0].info.run_id)
    title = f"{experiment.dataset.name}, {experiment.row}"
    tags = {
        "kind": "row",
        "row": experiment.name,
        "edition": experiment.edition,
        "mlflow.note.content": f"{title}; a child run per seed and checkpoint",
    }
    return str(client.create_run(experiment_id, run_name=experiment.name, tags=tags).info.run_id)


def evaluated_in(run: Path) -> tuple[Experiment, dict[str, Any]] | None:
    """Experiment and lineage of a run folder; None where there are no numbers to log.

    As of a row whose published checkpoint is another row's.
    """
    metrics = read_object(run / "metrics.json")
    if "percent" not in metrics or not (run / "lineage.json").exists():
        return None
    lineage = read_object(run / "lineage.json") | metrics["lineage"]
    return evaluated_experiment(metrics, str(run / "metrics.json")), lineage


def _resolved(experiment: Experiment) -> dict[str, Any]:
    content = experiment.model_dump(
        mode="json", include={"data", "model", "training", "inference", "evaluation"}
    )
    content["features"] = experiment.features.model_dump(mode="json")
    return content


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
