"""What MLflow has: the folder of a run, the metrics of runs and rows, where to look at them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from actionformer import layout
from actionformer.errors import InputError
from actionformer.tracking.rows import runs_of_seeds
from actionformer.tracking.runs import evaluated_in, find
from actionformer.tracking.store import is_local, open_store

# shows a table's own runs, one per row and seed
EVALUATED = "tags.kind = 'seed' and tags.evaluated = 'true'"


def folder_of(run_id: str) -> Path:
    """The run folder that a child run in MLflow stands for.

    Raises:
        InputError: no such run here, or one of no folder.
    """
    tags = {}
    if not is_local() or layout.TRACKING_FILE.exists():
        with suppress(MlflowException):
            tags = open_store().get_run(run_id).data.tags
    if not {"kind", "edition", "row", "seed"} <= set(tags):
        raise InputError(f"{run_id}: no run in MLflow that stands for a run's folder")
    row = layout.results(tags["edition"]) / tags["row"]
    if tags["kind"] == "actions":
        row = row.with_name(f"{row.name}_actions")
    name = "released" if tags["kind"] == "released" else f"seed{tags['seed']}"
    # a run that another one has taken the place of lies under earlier/
    for run in (row / name, *sorted((row / layout.EARLIER).glob(f"{name}-*"))):
        evaluated = evaluated_in(run) if (run / "metrics.json").exists() else None
        if evaluated is not None and evaluated[1]["identity"] == tags.get("identity"):
            return run
    raise InputError(f"{run_id}: its run folder is not in {row} any more")


def logged_metrics(runs: Sequence[Path]) -> dict[Path, dict[str, float]]:
    """Run folder -> the metrics that MLflow has of it; without those of which it has none."""
    if is_local() and not layout.TRACKING_FILE.exists():
        return {}
    return {folder: dict(run.data.metrics) for folder, run in _logged(open_store(), runs)}


@dataclass(frozen=True)
class Summary:
    """The run of a row in MLflow."""

    kind: str
    # of the runs whose mean it has; none before it has one
    identities: Sequence[str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def logged_rows(runs: Sequence[Path]) -> dict[Path, Summary]:
    """Run folder -> the run of its row in MLflow; without those of which MLflow has no run."""
    client = open_store()
    return {folder: _summary(client, run) for folder, run in _logged(client, runs)}


def _logged(client: MlflowClient, folders: Sequence[Path]) -> Iterator[tuple[Path, Run]]:
    """Those of these run folders that MLflow has a run of, with it."""
    for folder in folders:
        evaluated = evaluated_in(folder)
        run_id = None if evaluated is None else find(client, *evaluated)
        if run_id is not None:
            yield folder, client.get_run(run_id)


def _summary(client: MlflowClient, child: Run) -> Summary:
    """What the run of a row says of its seeds."""
    parent = client.get_run(child.data.tags["mlflow.parentRunId"]).data
    identities = [run.data.tags["identity"] for run in runs_of_seeds(client, child).values()]
    if not any("mAP/" in key for key in parent.metrics):
        identities = []
    kind = child.data.tags["kind"]
    return Summary(kind, sorted(identities), dict(parent.metrics), dict(parent.tags))


def addresses(edition: str, base: str) -> list[str]:
    """Per results table the addresses under which `mlflow ui` lists and compares its runs."""
    client = open_store()
    lines = []
    best_first = f"orderByKey={quote('metrics.`mAP/average`')}&orderByAsc=false"
    listed = f"searchFilter={quote(EVALUATED)}&{best_first}"
    for found in sorted(client.search_experiments(), key=lambda table: int(table.experiment_id)):
        if not found.name.startswith(f"{edition}/"):
            continue
        runs = client.search_runs([found.experiment_id], EVALUATED)
        ids = quote(json.dumps([run.info.run_id for run in runs]))
        experiments = quote(json.dumps([found.experiment_id]))
        compared = f"runs={ids}&experiments={experiments}&numRequestedRuns={len(runs)}"
        lines += [
            f"{found.name}: {len(runs)} runs",
            f"  list     {base}/#/experiments/{found.experiment_id}/runs?{listed}",
            f"  compare  {base}/#/compare-runs?{compared}",
        ]
    return lines
