"""Self-contained pages: tables, and figures that one can hover, zoom and filter.

Nothing on them needs a network.

A page brings the drawing library, its style and all data; a policy in its head forbids every
request.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from actionformer.reporting import table_forms, tables
from actionformer.reporting.figures import primitives
from actionformer.reporting.figures.primitives import Figure

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """One row of the results tables, or one file of detections: facts, then figures."""

    name: str
    title: str
    facts: Sequence[tuple[str, str]]
    figures: Sequence[Figure]


def page(
    title: str,
    *,
    lead: str,
    results: Sequence[tables.Table],
    sections: Sequence[Section],
    heading: str = "Why it succeeds, and where it fails",
) -> str:
    """A report as HTML: all tables, then one section at a time, chosen by the reader.

    Args:
        lead: what the numbers are, in a sentence or two.
        heading: of the sections.
    """
    specs = {}
    for section in sections:
        for figure in section.figures:
            specs[f"{section.name}.{figure.name}"] = figure.spec
    library = ""
    if sections:
        # inside a script element the closing tag would end it
        library = primitives.library().replace("</script", "<\\/script")
    light = primitives.LIGHT | {"background": None}
    shown = []
    for table in results:
        # why an edition's numbers don't compare is said once, at the top
        text = table_forms.as_html(table, remark=not lead)
        shown.append((table.name, table.title, Markup(text)))
    return _template("report.html").render(
        title=title,
        lead=lead,
        heading=heading,
        legend=table_forms.LEGEND if results else "",
        tables=shown,
        overview=[(table.title, average) for table in results for average in table.averages],
        sections=sections,
        style=_asset("style.css"),
        script=_asset("report.js"),
        library=Markup(library),
        themes=_json({"light": light, "dark": primitives.DARK}),
        specs=_json(specs),
    )


def facts(row: tables.Row) -> list[tuple[str, str]]:
    """What a reader wants to know of a row before the figures: name and text of each fact."""
    last = tables.records(row)[-1]
    score = tables.cell(last["reproduced"])
    if last["std"] is not None:
        score += f" ± {last['std']:.2f}"
    told = [(last["metric"], score)]
    if last["published"] is not None and row.experiment.comparable:
        told.append(("published", f"{tables.cell(last['published'])}, {last['verdict']}"))
    counted = f"{last['videos']} videos, {last['instances']} instances"
    told.append(("evaluated", f"{counted}; {last['protocol']}"))
    told.append(("loading", last["loading"]))
    if last["departs"]:
        told.append(("departs from the row's params", last["departs"]))
    if last["remark"]:
        told.append(("remark", last["remark"]))
    if len(row.runs) > 1:
        told.append(("seeds", f"{last['seeds']}; timelines are of the first, all else means"))
    else:
        told.append(("seed", last["seeds"]))
    is_own = last["data_version"] == tables.OWN_FILES
    pinned = "" if last["data_pinned"] or is_own else " (not pinned)"
    told.append(("data version", last["data_version"] + pinned))
    told.append(("trained", last["trained"]))
    processors = []
    for run in row.runs:
        for session in run.lineage["trained_by"]:
            processors.append(f"{session['device']}, {session['environment']['processor']}")
    told.append(("trained on", "; ".join(dict.fromkeys(processors))))
    told.append(("MLflow runs", last["mlflow_runs"]))
    return told


def table_page(table: tables.Table) -> str:
    """One table as an HTML page of its own."""
    return page(f"ActionFormer on {table.title}", lead="", results=[table], sections=[])


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _asset(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _json(content: object) -> Markup:
    """JSON that may stand inside a script element."""
    return Markup(
        json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    )
