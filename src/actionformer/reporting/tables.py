"""The results tables: published value, our value, difference, and where our value comes from.

A cell of the published page is one tIoU threshold or the average over all of the row's thresholds. `Table` is what a
table says; `as_markdown`, `as_html` and `as_latex` say it in their language, `as_csv` gives every cell at full
precision.
"""

from __future__ import annotations

import csv
import html
import io
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from actionformer import provenance
from actionformer.experiment import Experiment

COLUMNS = (
    "table", "row", "experiment", "metric", "published", "reproduced", "std", "difference", "tolerance",
    "released_checkpoint", "seeds", "protocol", "loading", "remark", "videos", "instances", "data_version",
    "data_pinned", "trained", "threads", "mlflow_runs",
)  # fmt: skip


ORIGIN = (
    "features", "seeds", "protocol", "loading", "evaluated", "data version", "pinned", "trained", "threads",
    "MLflow run",
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
    actions: Sequence[Run] = ()
    """of a row of nouns: its seeds fused with those of a row of verbs"""

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
                "tolerance": tolerance(values) if comparable else None,
                "released_checkpoint": None if row.released is None else row.released.percent.get(key),
                "seeds": " ".join(str(run.seed) for run in row.runs),
                "protocol": experiment.dataset.protocol,
                "loading": experiment.data.loading_text,
                "remark": experiment.dataset.remark,
                "videos": row.runs[0].videos,
                "instances": row.runs[0].instances,
                "data_version": " ".join(sorted({lineage["data_version"] for lineage in lineages})),
                "data_pinned": all(lineage["pinned"] for lineage in lineages),
                "trained": trained(row.runs),
                "threads": experiment.training.threads,
                "mlflow_runs": " ".join(run.mlflow_name for run in row.runs),
            }
        )
    return result


def trained(runs: Sequence[Run]) -> str:
    """Who trained which epochs: once where all seeds have the same history."""
    texts = {run.seed: provenance.history_text(run.lineage["trained_by"]) for run in runs}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"seed {seed}, {text}" for seed, text in texts.items())


def tolerance(values: Sequence[float]) -> float | None:
    """How far one more run, such as the published one, may lie from the mean of these seeds by chance.

    Half the width of Student's 95 % prediction interval; None for a single seed.
    """
    n = len(values)
    if n < 2:
        return None
    return float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) * math.sqrt(1 + 1 / n)


# ---------------------------------------------------------------------------------------------- what a table says


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
class Table:
    """One table of the page: the published columns, a few lines per row, then where the numbers come from."""

    name: str
    title: str
    edition: str
    remark: str
    data_remark: str
    """what is to be said of the data set"""
    results: Grid
    recall: Grid | None
    actions: Grid | None
    """nouns and verbs fused; there is no published value in the tables reproduced here"""
    origin: Grid
    released: Sequence[str]
    """a line per row about its published checkpoint, the first saying what they are; empty where there is none"""


def table_of(name: str, title: str, rows: Sequence[Row], *, edition: str, remark: str) -> Table:
    """What a table says of these rows; `remark` says why the edition's numbers don't compare, if they don't."""
    headings = [
        f"{heading} ({_span(rows[0].experiment.evaluation.tiou)})" if heading == "average mAP" else heading
        for heading, _ in rows[0].metrics()
    ]
    lines = []
    for row in rows:
        for i, (what, cells) in enumerate(_lines(row, edition, checkpoints=any(r.released is not None for r in rows))):
            lines.append([row.experiment.row if i == 0 else "", what, *cells])
    origin = []
    for row in rows:
        origin.append(_origin(row.experiment.row, row, row.runs))
        if row.actions:
            origin.append(_origin("nouns and verbs fused", row, row.actions))
    return Table(
        name,
        title,
        edition,
        remark,
        rows[0].experiment.dataset.remark or "",
        Grid(["features", "", *headings], lines, numbers=2),
        _recall(rows),
        _actions(rows, headings),
        Grid(
            ORIGIN,
            origin,
            numbers=len(ORIGIN),
        ),
        _released_lines(edition, rows),
    )


def _origin(title: str, row: Row, runs: Sequence[Run]) -> list[str]:
    """Where the numbers of these runs come from."""
    names = ", ".join(run.mlflow_name for run in runs)
    return [
        title,
        " ".join(str(run.seed) for run in runs),
        row.experiment.dataset.protocol,
        row.experiment.data.loading_text,
        f"{runs[0].videos} videos, {runs[0].instances} instances",
        Code(" ".join(sorted({run.lineage["data_version"] for run in runs}))),
        "yes" if all(run.lineage["pinned"] for run in runs) else Strong("no"),
        trained(runs),
        str(row.experiment.training.threads),
        Code(f"{row.experiment.edition}/{row.experiment.table} > {names}"),
    ]


def _lines(row: Row, edition: str, *, checkpoints: bool) -> list[tuple[str, list[str]]]:
    """What stands in a row's lines, and its cells."""
    found = records(row)
    reproduced = [cell(r["reproduced"]) + (f" ± {r['std']:.2f}" if r["std"] is not None else "") for r in found]
    if not row.experiment.expect.published:
        lines = [(ours(row.experiment), reproduced)]
    else:
        lines = [
            ("published", [cell(r["published"]) for r in found]),
            (ours(row.experiment), reproduced),
            ("difference", ["n/a" if r["difference"] is None else f"{r['difference']:+.2f}" for r in found]),
        ]
        if any(r["tolerance"] is not None for r in found):
            lines.append(("tolerance", [f"± {r['tolerance']:.2f}" for r in found]))
    if checkpoints:
        lines.append((checkpoint(row.experiment), [cell(r["released_checkpoint"]) for r in found]))
    return lines


def _span(tiou: Sequence[float]) -> str:
    """first:last:step of evenly spaced thresholds, as the published page writes them."""
    step = f":{tiou[1] - tiou[0]:g}" if len(tiou) > 1 else ""
    return f"{tiou[0]:g}:{tiou[-1]:g}{step}"


def ours(experiment: Experiment) -> str:
    """What a table calls the numbers made here: where there are others to compare with, the edition's are its own."""
    return "reproduced" if experiment.comparable or not experiment.expect.published else experiment.edition


def checkpoint(experiment: Experiment) -> str:
    """What a table calls a checkpoint that is evaluated without training: the demo's were not released by anybody."""
    return f"{'released' if experiment.comparable else experiment.edition} checkpoint"


def _released_lines(edition: str, rows: Sequence[Row]) -> list[str]:
    """Which checkpoints were evaluated, and which rows have none, if any has one."""
    if all(row.released is None for row in rows):
        return []
    lines = [f"{checkpoint(rows[0].experiment).capitalize()}, evaluated without training:"]
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
    keys = [key for key in rows[0].runs[0].percent if key.startswith("recall_")]
    if not keys:
        return None
    body = [[row.experiment.row, *(cell(statistics.fmean(row.values(k))) for k in keys)] for row in rows]
    return Grid(["features", *map(recall_heading, keys)], body, numbers=1)


def _actions(rows: Sequence[Row], headings: Sequence[str]) -> Grid | None:
    """Nouns, verbs and actions of the fused detections, mean over seeds."""
    body = []
    for row in rows:
        for task in ("noun", "verb", "action") if row.actions else ():
            cells = []
            for _, key in row.metrics():
                values = [run.percent[f"{task}/{key}"] for run in row.actions]
                spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                cells.append(cell(statistics.fmean(values)) + spread)
            body.append([f"fused: {task}", *cells])
    return Grid(["noun and verb rows fused", *headings], body, numbers=1) if body else None


def recall_heading(key: str) -> str:
    """recall_1x/0.5 -> R@1x, 0.5"""
    multiple, tiou = key.removeprefix("recall_").split("/")
    return f"R@{multiple}, {tiou}"


# ---------------------------------------------------------------------------------------------- how it is written


def as_csv(rows: Sequence[Row]) -> str:
    """All cells of a table, one per line."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerows({k: "n/a" if v is None else v for k, v in record.items()} for record in records(row))
    return buffer.getvalue()


def as_markdown(table: Table) -> str:
    """A section with the table, its recall and origin, and its published checkpoints."""

    def written(text: str) -> str:
        safe = in_cell(text)
        return f"`{safe}`" if isinstance(text, Code) else f"**{safe}**" if isinstance(text, Strong) else safe

    def grid(grid: Grid) -> list[str]:
        rule = "|" + "".join("---|" if c < grid.numbers else "---:|" for c in range(len(grid.header)))
        return [f"| {' | '.join(grid.header)} |", rule, *(f"| {' | '.join(map(written, row))} |" for row in grid.rows)]

    lines = [f"## {table.title}", ""]
    if table.remark:
        lines += [f"**{table.edition} edition.** {table.remark}", ""]
    if table.data_remark:
        lines += [f"Data: {table.data_remark}.", ""]
    lines += grid(table.results)
    for more in (table.recall, table.actions):
        lines += [] if more is None else ["", *grid(more)]
    lines += ["", *grid(table.origin)]
    if table.released:
        lines += ["", table.released[0], "", *(f"- {line}" for line in table.released[1:])]
    return "\n".join(lines) + "\n"


def in_cell(text: str) -> str:
    """Text that stays within its cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def as_html(table: Table) -> str:
    """The same as an HTML section; the page around it brings the style."""

    def written(text: str) -> str:
        tag = "code" if isinstance(text, Code) else "strong" if isinstance(text, Strong) else ""
        return f"<{tag}>{html.escape(text)}</{tag}>" if tag else html.escape(text)

    def grid(grid: Grid) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            classes = ["" if c < grid.numbers else ' class="number"' for c in range(len(cells))]
            inner = "".join(f"<{tag}{k}>{written(text)}</{tag}>" for text, k in zip(cells, classes, strict=True))
            return f'<tr class="first">{inner}</tr>' if tag == "td" and cells[0] else f"<tr>{inner}</tr>"

        body = "".join(line(row, "td") + "\n" for row in grid.rows)
        head = line(grid.header, "th")
        return f'<div class="scroll"><table>\n<thead>{head}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'

    parts = [f'<section class="results" id="table-{html.escape(table.name)}">\n<h3>{html.escape(table.title)}</h3>\n']
    if table.remark:
        parts.append(f"<p><strong>{html.escape(table.edition)} edition.</strong> {html.escape(table.remark)}</p>\n")
    if table.data_remark:
        parts.append(f"<p>Data: {html.escape(table.data_remark)}.</p>\n")
    parts.append(grid(table.results))
    parts += [grid(more) for more in (table.recall, table.actions) if more is not None]
    parts.append(f"<details><summary>Where these numbers come from</summary>\n{grid(table.origin)}")
    if table.released:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in table.released[1:])
        parts.append(f"<p>{html.escape(table.released[0])}</p><ul>{items}</ul>\n")
    parts.append("</details>\n</section>\n")
    return "".join(parts)


def as_latex(table: Table) -> str:
    """A table environment with booktabs rules (needs the package booktabs); its caption says where it comes from."""

    def grid(grid: Grid) -> list[str]:
        columns = "l" * grid.numbers + "r" * (len(grid.header) - grid.numbers)
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(grid.header), r"\midrule"]
        for i, row in enumerate(grid.rows):
            if i and row[0] and grid is table.results:
                lines.append(r"\midrule")
            lines.append(_latex_row(row))
        return [*lines, r"\bottomrule", r"\end{tabular}"]

    origin = [
        f"{features}: seeds {seeds}; {protocol}; loading {loading}; {evaluated}; data {version[:8]}"
        + ("" if pinned == "yes" else " (not pinned)")
        for features, seeds, protocol, loading, evaluated, version, pinned, *_ in table.origin.rows
    ]
    remark = f"{table.edition} edition. {table.remark} " if table.remark else ""
    data = f"Data: {table.data_remark}. " if table.data_remark else ""
    caption = _latex(f"{table.title}: mAP in percent. {remark}{data}{'. '.join(origin)}.")
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        r"\small",
        *grid(table.results),
    ]
    for more in (table.recall, table.actions):
        lines += [] if more is None else [r"\par\medskip", *grid(more)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    text = re.sub(r"[\\~^±<>|]|[&%$#_{}]", lambda found: special.get(found[0], "\\" + found[0]), text)
    return re.sub(r"(^|\s)-(?=\d)", r"\1$-$", text)


LEGEND = """\
mAP in percent at a temporal IoU threshold, and its average over the thresholds named; R@kx is the share of ground
truth that the best k * n detections of its class find, n being their number in the video. *Protocol* says which
videos and instances count, *evaluated* how many those are; *loading* how videos were cut and resampled, as published
or corrected. *Data version* is the md5 of `data/` in `data.dvc`; *pinned* says whether the files used are that
version's. *Tolerance*: half of Student's 95 % prediction interval for one more run, from the spread of the seeds; a
difference within it is what another seed alone would make. *Released checkpoint*: the published weights, evaluated
here without training. *Demo checkpoint*: weights that are drawn, in the published layout, whose scores mean nothing.
*Trained* says which commit trained which epochs, and on what; *threads* are those of training. An MLflow run stands
in `mlflow ui` under its experiment and its row.
"""


def page(title: str, tables: Sequence[str]) -> str:
    """All tables on one page."""
    return f"# {title}\n\n{LEGEND}\n" + "\n".join(tables)
