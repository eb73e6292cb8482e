"""How long the actions of a data set are, beside what every level is responsible for."""

from __future__ import annotations

from actionformer.data.suggestion import Suggestion, octaves, ranges
from actionformer.reporting.figures.primitives import BLUE, ORANGE, Figure

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# of distances, where a level has no bound
BOUND = 2.0


def lengths_and_levels(suggestion: Suggestion) -> Figure:
    """Bars: actions by their lengths in steps; above them the distances of every level."""
    bars = []
    for left, right, count in octaves(suggestion.lengths_G):
        bars.append({"from": left, "to": right, "count": count})
    longest = max(bar["to"] for bar in bars)
    levels = []
    for level, (near, far) in enumerate(ranges(suggestion.levels)):
        bounded = min(far, max(longest, BOUND * near))
        levels.append({"from": max(near, 1), "to": bounded, "level": f"level {level}"})
    scale = {"type": "log", "base": 2, "domain": [min(1.0, bars[0]["from"]), longest]}
    x = {"field": "from", "type": "quantitative", "scale": scale}
    counts = {
        "data": {"values": bars},
        "mark": {"type": "rect", "color": BLUE},
        "encoding": {
            "x": {**x, "title": "length of an action, in steps of the features"},
            "x2": {"field": "to"},
            "y": {"field": "count", "type": "quantitative", "title": "actions"},
            "y2": {"datum": 0},
        },
        "height": 160,
        "width": 560,
    }
    spans = {
        "data": {"values": levels},
        "mark": {"type": "bar", "color": ORANGE, "height": 8, "clip": True},
        "encoding": {
            "x": {**x, "title": "distance to a boundary, in steps"},
            "x2": {"field": "to"},
            "y": {"field": "level", "type": "nominal", "title": None, "sort": None},
        },
        "height": {"step": 16},
        "width": 560,
    }
    caption = suggestion.branch_blocks.why
    spec = {"$schema": SCHEMA, "vconcat": [counts, spans]}
    return Figure("lengths", "How long actions are, and which level finds them", caption, spec)
