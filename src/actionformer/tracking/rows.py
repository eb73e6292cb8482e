"""Runs of rows: the mean over their seeds, verdicts, and what was drawn of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from actionformer import layout
from actionformer.files.reading import read_object
from actionformer.params.experiment import Experiment
from actionformer.reporting.tables import best_of_seeds, intervals
from actionformer.reporting.verdict import verdict
from actionformer.tracking.artifacts import upload
from actionformer.tracking.models import describe_model
from actionformer.tracking.runs import evaluated_in, experiment_of, find, log_new, parent_of
from actionformer.tracking.store import LOCK, filter_of
from actionformer.training.history import best_epoch, read_history
from actionformer.training.observer import Record

# of a child run, that its row's run has, too
OF_A_ROW = (
    "git.commit",
    "trained",
    "data.version",
    "data.pinned",
    "protocol",
    "loading",
    "params",
)


def summarise(client: MlflowClient, run_id: str, experiment: Experiment) -> None:
    """Give a row's run the mean over seeds of the runs with the same kind and params as this one.

    The published checkpoint's metrics stand beside them, under released/, those of fused actions
    under actions/.
    """
    child = client.get_run(run_id)
    tags = child.data.tags
    parent, kind = tags["mlflow.parentRunId"], tags["kind"]
    latest = _of_seeds(client, child)
    means = means_of_row(kind, list(latest.values()))
    log_new(client, parent, means, step=experiment.training.epochs)
    client.set_terminated(parent, "FINISHED")
    if kind != "seed":
        return
    client.set_tag(parent, "seeds", " ".join(sorted(latest, key=int)))
    for key, judged in verdicts_of_row(experiment, list(latest.values())).items():
        client.set_tag(parent, f"verdict.{key}", judged)
    for name in OF_A_ROW:
        client.set_tag(parent, name, tags[name])


def _of_seeds(client: MlflowClient, child: Run) -> dict[str, dict[str, float]]:
    """Seed -> metrics of the runs with the same row, kind and params as this one."""
    return {seed: run.data.metrics for seed, run in runs_of_seeds(client, child).items()}


def runs_of_seeds(client: MlflowClient, child: Run) -> dict[str, Run]:
    """Seed -> the run with the same row, kind and params as this one."""
    tags = child.data.tags
    wanted = {
        "`mlflow.parentRunId`": tags["mlflow.parentRunId"],
        "kind": tags["kind"],
        "params": tags["params"],
        "evaluated": "true",
    }
    children = client.search_runs(
        [child.info.experiment_id], filter_of(wanted), order_by=["attributes.start_time DESC"]
    )
    # of a seed that was trained twice the latest run counts
    latest: dict[str, Run] = {}
    for run in children:
        latest.setdefault(run.data.tags["seed"], run)
    return latest


def means_of_row(kind: str, metrics_of_seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What the run of a row has of the metrics of its seeds, by MLflow's names."""
    prefix = "" if kind == "seed" else f"{kind}/"
    means = {}
    for key in metrics_of_seeds[0]:
        if "mAP/" in key or key.startswith("recall_"):
            mean = statistics.fmean(metrics[key] for metrics in metrics_of_seeds)
            means[f"{prefix}{key}"] = mean
    return means


def verdicts_of_row(
    experiment: Experiment, metrics_of_seeds: Sequence[Mapping[str, float]]
) -> dict[str, str]:
    """Whether each published number is reproduced; none where there is nothing to compare with."""
    if not experiment.comparable:
        return {}
    judged = {}
    for key, published in experiment.expect.published.items():
        values = [metrics[f"mAP/{key}"] for metrics in metrics_of_seeds]
        judged[f"mAP/{key}"] = verdict(published, values)
    return judged


def log_drawn(client: MlflowClient, row: Path) -> None:
    """What was drawn of the runs in a row's folder: figures, tables, the model card."""
    experiment = None
    for path in sorted(row.glob("seed*/metrics.json")):
        evaluated = evaluated_in(path.parent)
        if evaluated is None:
            continue
        experiment, lineage = evaluated
        run_id = find(client, experiment, lineage)
        if run_id is not None:
            drawn = sorted(layout.figures_of_run(path.parent).glob("*.svg"))
            upload(client, run_id, drawn, "figures")
    # actions, fused from nouns and verbs, have runs alone: what is drawn is drawn of the nouns
    if experiment is None or experiment.name != row.name:
        return
    with FileLock(LOCK):
        parent = parent_of(client, experiment, experiment_of(client, experiment))
    log_new(client, parent, beside_means(row), step=experiment.training.epochs)
    figures = row / layout.figures(experiment).name
    tables = row.parent / layout.tables(experiment.edition).name
    card = row / layout.model_card(experiment).name
    upload(client, parent, sorted(figures.glob("*.svg")), "figures")
    forms = [tables / f"{experiment.table}.{form}" for form in layout.TABLE_FORMS]
    upload(client, parent, forms, "tables")
    if card.exists():
        describe_model(client, experiment, card.read_text(encoding="utf-8"))


def beside_means(row: Path) -> dict[str, float]:
    """What tables have of a row beside its mean, by the names of the csv's columns.

    The bootstrap's intervals, where there are any, and what the best epochs score.
    """
    runs = sorted(path.parent for path in row.glob("seed*/metrics.json"))
    bootstrap = row / "bootstrap.json"
    chance = None
    if bootstrap.exists():
        told = read_object(bootstrap, "seeds", "mAP", "less_released_checkpoint")
        # of some of the seeds, it says nothing of their mean
        if {f"seed{seed}" for seed in told["seeds"]} == {run.name for run in runs}:
            chance = told
    best = [_best_epoch(run / "history.csv") for run in runs]
    percents = [read_object(run / "metrics.json").get("percent", {}) for run in runs]
    found = {}
    for key in percents[0]:
        columns = intervals(chance, key) | {"best_epoch_oracle": best_of_seeds(best, key)}
        for column, value in columns.items():
            if value is not None:
                found[f"{column}/{key}"] = value
    return found


def _best_epoch(history: Path) -> Record | None:
    return best_epoch(read_history(history)) if history.exists() else None
