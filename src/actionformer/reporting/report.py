"""Self-contained pages: tables, and figures that one can hover, zoom and filter. Nothing on them needs a network.

A page brings the drawing library, its style and all data; a policy in its head forbids every request.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from actionformer.reporting import figures, tables
from actionformer.reporting.figures import Figure

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """One row of the results tables, or one file of detections: facts in words, then its figures."""

    name: str
    title: str
    facts: Sequence[tuple[str, str]]
    figures: Sequence[Figure]


def page(title: str, *, lead: str, results: Sequence[tables.Table], sections: Sequence[Section]) -> str:
    """A report as HTML: all tables, then one section at a time, chosen by the reader.

    Args:
        lead: what the numbers are, in a sentence or two.
    """
    return _template("report.html").render(
        title=title,
        lead=lead,
        legend=tables.LEGEND if results else "",
        tables=[(table.name, table.title, Markup(tables.as_html(table))) for table in results],
        sections=sections,
        style=_asset("style.css"),
        script=_asset("report.js"),
        library=Markup(figures.library().replace("</script", "<\\/script")) if sections else "",
        themes=_json({"light": figures.LIGHT | {"background": None}, "dark": figures.DARK}),
        specs=_json({f"{s.name}.{f.name}": f.spec for s in sections for f in s.figures}),
    )


def table_page(table: tables.Table) -> str:
    """One table as an HTML page of its own."""
    return page(f"ActionFormer on {table.title}", lead="", results=[table], sections=[])


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


def _asset(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _json(content: object) -> Markup:
    """JSON that may stand inside a script element."""
    return Markup(json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
