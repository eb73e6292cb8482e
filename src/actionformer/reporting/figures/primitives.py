"""What figures are made of, and how they are drawn; no figure is in here.

Colours of text and axes are not part of a specification: `LIGHT` or `DARK` gives them where it is
drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import vl_convert

Spec = dict[str, Any]

VEGA_LITE = "6.4"
# of a drawn picture; on a page a figure is as wide as its place
WIDTH = 640
# from dark to light, so that they differ in grey, too; and for readers who see no red or no green
# (tests/test_report.py simulates both)
NAVY, PURPLE, BLUE, ORANGE, YELLOW, PALE = (
    "#173f6b",
    "#7b3f98",
    "#3f87c5",
    "#e08a2e",
    "#f0c64f",
    "#ebebe7",
)
GREY = "#8c8c8c"

# fields of numbers whose digits are all meant, and fields of words; other numbers get two digits
EXACT = {"epoch", "seed", "instances", "detections", "count", "tiou", "score"}
TEXT_FIELDS = {"series", "part", "class", "kind", "split", "what", "lane", "pair", "video"}


@dataclass(frozen=True)
class Figure:
    """A figure with what is written over and under it."""

    name: str
    title: str
    caption: str
    spec: Spec


@dataclass(frozen=True)
class EvaluatedRun:
    """What the figures of a row need of one seed."""

    seed: int
    # one record per epoch; empty where nothing was trained here
    history: Sequence[Mapping[str, float]]
    metrics: Mapping[str, Any]
    diagnosis: Mapping[str, Any]


def described(figure: Figure) -> Figure:
    """The figure with its words in the drawing, where a screen reader finds them."""
    spec = {**figure.spec, "description": f"{figure.title}. {figure.caption}"}
    return replace(figure, spec=spec)


# ----------------------------------------------------------------------------------------- drawing


def _theme(text: str, lines: str, background: str | None) -> Spec:
    return {
        "background": background,
        "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "gridColor": lines,
            "domainColor": lines,
            "tickColor": lines,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelLimit": 150,
        },
        # names at the side; report.js gives them less on a narrow screen
        "axisY": {"labelLimit": 260},
        "legend": {
            "labelColor": text,
            "titleColor": text,
            "labelFontSize": 11,
            "titleFontWeight": "normal",
            "orient": "bottom",
            "columns": 2,
            "symbolLimit": 40,
            "labelLimit": 200,
        },
        "title": {"color": text, "subtitleColor": text},
        "view": {"stroke": None},
        "text": {"color": text},
        "rule": {"color": text},
    }


LIGHT = _theme("#333333", "#dddddd", "white")
DARK = _theme("#d8d8d8", "#444444", None)


def svg(spec: Spec) -> str:
    """A figure drawn for a light background."""
    return vl_convert.vegalite_to_svg(_fixed_width(spec), vl_version=VEGA_LITE, config=LIGHT)


def png(spec: Spec) -> bytes:
    """A figure drawn for a light background, at twice the usual density."""
    text = _fixed_width(spec)
    return vl_convert.vegalite_to_png(text, vl_version=VEGA_LITE, config=LIGHT, scale=2)


def pdf(spec: Spec) -> bytes:
    """A figure drawn for a light background."""
    return vl_convert.vegalite_to_pdf(_fixed_width(spec), vl_version=VEGA_LITE, config=LIGHT)


def _svg_bytes(spec: Spec) -> bytes:
    return svg(spec).encode()


# how a file's name ends -> what draws it
WRITERS: dict[str, Callable[[Spec], bytes]] = {".png": png, ".svg": _svg_bytes, ".pdf": pdf}


def library() -> str:
    """The JavaScript that draws specifications in a browser; defines `vegaEmbed`."""
    start = "window.vegaEmbed = vegaEmbed;"
    return vl_convert.javascript_bundle(start, vl_version=VEGA_LITE)


def _fixed_width(spec: Spec) -> str:
    if spec.get("width") == "container":
        spec = spec | {"width": WIDTH}
    return json.dumps(spec)


# ------------------------------------------------------------------------ parts of a specification


def base() -> Spec:
    """What every figure begins with: as wide as its place, and not too high."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 260,
        "autosize": {"type": "fit-x", "contains": "padding"},
    }


def base_of_lanes(height: int) -> Spec:
    """The same for a figure of lanes, which each have this height."""
    spec = base() | {"height": {"step": height}}
    del spec["autosize"]
    return spec


def chart(
    values: Iterable[Mapping[str, Any]], mark: Spec, *, start: Spec | None = None, **encoding: Any
) -> Spec:
    """A figure of one mark; `start` is what it begins with, if that is not `base`."""
    spec = {"data": {"values": list(values)}, "mark": mark, "encoding": encoding}
    return (start or base()) | spec


def number(
    field: str, title: str, *, zero: bool = True, domain: Sequence[float] | None = None
) -> Spec:
    """An axis of numbers, from 0 on or not, or over a fixed domain."""
    scale: Spec = {"zero": zero, "nice": True} if domain is None else {"domain": list(domain)}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale}


def nominal(field: str, title: str, domain: Sequence[str], colors: Sequence[str]) -> Spec:
    """Names in their order, each with its colour."""
    scale = {"domain": list(domain), "range": list(colors)}
    return {"field": field, "type": "nominal", "title": title or None, "scale": scale}


def lanes(field: str, order: Sequence[str] | str) -> Spec:
    """Names at the side of lying bars, one bar or several each, in their order."""
    axis = {"ticks": False}
    return {"field": field, "type": "nominal", "sort": order, "title": None, "axis": axis}


def by_sign(field: str, negative: str, positive: str) -> Spec:
    """One colour for what is below 0, another for what is not."""
    grown = {"test": f"datum['{field}'] >= 0", "value": positive}
    return {"condition": grown, "value": negative}


# labels of an axis that lie as one reads
FLAT = {"labelAngle": 0}


def tooltip(**fields: str) -> list[Spec]:
    """What is said on hover: field -> what it is called."""
    shown = []
    for field, title in fields.items():
        spec: Spec = {"field": field, "title": title}
        if field not in EXACT | TEXT_FIELDS:
            spec |= {"format": ".2f", "type": "quantitative"}
        shown.append(spec)
    return shown
