"""The results tables: published value, our value, difference, and where our value comes from.

A cell of the published page is one tIoU threshold or the average over all of the row's thresholds.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actionformer.experiment import Experiment

COLUMNS = (
    "table", "row", "experiment", "metric", "published", "reproduced", "std", "difference", "released_checkpoint",
    "seeds", "protocol", "videos", "instances", "data_version", "data_pinned", "threads", "mlflow_runs",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One seed of a row, as its run folder tells it."""

    seed: int
    percent: Mapping[str, float]
    videos: int
    instances: int
    lineage: Mapping[str, Any]
    mlflow_name: str


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

    def metrics(self) -> list[tuple[str, str]]:
        """(heading, key in metrics.json) per column, in the published order."""
        published = self.experiment.expect.published
        keys = list(published) or [*(f"{t:g}" for t in self.experiment.evaluation.tiou), "average"]
        return [("average mAP" if key == "average" else f"mAP@{key}", f"mAP/{key}") for key in keys]

    def published(self, heading: str) -> float | None:
        key = "average" if heading == "average mAP" else heading.removeprefix("mAP@")
        return self.experiment.expect.published.get(key)

    def values(self, key: str) -> list[float]:
        return [run.percent[key] for run in self.runs]


def cell(value: float | None) -> str:
    """Percent with two digits, as published."""
    return "n/a" if value is None else f"{value:.2f}"


def records(row: Row) -> list[dict[str, Any]]:
    """One record per cell of a row, with full precision; the keys are `COLUMNS`."""
    experiment = row.experiment
    lineages = [run.lineage for run in row.runs]
    result = []
    for heading, key in row.metrics():
        values, published = row.values(key), row.published(heading)
        mean = statistics.fmean(values)
        comparable = experiment.comparable and published is not None
        result.append(
            {
                "table": experiment.dataset.name,
                "row": experiment.row,
                "experiment": experiment.name,
                "metric": heading,
                "published": published,
                "reproduced": mean,
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "difference": mean - published if comparable and published is not None else None,
                "released_checkpoint": None if row.released is None else row.released.percent.get(key),
                "seeds": " ".join(str(run.seed) for run in row.runs),
                "protocol": experiment.dataset.protocol_text(),
                "videos": row.runs[0].videos,
                "instances": row.runs[0].instances,
                "data_version": " ".join(sorted({lineage["data_version"] for lineage in lineages})),
                "data_pinned": all(lineage["pinned"] for lineage in lineages),
                "threads": experiment.training.threads,
                "mlflow_runs": " ".join(run.mlflow_name for run in row.runs),
            }
        )
    return result


def as_csv(rows: Sequence[Row]) -> str:
    """All cells of a table, one per line."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerows({k: "n/a" if v is None else v for k, v in record.items()} for record in records(row))
    return buffer.getvalue()


def as_markdown(title: str, rows: Sequence[Row], *, edition: str, remark: str) -> str:
    """One table of the page: the published columns, a few lines per row, then where the numbers come from."""
    headings = [
        f"{heading} ({_span(rows[0].experiment.evaluation.tiou)})" if heading == "average mAP" else heading
        for heading, _ in rows[0].metrics()
    ]
    lines = [f"## {title}", ""]
    if remark:
        lines += [f"**{edition} edition.** {remark}", ""]
    lines.append("| features | | " + " | ".join(headings) + " |")
    lines.append("|---|---|" + "---:|" * len(headings))
    for row in rows:
        found = records(row)
        reproduced = [cell(r["reproduced"]) + (f" ± {r['std']:.2f}" if r["std"] is not None else "") for r in found]
        label = "reproduced" if row.experiment.comparable else f"{edition}"
        lines_of_row = [
            ("published", [cell(r["published"]) for r in found]),
            (label, reproduced),
            ("difference", ["n/a" if r["difference"] is None else f"{r['difference']:+.2f}" for r in found]),
        ]
        if not row.experiment.expect.published:
            lines_of_row = [("reproduced", reproduced)]
        if any(other.released is not None for other in rows):
            lines_of_row.append((_checkpoint(edition, row), [cell(r["released_checkpoint"]) for r in found]))
        for i, (what, cells) in enumerate(lines_of_row):
            lines.append(f"| {row.experiment.row if i == 0 else ''} | {what} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| features | seeds | protocol | evaluated | data version | pinned | threads | MLflow run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first = records(row)[0]
        pinned = "yes" if first["data_pinned"] else "**no**"
        lines.append(
            f"| {row.experiment.row} | {first['seeds']} | {first['protocol']} "
            f"| {first['videos']} videos, {first['instances']} instances | `{first['data_version']}` | {pinned} "
            f"| {first['threads']} | `{row.experiment.edition}/{row.experiment.table}` > `{row.experiment.name}` > "
            f"{', '.join(f'`{name}`' for name in first['mlflow_runs'].split())} |"
        )
    return "\n".join(lines + _released_lines(edition, rows) + _recall_lines(rows)) + "\n"


def _span(tiou: Sequence[float]) -> str:
    """first:last:step of evenly spaced thresholds, as the published page writes them."""
    step = f":{tiou[1] - tiou[0]:g}" if len(tiou) > 1 else ""
    return f"{tiou[0]:g}:{tiou[-1]:g}{step}"


def _checkpoint(edition: str, row: Row) -> str:
    """What a table calls a checkpoint that is evaluated without training: the demo's were not released by anybody."""
    return f"{'released' if row.experiment.comparable else edition} checkpoint"


def _released_lines(edition: str, rows: Sequence[Row]) -> list[str]:
    """Which checkpoints were evaluated, and which rows have none, if any has one."""
    if all(row.released is None for row in rows):
        return []
    lines = ["", f"{_checkpoint(edition, rows[0]).capitalize()}, evaluated without training:", ""]
    for row in rows:
        if row.released is None:
            found = f"none in the {edition} edition"
        else:
            found = (
                f"none: {row.released.why_none}"
                if row.released.why_none
                else f"MLflow run `{row.released.mlflow_name}`"
            )
        lines.append(f"- {row.experiment.row}: {found}")
    return lines


def _recall_lines(rows: Sequence[Row]) -> list[str]:
    keys = [key for key in rows[0].runs[0].percent if key.startswith("recall_")]
    if not keys:
        return []
    lines = [
        "",
        "| features | " + " | ".join(_recall_heading(key) for key in keys) + " |",
        "|---|" + "---:|" * len(keys),
    ]
    for row in rows:
        lines.append(
            f"| {row.experiment.row} | " + " | ".join(cell(statistics.fmean(row.values(k))) for k in keys) + " |"
        )
    return lines


def _recall_heading(key: str) -> str:
    """recall_1x/0.5 -> R@1x, 0.5"""
    multiple, tiou = key.removeprefix("recall_").split("/")
    return f"R@{multiple}, {tiou}"


LEGEND = """\
mAP in percent at a temporal IoU threshold, and its average over the thresholds named; R@kx is the share of ground
truth that the best k * n detections of its class find, n being their number in the video. *Evaluated* counts what the
protocol leaves. *Data version* is the md5 of `data/` in `data.dvc`; *pinned* says whether the files used are that
version's. *Released checkpoint*: the published weights, evaluated here without training. *Demo checkpoint*: weights
that are drawn, in the published layout, whose scores mean nothing. *Threads* are those of training. An MLflow run
stands under experiment > row > seed in `mlflow ui`.
"""


def page(title: str, tables: Sequence[str]) -> str:
    """All tables on one page."""
    return f"# {title}\n\n{LEGEND}\n" + "\n".join(tables)
