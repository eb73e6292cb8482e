"""Which of two is better, and at what? Differences per threshold, class, kind of error, video."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from actionformer.evaluation.bootstrap import Comparison
from actionformer.evaluation.diagnosis import KINDS
from actionformer.reporting.figures import primitives as p
from actionformer.reporting.figures.primitives import EvaluatedRun, Figure, Spec, described
from actionformer.reporting.figures.why_wrong import MISSED, gains_of

# how many videos are shown at either end
SHOWN_VIDEOS = 12
# of the first and of the second: also of a difference, whose colour is that of the better one
COLORS = (p.BLUE, p.ORANGE)
# name of a side -> its runs
Sides = Mapping[str, Sequence[EvaluatedRun]]
WORDS = {
    "map_tiou": ("mAP against tIoU", "Both at every threshold, means over seeds."),
    "classes": (
        "Difference per class",
        "AP of the second less that of the first, mean over thresholds, in the colour of the "
        "better one, with the 95 % interval of a paired bootstrap over videos (of the first "
        "seeds). An interval that holds 0 may be luck.",
    ),
    "gains": (
        "Gain from removing errors",
        "How much the average mAP of each would gain, were one kind of error removed: a lower bar "
        "makes fewer or cheaper errors of that kind.",
    ),
    "videos": (
        "Difference per video",
        "AP of the second less that of the first, over a video's own detections, in the colour of "
        "the better one: the videos that lost most, and those that gained most.",
    ),
}


def figures(sides: Sides, compared: Comparison) -> list[Figure]:
    """All figures of a comparison."""
    drawn = [
        map_against_tiou(sides),
        classes(compared),
        error_gains(sides),
        videos(sides),
    ]
    return [described(figure) for figure in drawn]


def map_against_tiou(sides: Sides) -> Figure:
    """mAP per threshold of both."""
    values = []
    for name, runs in sides.items():
        for key in runs[0].metrics["percent"]:
            if key.startswith("mAP/") and key != "mAP/average":
                score = statistics.fmean(run.metrics["percent"][key] for run in runs)
                values.append({"tiou": float(key[4:]), "map": score, "series": name})
    spec = p.chart(
        values,
        {"type": "line", "point": {"size": 50}},
        x=p.number("tiou", "tIoU threshold", zero=False),
        y=p.number("map", "mAP (%)"),
        color=p.nominal("series", "", list(sides), COLORS),
        strokeDash={"field": "series", "type": "nominal", "legend": None, "sort": list(sides)},
        tooltip=p.tooltip(series="of", tiou="tIoU", map="mAP (%)"),
    )
    return Figure("map_tiou", *WORDS["map_tiou"], spec)


def classes(compared: Comparison) -> Figure:
    """Difference of every class's AP, with its interval, the largest gain first."""
    values: list[Spec] = []
    for label, difference in compared.classes.items():
        value = {
            "class": label,
            "difference": 100 * difference.value,
            "low": 100 * difference.low,
            "high": 100 * difference.high,
        }
        values.append(value)
    values.sort(key=lambda value: -value["difference"])
    lanes = p.lanes("class", [value["class"] for value in values])
    said = p.tooltip(
        **{"class": "class", "difference": "points of AP", "low": "from", "high": "to"}
    )
    color = p.by_sign("difference", *COLORS)
    bars = {
        "mark": {"type": "bar"},
        "encoding": {"x": p.number("difference", "points of AP"), "color": color, "tooltip": said},
    }
    intervals = {
        "mark": {"type": "rule"},
        "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
    }
    spec = p.base_of_lanes(16) | {
        "data": {"values": values},
        "encoding": {"y": lanes},
        "layer": [bars, intervals],
    }
    return Figure("classes", *WORDS["classes"], spec)


def error_gains(sides: Sides) -> Figure:
    """What each kind of error costs both."""
    values = []
    for name, runs in sides.items():
        for kind, gain in gains_of(runs).items():
            values.append({"kind": kind, "series": name, "gain": gain})
    lanes = p.lanes("kind", [*KINDS[1:], MISSED])
    spec = p.chart(
        values,
        {"type": "bar"},
        y=lanes,
        yOffset={"field": "series", "sort": list(sides)},
        x=p.number("gain", "points of average mAP"),
        color=p.nominal("series", "", list(sides), COLORS),
        tooltip=p.tooltip(series="of", kind="kind", gain="points of mAP"),
        start=p.base_of_lanes(14),
    )
    return Figure("gains", *WORDS["gains"], spec)


def videos(sides: Sides) -> Figure:
    """Videos whose AP differs most, in both directions."""
    differences = per_video(sides)
    values: list[Spec] = []
    for video in sorted(differences, key=lambda name: differences[name]):
        values.append({"video": video, "difference": 100 * differences[video]})
    if len(values) > 2 * SHOWN_VIDEOS:
        values = [*values[:SHOWN_VIDEOS], *values[-SHOWN_VIDEOS:]]
    lanes = p.lanes("video", [value["video"] for value in values])
    color = p.by_sign("difference", *COLORS)
    spec = p.chart(
        values,
        {"type": "bar"},
        y=lanes,
        x=p.number("difference", "points of AP"),
        color=color,
        tooltip=p.tooltip(video="video", difference="points of AP"),
        start=p.base_of_lanes(15),
    )
    return Figure("videos", *WORDS["videos"], spec)


def per_video(sides: Sides) -> dict[str, float]:
    """Video -> AP of the second side less that of the first, means over seeds."""
    first, second = sides.values()
    found = {}
    for video in first[0].diagnosis["videos"]:
        ap = [
            statistics.fmean(run.diagnosis["videos"][video]["ap"] for run in runs)
            for runs in (first, second)
        ]
        found[video] = ap[1] - ap[0]
    return found
