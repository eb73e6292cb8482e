"""The results tables: published value, our value, difference, and where our value comes from.

A cell of the published page is one tIoU threshold or the average over all of the row's thresholds.
`Table` is what a table says; `table_forms` writes it in several languages.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actionformer import provenance
from actionformer.params.dataset import Dataset
from actionformer.params.experiment import OWN, Experiment
from actionformer.reporting.verdict import tolerance, verdict

# columns of where the numbers come from
ORIGIN = (
    "features",
    "seeds",
    "protocol",
    "loading",
    "evaluated",
    "data version",
    "pinned",
    "trained",
    "threads",
    "locks",
    "MLflow run",
)

AVERAGE = "average mAP"
# a paired bootstrap
BESIDE = "less released (bootstrap)"
# stands for the version of data that is in none
OWN_FILES = "own files"


@dataclass(frozen=True)
class Run:
    """One seed of a row, as its run folder tells it."""

    seed: int
    percent: Mapping[str, float]
    videos: int
    instances: int
    lineage: Mapping[str, Any]
    mlflow_name: str
    # percent after the epoch with the highest average mAP; None where no epoch was evaluated
    best: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Released:
    """The published checkpoint of a row, evaluated here; or why there is none."""

    percent: Mapping[str, float]
    why_none: str
    mlflow_name: str


@dataclass(frozen=True)
class Row:
    """One row of a results table with all its seeds."""

    experiment: Experiment
    runs: Sequence[Run]
    released: Released | None = None
    # of a row of nouns: its seeds fused with those of a row of verbs
    actions: Sequence[Run] = ()
    # bootstrap.json, where the row's numbers compare with published ones
    chance: Mapping[str, Any] | None = None

    def metrics(self) -> list[tuple[str, str]]:
        """(heading, key in metrics.json) per column, in the published order."""
        keys = list(self.experiment.expect.published)
        if not keys:
            keys = [*(f"{tiou:g}" for tiou in self.experiment.evaluation.tiou), "average"]
        columns = []
        for key in keys:
            heading = AVERAGE if key == "average" else f"mAP@{key}"
            columns.append((heading, f"mAP/{key}"))
        return columns

    def published(self, heading: str) -> float | None:
        """The published value of a column, where there is one."""
        key = "average" if heading == AVERAGE else heading.removeprefix("mAP@")
        return self.experiment.expect.published.get(key)

    def values(self, key: str) -> list[float]:
        """A metric of every seed."""
        return [run.percent[key] for run in self.runs]

    def best(self, key: str) -> float | None:
        """A metric of every seed's best epoch, in the mean; None where a seed has none."""
        return best_of_seeds([run.best for run in self.runs], key)


def best_of_seeds(best: Sequence[Mapping[str, float] | None], key: str) -> float | None:
    """The mean of a metric over the best epoch of each seed; None where a seed has none.

    The epoch is chosen on the videos that it is scored on, which only an oracle can.
    """
    values = [epoch.get(key) for epoch in best if epoch is not None]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(best) else None


def cell(value: float | None) -> str:
    """Percent with two digits, as published."""
    return "n/a" if value is None else f"{value:.2f}"


def cell_of_seeds(values: Sequence[float]) -> str:
    """Mean and spread over seeds."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return cell(statistics.fmean(values)) + spread


def records(row: Row) -> list[dict[str, Any]]:
    """One record per cell of a row, with full precision, by the names of the csv's columns."""
    experiment = row.experiment
    common: dict[str, Any] = {
        "seeds": " ".join(str(run.seed) for run in row.runs),
        "protocol": experiment.dataset.protocol,
        "loading": experiment.data.loading_text,
        "licence": experiment.dataset.licence,
        "citation": experiment.dataset.citation,
        "remark": experiment.dataset.remark,
        "departs": "; ".join(experiment.departs) or None,
        "videos": row.runs[0].videos,
        "instances": row.runs[0].instances,
        "data_version": data_version(experiment, row.runs),
        "data_pinned": all(run.lineage["pinned"] for run in row.runs),
        "trained": trained(row.runs),
        "threads": experiment.training.threads,
        "locks": " ".join(locks(row.runs)),
        "mlflow_runs": " ".join(run.mlflow_name for run in row.runs),
    }
    result = []
    for heading, key in row.metrics():
        values, published = row.values(key), row.published(heading)
        mean = statistics.fmean(values)
        difference = allowed = judged = None
        if experiment.comparable and published is not None:
            difference, allowed = mean - published, tolerance(values)
            judged = verdict(published, values)
        record: dict[str, Any] = {
            "table": experiment.dataset.name,
            "row": experiment.row,
            "experiment": experiment.name,
            "metric": heading,
            "published": published,
            "reproduced": mean,
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "difference": difference,
            "tolerance": allowed,
            "verdict": judged,
            **intervals(row.chance, key),
            "best_epoch_oracle": row.best(key),
            "released_checkpoint": None if row.released is None else row.released.percent.get(key),
        }
        result.append(record | common)
    return result


def intervals(chance: Mapping[str, Any] | None, key: str) -> dict[str, float | None]:
    """The bootstrap's intervals of a cell: of ours, and of ours less the published checkpoint's.

    Args:
        chance: bootstrap.json, where there is one.
    """
    name = key.removeprefix("mAP/")
    found: dict[str, float | None] = {}
    for column, part in (("videos", "mAP"), ("less_released", "less_released_checkpoint")):
        interval = {} if chance is None else chance[part].get(name, {})
        for end in ("low", "high"):
            found[f"{column}_{end}"] = interval.get(end)
    return found


def data_version(experiment: Experiment, runs: Sequence[Run]) -> str:
    """The version of the data that these runs used; all of them, if they differ.

    Files of one's own are in no version: the model card has the md5 of each.
    """
    if experiment.edition == OWN:
        return OWN_FILES
    return " ".join(sorted({run.lineage["data_version"] for run in runs}))


def locks(runs: Sequence[Run]) -> list[str]:
    """md5 of each lock file under which these runs were trained and evaluated, each once.

    Never of the one under which the table is made.
    """
    found = [lock for run in runs for lock in provenance.locks(run.lineage)]
    return list(dict.fromkeys(found))


def trained(runs: Sequence[Run]) -> str:
    """Who trained which epochs: once where all seeds have the same history."""
    texts = {run.seed: provenance.history_text(run.lineage["trained_by"]) for run in runs}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"seed {seed}, {text}" for seed, text in texts.items())


# ------------------------------------------------------------------------------- what a table says


class Code(str):
    """A cell that is a name for machines: set in a fixed width."""


class Strong(str):
    """A cell that must not be overlooked."""


@dataclass(frozen=True)
class Grid:
    """A header and rows of cells; the columns from `numbers` on are right-aligned numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int


@dataclass(frozen=True)
class Average:
    """A row's average mAP, as it is written."""

    experiment: str
    features: str
    published: str
    here: str


@dataclass(frozen=True)
class Table:
    """One table of the page: the published columns, then where the numbers come from."""

    name: str
    title: str
    edition: str
    # why the edition's numbers don't compare, if they don't
    remark: str
    # what is to be said of the data set
    data_remark: str
    # whose the data set is, under which licence, and what to cite
    credit: str
    # of every row that departs from its published params: how
    departures: Sequence[str]
    # a row in a line
    averages: Sequence[Average]
    # a few lines per row
    results: Grid
    recall: Grid | None
    # nouns and verbs fused; there is no published value in the tables reproduced here
    actions: Grid | None
    origin: Grid
    # what the published checkpoints are, then a line per row; empty where there are none
    released: Sequence[str]


def table_of(name: str, title: str, rows: Sequence[Row], *, edition: str, remark: str) -> Table:
    """What a table says of these rows; `remark` says why the edition's numbers don't compare."""
    headings = []
    for heading, _ in rows[0].metrics():
        if heading == AVERAGE:
            heading += f" ({_span(rows[0].experiment.evaluation.tiou)})"
        headings.append(heading)
    checkpoints = any(row.released is not None for row in rows)
    results, origin = [], []
    for row in rows:
        title_of_row = row.experiment.row
        for what, cells in _lines(row, checkpoints=checkpoints):
            results.append([title_of_row, what, *cells])
            title_of_row = ""  # said once
        origin.append(_origin(row.experiment.row, row, row.runs))
        if row.actions:
            origin.append(_origin("nouns and verbs fused", row, row.actions))
    return Table(
        name=name,
        title=title,
        edition=edition,
        remark=remark,
        data_remark=rows[0].experiment.dataset.remark or "",
        credit=credit(rows[0].experiment.dataset),
        departures=_departures(rows),
        averages=[_average(row) for row in rows],
        results=Grid(["features", "", *headings], results, numbers=2),
        recall=_recall(rows),
        actions=_actions(rows, headings),
        origin=Grid(ORIGIN, origin, numbers=len(ORIGIN)),
        released=_released_lines(edition, rows),
    )


def credit(dataset: Dataset) -> str:
    """Whose data numbers stand on, in sentences."""
    homepage = f" ({dataset.homepage})" if dataset.homepage else ""
    cite = f" Cite: {dataset.citation}." if dataset.citation else ""
    return f"Data set: {dataset.name}{homepage}. Licence: {dataset.licence}.{cite}"


def _origin(title: str, row: Row, runs: Sequence[Run]) -> list[str]:
    """Where the numbers of these runs come from; the columns are `ORIGIN`."""
    experiment = row.experiment
    names = ", ".join(run.mlflow_name for run in runs)
    pinned = "yes" if all(run.lineage["pinned"] for run in runs) else Strong("no")
    if experiment.edition == OWN:
        pinned = "–"
    return [
        title,
        " ".join(str(run.seed) for run in runs),
        experiment.dataset.protocol,
        experiment.data.loading_text,
        f"{runs[0].videos} videos, {runs[0].instances} instances",
        Code(data_version(experiment, runs)),
        pinned,
        trained(runs),
        str(experiment.training.threads),
        Code(", ".join(lock[:8] for lock in locks(runs))),
        Code(f"{experiment.edition}/{experiment.table} > {names}"),
    ]


def _lines(row: Row, *, checkpoints: bool) -> list[tuple[str, list[str]]]:
    """What stands in a row's lines, and its cells."""
    found = records(row)
    reproduced = [cell_of_seeds(row.values(key)) for _, key in row.metrics()]
    lines = [(ours(row.experiment), reproduced)]
    if row.experiment.expect.published:
        differences = []
        for record in found:
            difference = record["difference"]
            differences.append("n/a" if difference is None else f"{difference:+.2f}")
        published = [cell(record["published"]) for record in found]
        lines = [("published", published), *lines, ("difference", differences)]
        if any(record["tolerance"] is not None for record in found):
            tolerances = [f"± {record['tolerance']:.2f}" for record in found]
            lines.append(("tolerance", tolerances))
        if any(record["verdict"] is not None for record in found):
            lines.append(("verdict", [record["verdict"] or "n/a" for record in found]))
    for words, column in (("videos (bootstrap)", "videos"), (BESIDE, "less_released")):
        if any(record[f"{column}_low"] is not None for record in found):
            lines.append((words, [_span_of(record, column) for record in found]))
    if any(record["best_epoch_oracle"] is not None for record in found):
        best = [cell(record["best_epoch_oracle"]) for record in found]
        lines.append(("best epoch (oracle)", best))
    if checkpoints:
        scores = [cell(record["released_checkpoint"]) for record in found]
        lines.append((checkpoint(row.experiment), scores))
    return lines


def _span_of(record: Mapping[str, Any], column: str) -> str:
    low, high = record[f"{column}_low"], record[f"{column}_high"]
    if low is None:
        return "n/a"
    sign = "+" if column == "less_released" else ""
    return f"{low:{sign}.2f} to {high:{sign}.2f}"


def _average(row: Row) -> Average:
    experiment = row.experiment
    heading, key = row.metrics()[-1]
    return Average(
        experiment.name,
        experiment.row + (" (departs)" if experiment.departs else ""),
        cell(row.published(heading)),
        cell_of_seeds(row.values(key)),
    )


def _departures(rows: Sequence[Row]) -> list[str]:
    """A sentence per row that was made with other params than its own."""
    lines = []
    for row in rows:
        experiment = row.experiment
        if experiment.departs:
            told = "; ".join(experiment.departs)
            lines.append(f"{experiment.row} departs from the row's params: {told}")
    return lines


def _span(tiou: Sequence[float]) -> str:
    """first:last:step of evenly spaced thresholds, as the published page writes them."""
    step = f":{tiou[1] - tiou[0]:g}" if len(tiou) > 1 else ""
    return f"{tiou[0]:g}:{tiou[-1]:g}{step}"


def ours(experiment: Experiment) -> str:
    """What a table calls the numbers made here.

    Where there are others to compare with, the edition's are its own.
    """
    if experiment.comparable:
        return "reproduced"
    if not experiment.expect.published:
        return "here"
    if experiment.departs:
        return "departing"
    return experiment.edition


def checkpoint(experiment: Experiment) -> str:
    """What a table calls a checkpoint that is evaluated without training.

    The demo's were not released by anybody.
    """
    return f"{'released' if experiment.comparable else experiment.edition} checkpoint"


def _released_lines(edition: str, rows: Sequence[Row]) -> list[str]:
    """Which checkpoints were evaluated, and which rows have none, if any has one."""
    if all(row.released is None for row in rows):
        return []
    what = checkpoint(rows[0].experiment).capitalize()
    # in the published layout: that published checkpoints can be read is what they show
    drawn = " (drawn weights: they find nothing)" if edition == "demo" else ""
    lines = [f"{what}{drawn}, evaluated without training:"]
    for row in rows:
        if row.released is None:
            found = f"none in the {edition} edition"
        elif row.released.why_none:
            found = f"none: {row.released.why_none}"
        else:
            found = f"MLflow run {row.released.mlflow_name}"
        lines.append(f"{row.experiment.row}: {found}")
    return lines


def _recall(rows: Sequence[Row]) -> Grid | None:
    """Recall@kx of every row, for the data sets whose params ask for it."""
    keys = [key for key in rows[0].runs[0].percent if key.startswith("recall_")]
    if not keys:
        return None
    body = []
    for row in rows:
        means = [cell(statistics.fmean(row.values(key))) for key in keys]
        body.append([row.experiment.row, *means])
    header = ["features", *(recall_heading(key) for key in keys)]
    return Grid(header, body, numbers=1)


def _actions(rows: Sequence[Row], headings: Sequence[str]) -> Grid | None:
    """Nouns, verbs and actions of the fused detections, mean over seeds."""
    body = []
    for row in rows:
        if not row.actions:
            continue
        for task in ("noun", "verb", "action"):
            cells = []
            for _, key in row.metrics():
                values = [run.percent[f"{task}/{key}"] for run in row.actions]
                cells.append(cell_of_seeds(values))
            body.append([f"fused: {task}", *cells])
    if not body:
        return None
    return Grid(["noun and verb rows fused", *headings], body, numbers=1)


def recall_heading(key: str) -> str:
    """recall_1x/0.5 -> R@1x, 0.5"""
    multiple, tiou = key.removeprefix("recall_").split("/")
    return f"R@{multiple}, {tiou}"
