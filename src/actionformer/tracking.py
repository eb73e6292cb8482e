"""MLflow: an experiment per results table, a parent run per row, a child run per seed and published
checkpoint.

Nothing else knows MLflow.

The run folder is the record, MLflow a view of it: `restore` makes the view anew from the folders.
The tracking URI is left unset, so that `mlflow ui` in the same folder finds sqlite:///mlflow.db;
MLFLOW_TRACKING_URI is honoured.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from filelock import FileLock
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from actionformer import layout, provenance
from actionformer.errors import InputError
from actionformer.files import digest, file_md5, read_json, write_text
from actionformer.params.experiment import Experiment
from actionformer.params.files import as_yaml, evaluated_experiment
from actionformer.progress import progress

LOCK = Path("build/mlflow.lock")
ARTIFACTS = (
    "checkpoint.pt",
    "model.pt",
    "history.csv",
    "lineage.json",
    "detections.json",
    "metrics.json",
    "diagnosis.json",
)
SAMPLE_SECONDS = 5.0
"""between two system metrics, unless MLflow's own variable says otherwise"""


class Careful:
    """Calls the functions of this module for one run folder, and never fails.

    The run folder is the record, MLflow a view of it: what goes wrong there is said once, on stderr
    and in the folder, nothing more is tried by this process, and `actionformer track` brings the
    run in later.
    """

    def __init__(self, folder: Path) -> None:
        self._note = folder / layout.UNTRACKED
        self._failed = False

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns; None once something has failed."""
        if self._failed:
            return None
        try:
            return function(*arguments)
        except (
            Exception
        ) as error:  # MLflow, SQLAlchemy, a server or the disk: none of them may end a training
            self._say(error)
            return None

    @contextmanager
    def watching(self, run_id: str | None) -> Iterator[None]:
        """`system_metrics`, where they can be had."""
        monitor = None if run_id is None else self(_monitor, run_id)
        try:
            yield
        finally:
            if monitor is not None:
                self(monitor.finish)

    def _say(self, error: Exception) -> None:
        self._failed = True
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        text = f"MLflow failed ({reason}); nothing else is lost, `actionformer track` brings {self._note.parent} in"
        print(text, file=sys.stderr, flush=True)
        with suppress(OSError):  # a full disk, which may be why MLflow failed
            write_text(self._note, f"{text}\n")


def open_store() -> MlflowClient:
    """A client of a store that exists: of several processes that find none, one makes it."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCK):
        client = MlflowClient()
        client.search_experiments(max_results=1)
    return client


def start(experiment: Experiment, lineage: Mapping[str, Any], run_id: str | None) -> str:
    """Go on with a child run, or begin one; returns its id.

    Either way its tags tell the present lineage.

    A run keeps the params it began with: other params, even those of post-processing alone, begin
    another run.
    """
    client = open_store()
    if run_id is not None and _tag(client, run_id, "params") == lineage["params"]:
        client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        tag(run_id, experiment, lineage)
        return run_id
    with FileLock(LOCK):
        experiment_id = _experiment(client, experiment)
        parent = _parent(client, experiment, experiment_id)
    name = layout.run_name(
        experiment.name, lineage["seed"], lineage["identity"], lineage.get("kind", "")
    )
    tags = _tags(experiment, lineage) | {"mlflow.parentRunId": parent}
    run = client.create_run(experiment_id, run_name=name, tags=tags)
    params = [Param(key, str(value)[:6000]) for key, value in _flat(_resolved(experiment))]
    if lineage["seed"] is not None:
        params.append(Param("seed", str(lineage["seed"])))
    for first in range(0, len(params), 100):
        client.log_batch(run.info.run_id, params=params[first : first + 100])
    return str(run.info.run_id)


def tag(run_id: str, experiment: Experiment, lineage: Mapping[str, Any]) -> None:
    """Let a run's tags tell this lineage."""
    tags = [RunTag(key, value) for key, value in _tags(experiment, lineage).items()]
    MlflowClient().log_batch(run_id, tags=tags)


def rename(experiment: Experiment, before: Mapping[str, Any], lineage: Mapping[str, Any]) -> None:
    """Let the run of an earlier lineage, if there is one, go by its present names."""
    client = open_store()
    run_id = _find(client, experiment, before)
    if run_id is not None:
        kind = lineage.get("kind", "")
        client.update_run(
            run_id,
            name=layout.run_name(experiment.name, lineage["seed"], lineage["identity"], kind),
        )
        tag(run_id, experiment, lineage)


def _tags(experiment: Experiment, lineage: Mapping[str, Any]) -> dict[str, str]:
    """Where a run's numbers come from."""
    kind = lineage.get("kind") or ("released" if lineage["seed"] is None else "seed")
    what = {
        "released": "the published checkpoint, not trained here",
        "actions": f"seed {lineage['seed']}, fused with {experiment.actions_with} into actions",
    }.get(kind, f"seed {lineage['seed']}")
    sessions = provenance.trained_by(lineage, experiment.training.epochs)
    computed_by = sessions or [provenance.evaluated_by(lineage)]
    data = f"`{lineage['data_version'][:12]}`{'' if lineage['pinned'] else ', not as pinned'}"
    return {
        "mlflow.note.content": (
            f"**{experiment.dataset.name}, {experiment.row}**: {what}, {experiment.edition} edition.\n\n"
            f"Data {data}, commit {_each(computed_by, 'git', 'commit')}. Evaluated: {experiment.dataset.protocol}. "
            f"Loading: {experiment.data.loading_text}."
        ),
        "kind": kind,
        "edition": experiment.edition,
        "row": experiment.name,
        "seed": str(lineage["seed"]),
        "protocol": experiment.dataset.protocol,
        "loading": experiment.data.loading_text,
        "remark": experiment.dataset.remark or "",
        "identity": lineage["identity"],
        "params": lineage["params"],
        "trained": provenance.history_text(sessions) or "not here",
        "git.commit": _each(computed_by, "git", "commit"),
        "git.dirty": str(any(part["git"]["dirty"] for part in computed_by)).lower(),
        "data.version": lineage["data_version"],
        "data.files": json.dumps(lineage["files"]),
        "data.pinned": str(lineage["pinned"]).lower(),
        "lock": _each(computed_by, "environment", "lock"),
        "processor": _each(computed_by, "environment", "processor"),
        "torch": _each(computed_by, "environment", "torch"),
    }


def _each(sessions: Sequence[Mapping[str, Any]], part: str, key: str) -> str:
    """What the sessions that computed a run say of themselves, each once, in their order."""
    return ", ".join(dict.fromkeys(str(session[part][key]) for session in sessions))


def log_epoch(run_id: str, epoch: int, record: Mapping[str, float]) -> None:
    """Metrics of one epoch, at step `epoch`."""
    client = MlflowClient()
    now = int(time.time() * 1000)
    client.log_batch(
        run_id, metrics=[Metric(key, value, now, epoch) for key, value in record.items()]
    )


def log_history(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    """Metrics of all epochs so far, where the run lacks them: MLflow would keep a second value of
    the same step.
    """
    known = {metric.step for metric in MlflowClient().get_metric_history(run_id, "loss/total")}
    for epoch, record in enumerate(history):
        if epoch not in known:
            log_epoch(run_id, epoch, record)


def log_result(run: Path) -> str:
    """Metrics and artifacts of an evaluated run folder, into its child run; returns the run's id.

    A folder of a published checkpoint has no history.

    Metrics under other post-processing or evaluation params than the run has, or in a store that
    lacks the run, become a run of their own.
    """
    client = open_store()
    metrics, trained = read_json(run / "metrics.json"), read_json(run / "lineage.json")
    experiment = evaluated_experiment(metrics, str(run / "metrics.json"))
    lineage = trained | metrics["lineage"]
    run_id = start(experiment, lineage, _find(client, experiment, lineage))
    if (run / "history.csv").exists():
        table = pd.read_csv(run / "history.csv", float_precision="round_trip").drop(columns="epoch")
        log_history(
            run_id,
            [{str(k): float(v) for k, v in row.dropna().items()} for _, row in table.iterrows()],
        )
    _log_new(client, run_id, metrics["percent"], step=experiment.training.epochs)
    _log_artifacts(client, run_id, run, experiment)
    earlier = run.parent.name == layout.EARLIER
    client.set_tag(run_id, "evaluated", "earlier" if earlier else "true")
    client.set_terminated(run_id, "FINISHED")
    if not earlier:
        with FileLock(LOCK):
            _summarise(client, run_id, experiment)
    (run / layout.UNTRACKED).unlink(missing_ok=True)
    return run_id


def _log_artifacts(client: MlflowClient, run_id: str, run: Path, experiment: Experiment) -> None:
    """The files of a run folder and its params; of those the run already has the ones that have
    changed since.
    """
    known = json.loads(_tag(client, run_id, "artifacts") or "{}")
    params = as_yaml(experiment)
    found = {name: file_md5(run / name) for name in ARTIFACTS if (run / name).exists()}
    for name, md5 in found.items():
        if known.get(name) != md5:
            client.log_artifact(run_id, str(run / name))
    found["params.yaml"] = digest(params)
    if known.get("params.yaml") != found["params.yaml"]:
        client.log_text(run_id, params, "params.yaml")
    client.set_tag(run_id, "artifacts", json.dumps(found))


def log_pictures(experiment: Experiment, seeds: Sequence[int]) -> None:
    """Figures and tables, as they lie in the results, into the runs of a row: each seed's its own,
    the row's all.
    """
    client = open_store()
    for seed in seeds:
        run = layout.run(experiment.edition, experiment.name, seed)
        lineage = read_json(run / "lineage.json") | read_json(run / "metrics.json")["lineage"]
        run_id = _find(client, experiment, lineage)
        if run_id is not None and layout.figures_of_run(run).is_dir():
            client.log_artifacts(run_id, str(layout.figures_of_run(run)), "figures")
    with FileLock(LOCK):
        parent = _parent(client, experiment, _experiment(client, experiment))
    for picture in sorted(layout.figures(experiment).glob("*.svg")):
        client.log_artifact(parent, str(picture), "figures")
    for form in layout.TABLE_FORMS:
        table = layout.tables(experiment.edition) / f"{experiment.table}.{form}"
        if table.exists():
            client.log_artifact(parent, str(table), "tables")


def _summarise(client: MlflowClient, run_id: str, experiment: Experiment) -> None:
    """Give a row's run the mean over seeds of the runs with the same kind and params as this one.

    The published checkpoint's metrics stand beside them, under released/, those of fused actions
    under actions/.
    """
    child = client.get_run(run_id)
    parent, params, kind = (
        child.data.tags[tag] for tag in ("mlflow.parentRunId", "params", "kind")
    )
    children = client.search_runs(
        [child.info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent}' and tags.kind = '{kind}' and tags.params = '{params}' "
        "and tags.evaluated = 'true'",
        order_by=["attributes.start_time DESC"],
    )
    latest: dict[str, dict[str, float]] = {}
    for run in children:
        latest.setdefault(run.data.tags["seed"], run.data.metrics)
    keys = [key for key in child.data.metrics if "mAP/" in key or key.startswith("recall_")]
    prefix = "" if kind == "seed" else f"{kind}/"
    means = {
        f"{prefix}{key}": statistics.fmean(metrics[key] for metrics in latest.values())
        for key in keys
    }
    _log_new(client, parent, means, step=experiment.training.epochs)
    client.set_terminated(parent, "FINISHED")
    if kind != "seed":
        return
    client.set_tag(parent, "seeds", " ".join(sorted(latest, key=int)))
    for tag in (
        "git.commit",
        "trained",
        "data.version",
        "data.pinned",
        "protocol",
        "loading",
        "params",
    ):
        client.set_tag(parent, tag, child.data.tags[tag])


def _log_new(client: MlflowClient, run_id: str, metrics: Mapping[str, float], *, step: int) -> None:
    """Log what differs from the run's latest values, so that evaluating again adds nothing."""
    known, now = client.get_run(run_id).data.metrics, int(time.time() * 1000)
    new = [
        Metric(key, value, now, step) for key, value in metrics.items() if known.get(key) != value
    ]
    if new:
        client.log_batch(run_id, metrics=new)


def end(run_id: str, status: str) -> None:
    """Set a run's status: FINISHED, FAILED or KILLED."""
    MlflowClient().set_terminated(run_id, status)


def _monitor(run_id: str) -> SystemMetricsMonitor:
    """Begins to log CPU, memory, disk and GPU use of this machine, until it is told to finish."""
    seconds = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SAMPLE_SECONDS
    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=seconds, samples_before_logging=1, resume_logging=True
    )
    monitor.start()
    return monitor


def restore(results: Path) -> int:
    """Bring every finished run folder that the store lacks, or has but in part, into it; returns
    how many there were.

    Runs that were set aside are brought in, too.
    """
    client = open_store()
    finished: list[Path] = []
    for pattern in ("*/*/seed*", "*/*/released", f"*/*/{layout.EARLIER}/*"):
        finished += [path.parent for path in results.glob(f"{pattern}/metrics.json")]
    # runs that were set aside come last: one of the same identity is the one that has taken its
    # place
    finished.sort(key=lambda run: (run.parent.name == layout.EARLIER, run))
    count = 0
    for run in progress(finished, "restore runs", unit="run"):
        try:
            count += _restored(client, run)
        except InputError as error:
            print(f"{run}: left out: {error}", file=sys.stderr)
    _restore_pictures(results)
    return count


def _restored(client: MlflowClient, run: Path) -> bool:
    """Bring a run folder into the store, if that lacks it; says whether it did."""
    metrics = read_json(run / "metrics.json")
    if (
        "percent" not in metrics or not (run / "lineage.json").exists()
    ):  # a row without a published checkpoint
        return False
    lineage = read_json(run / "lineage.json") | metrics["lineage"]
    experiment = evaluated_experiment(metrics, str(run / "metrics.json"))
    found = _find(client, experiment, lineage)
    whole = found is not None and _tag(client, found, "evaluated") is not None
    if whole and not (run / layout.UNTRACKED).exists():
        return False
    log_result(run)
    if run.name == f"seed{lineage['seed']}" and "kind" not in lineage:
        log_pictures(experiment, [lineage["seed"]])
    return True


def _restore_pictures(results: Path) -> None:
    """Figures and tables of the rows where logging them failed."""
    for note in sorted(results.glob(f"*/*/{layout.UNTRACKED}")):
        runs = sorted(note.parent.glob("seed*/metrics.json"))
        if runs:
            experiment = evaluated_experiment(read_json(runs[0]), str(runs[0]))
            log_pictures(experiment, [int(run.parent.name.removeprefix("seed")) for run in runs])
        note.unlink()


EVALUATED = "tags.kind = 'seed' and tags.evaluated = 'true'"
"""the filter that shows a table's own runs, one per row and seed"""


def addresses(edition: str, base: str) -> list[str]:
    """Per results table of an edition the addresses under which `mlflow ui` lists and compares its
    runs.
    """
    client, lines = open_store(), []
    for found in sorted(client.search_experiments(), key=lambda e: int(e.experiment_id)):
        if not found.name.startswith(f"{edition}/"):
            continue
        runs = client.search_runs([found.experiment_id], EVALUATED)
        listed = f"searchFilter={quote(EVALUATED)}&orderByKey={quote('metrics.`mAP/average`')}&orderByAsc=false"
        ids, experiments = (
            json.dumps([run.info.run_id for run in runs]),
            json.dumps([found.experiment_id]),
        )
        compared = (
            f"runs={quote(ids)}&experiments={quote(experiments)}&numRequestedRuns={len(runs)}"
        )
        lines += [
            f"{found.name}: {len(runs)} runs",
            f"  list     {base}/#/experiments/{found.experiment_id}/runs?{listed}",
            f"  compare  {base}/#/compare-runs?{compared}",
        ]
    return lines


# --------------------------------------------------------------------------------------- internals


def _experiment(client: MlflowClient, experiment: Experiment) -> str:
    name = f"{experiment.edition}/{experiment.table}"
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id) if found is not None else str(client.create_experiment(name))


def _parent(client: MlflowClient, experiment: Experiment, experiment_id: str) -> str:
    found = client.search_runs(
        [experiment_id], f"tags.kind = 'row' and tags.row = '{experiment.name}'", max_results=1
    )
    if found:
        return str(found[0].info.run_id)
    tags = {
        "kind": "row",
        "row": experiment.name,
        "edition": experiment.edition,
        "mlflow.note.content": f"{experiment.dataset.name}, {experiment.row}; a child run per seed and checkpoint",
    }
    return str(client.create_run(experiment_id, run_name=experiment.name, tags=tags).info.run_id)


def _find(client: MlflowClient, experiment: Experiment, lineage: Mapping[str, Any]) -> str | None:
    """The child run of these params and data: the one that trained, or one of this identity in this
    store.
    """
    trained = lineage.get("mlflow_run")  # none trained the published checkpoint
    if trained is not None and _tag(client, trained, "identity") == lineage["identity"]:
        return str(trained)
    wanted = {
        "identity": lineage["identity"],
        "edition": experiment.edition,
        "row": experiment.name,
        "seed": str(lineage["seed"]),
    }
    found = client.search_runs(
        [e.experiment_id for e in client.search_experiments()],
        " and ".join(f"tags.{key} = '{value}'" for key, value in wanted.items()),
        max_results=1,
    )
    return str(found[0].info.run_id) if found else None


def _tag(client: MlflowClient, run_id: str, name: str) -> str | None:
    """A tag of a run; None where there is no such run, or it was deleted."""
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    return run.data.tags.get(name) if run.info.lifecycle_stage == "active" else None


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
