"""How a results table is written: Markdown, HTML, LaTeX, and csv at full precision."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Sequence

from actionformer.files.csv_files import csv_cell
from actionformer.reporting.tables import OWN_FILES, Code, Grid, Row, Strong, Table, records

# of the csv; the names of `tables.records`
COLUMNS = (
    "table",
    "row",
    "experiment",
    "metric",
    "published",
    "reproduced",
    "std",
    "difference",
    "tolerance",
    "verdict",
    "videos_low",
    "videos_high",
    "less_released_low",
    "less_released_high",
    "best_epoch_oracle",
    "released_checkpoint",
    "seeds",
    "protocol",
    "loading",
    "licence",
    "citation",
    "remark",
    "departs",
    "videos",
    "instances",
    "data_version",
    "data_pinned",
    "trained",
    "threads",
    "locks",
    "mlflow_runs",
)

LEGEND = """\
mAP in percent at a temporal IoU threshold, and its average over the thresholds named; R@kx is the
share of ground truth that the best k * n detections of its class find, n being their number in the
video. *Protocol* says which videos and instances count, *evaluated* how many those are; *loading*
how videos were cut and resampled, as published or corrected. *Data version* is the md5 of `data/`
in `data.dvc`; *pinned* says whether the files used are that version's. *Tolerance*: half of
Student's 95 % prediction interval for one more run, from the spread of the seeds; a difference
within it is what another seed alone would make. *Verdict*: reproduced, where the published value
lies within the tolerance and that is at most 1 point; not reproduced, where it lies outside;
undecided otherwise, as with a single seed. *Videos (bootstrap)*: where our mean lies in 95 % of the
draws of other videos like these; *less released* the same of its distance to the released
checkpoint, on the same draws. Ours are the averaged weights after the last epoch;
*best epoch (oracle)* is what the epoch scores that does best on these very videos, a choice that
nobody has who doesn't know their ground truth. *Released checkpoint*: the published weights,
evaluated here without training. *Demo checkpoint*: weights that are drawn, in the published
layout, whose scores mean nothing. *Trained* says which commit trained which epochs, and on what;
*threads* are those of training, *locks* the md5 of each lock file (`requirements.lock`) under
which runs were trained and evaluated. An MLflow run stands in `mlflow ui` under its experiment and
its row.
"""


def page(title: str, tables: Sequence[str]) -> str:
    """All tables, as Markdown, on one page."""
    return f"# {title}\n\n{LEGEND}\n" + "\n".join(tables)


def as_csv(rows: Sequence[Row]) -> str:
    """All cells of a table, one per line."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        for record in records(row):
            cells = {key: "n/a" if cell is None else csv_cell(cell) for key, cell in record.items()}
            writer.writerow(cells)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------- Markdown


def as_markdown(table: Table) -> str:
    """A section with the table, its recall and origin, and its published checkpoints."""
    lines = [f"## {table.title}", ""]
    if table.remark:
        lines += [f"**{table.edition} edition.** {table.remark}", ""]
    if table.data_remark:
        lines += [f"Data: {table.data_remark}.", ""]
    for departure in table.departures:
        lines += [f"**{departure}.**", ""]
    lines += _markdown_grid(table.results)
    for more in (table.recall, table.actions, table.origin):
        if more is not None:
            lines += ["", *_markdown_grid(more)]
    if table.released:
        lines += ["", table.released[0], ""]
        lines += [f"- {line}" for line in table.released[1:]]
    lines += ["", table.credit]
    return "\n".join(lines) + "\n"


def _markdown_grid(grid: Grid) -> list[str]:
    rule = "|"
    for column in range(len(grid.header)):
        rule += "---|" if column < grid.numbers else "---:|"
    lines = [f"| {' | '.join(grid.header)} |", rule]
    for row in grid.rows:
        cells = [_markdown_cell(text) for text in row]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _markdown_cell(text: str) -> str:
    safe = in_cell(text)
    if isinstance(text, Code):
        return f"`{safe}`"
    if isinstance(text, Strong):
        return f"**{safe}**"
    return safe


def in_cell(text: str) -> str:
    """Text that stays within its cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


# -------------------------------------------------------------------------------------------- HTML


def as_html(table: Table, *, remark: bool = True) -> str:
    """The same as an HTML section; the page around it brings the style.

    Args:
        remark: say why the edition's numbers don't compare; False where the page says it.
    """
    title = html.escape(table.title)
    parts = [f'<section class="results" id="table-{html.escape(table.name)}">\n<h3>{title}</h3>\n']
    if table.remark and remark:
        edition = f"<strong>{html.escape(table.edition)} edition.</strong>"
        parts.append(f"<p>{edition} {html.escape(table.remark)}</p>\n")
    if table.data_remark:
        parts.append(f"<p>Data: {html.escape(table.data_remark)}.</p>\n")
    for departure in table.departures:
        parts.append(f"<p><strong>{html.escape(departure)}.</strong></p>\n")
    grids = {
        "mAP in percent": table.results,
        "recall in percent": table.recall,
        "nouns and verbs fused": table.actions,
    }
    for words, grid in grids.items():
        if grid is not None:
            parts.append(_html_grid(grid, f"{table.title}: {words}"))
    summary = "<details><summary>Where these numbers come from</summary>"
    origin = _html_grid(table.origin, f"{table.title}: where the numbers come from")
    parts.append(f"{summary}\n{origin}")
    if table.released:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in table.released[1:])
        parts.append(f"<p>{html.escape(table.released[0])}</p><ul>{items}</ul>\n")
    parts.append(f"<p>{html.escape(table.credit)}</p>\n")
    parts.append("</details>\n</section>\n")
    return "".join(parts)


def _html_grid(grid: Grid, caption: str) -> str:
    """A table that scrolls within its place, by keyboard, too; with a caption to be read out."""
    head = _html_row(grid.header, "th", grid.numbers)
    body = ""
    for row in grid.rows:
        body += _html_row(row, "td", grid.numbers) + "\n"
    inner = f"<thead>{head}</thead>\n<tbody>\n{body}</tbody>"
    label = html.escape(caption)
    place = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
    return f'{place}<table>\n<caption class="unseen">{label}</caption>\n{inner}\n</table></div>\n'


def _html_row(cells: Sequence[str], tag: str, numbers: int) -> str:
    inner = ""
    for column, text in enumerate(cells):
        right = "" if column < numbers else ' class="number"'
        if tag == "th":
            right += ' scope="col"'
        inner += f"<{tag}{right}>{_html_cell(text)}</{tag}>"
    # a row of the results may go on over several lines: the first one names it
    first = ' class="first"' if tag == "td" and cells[0] else ""
    return f"<tr{first}>{inner}</tr>"


def _html_cell(text: str) -> str:
    safe = html.escape(text)
    if isinstance(text, Code):
        return f"<code>{safe}</code>"
    if isinstance(text, Strong):
        return f"<strong>{safe}</strong>"
    return safe


# ------------------------------------------------------------------------------------------- LaTeX


def as_latex(table: Table) -> str:
    """A table environment with booktabs rules; its caption says where the numbers come from."""
    lines = [
        "% needs \\usepackage{booktabs}",
        f"% {' '.join(table.credit.split())}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(_caption(table))}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        r"\small",
        *_latex_grid(table.results, ruled=True),
    ]
    for more in (table.recall, table.actions):
        if more is not None:
            lines += [r"\par\medskip", *_latex_grid(more)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _caption(table: Table) -> str:
    caption = f"{table.title}: mAP in percent. "
    if table.remark:
        caption += f"{table.edition} edition. {table.remark} "
    if table.data_remark:
        caption += f"Data: {table.data_remark}. "
    caption += "".join(f"{departure}. " for departure in table.departures)
    origin = []
    for features, seeds, protocol, loading, evaluated, version, pinned, *_ in table.origin.rows:
        told = f"{features}: seeds {seeds}; {protocol}; loading {loading}; {evaluated}"
        remark = "" if pinned in ("yes", "–") else " (not pinned)"
        shown = version if version == OWN_FILES else version[:8]
        origin.append(f"{told}; data {shown}{remark}")
    return f"{caption}{'. '.join(origin)}."


def _latex_grid(grid: Grid, *, ruled: bool = False) -> list[str]:
    """A tabular; `ruled`: with a rule above every row that has a name."""
    columns = "l" * grid.numbers + "r" * (len(grid.header) - grid.numbers)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(grid.header), r"\midrule"]
    for i, row in enumerate(grid.rows):
        if ruled and i and row[0]:
            lines.append(r"\midrule")
        lines.append(_latex_row(row))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex(text) for text in cells) + r" \\"


# characters that have a command; others of LaTeX's own get a backslash
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def _latex(text: str) -> str:
    """Text that LaTeX prints as it is, with a minus in front of numbers."""

    def escaped(found: re.Match[str]) -> str:
        return _LATEX.get(found[0], "\\" + found[0])

    text = re.sub(r"[\\~^±<>|]|[&%$#_{}]", escaped, text)
    return re.sub(r"(^|\s)-(?=\d)", r"\1$-$", text)
