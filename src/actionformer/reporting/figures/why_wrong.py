"""Why is it wrong? Scores that mislead, kinds of error and their cost, what is hard or missed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from actionformer.evaluation.diagnosis import BIN_NAMES, CHARACTERISTICS, KINDS, SPLITS, TIOU
from actionformer.reporting.figures import primitives as p
from actionformer.reporting.figures.primitives import EvaluatedRun, Figure, Spec

KIND_COLORS = (p.GREEN, p.YELLOW, p.PURPLE, p.BLUE, p.ORANGE, p.RED)
UNITS = {"coverage": " %", "length": " s", "instances": ""}
# name -> title and caption
WORDS = {
    "calibration": (
        "Calibration of scores",
        f"Detections in ten bins of score: how many of a bin find a segment at tIoU {TIOU:g}. On "
        "the dashed line a score is the probability of being right.",
    ),
    "false_positives": (
        "False-positive profile",
        f"What the best detections are, at tIoU {TIOU:g}: of every class first as many as it has "
        "ground truth (1G), then as many again, ... (DETAD, Alwassel et al. 2018).",
    ),
    "error_gains": (
        "Gain from removing errors",
        "How much the average mAP would gain, were all detections of one kind of error removed.",
    ),
    "sensitivity": (
        "Sensitivity",
        "Average mAP of the ground truth in a bin, normalised so that bins of different size "
        "compare; dashed: of all. A bin's edges show on hover. Coverage is a segment's part of its "
        "video, instances those of its class there.",
    ),
    "misses": (
        "False negatives",
        f"Ground truth that none of its class's best {SPLITS}G detections finds at tIoU {TIOU:g}, "
        "in the same bins.",
    ),
}


def calibration(runs: Sequence[EvaluatedRun]) -> Figure:
    """Of detections with about the same score, how many find a segment."""
    values = []
    for run in runs:
        for score_bin in run.diagnosis["calibration"]:
            value = {
                "score": score_bin["mean_score"],
                "precision": 100 * score_bin["precision"],
                "detections": score_bin["detections"],
                "seed": run.seed,
            }
            values.append(value)
    top = max([1.0, *(value["score"] for value in values)])
    axes = {
        "x": p.number("score", "score", domain=[0, top]),
        "y": p.number("precision", "precision (%)", domain=[0, 100]),
    }
    ends = [{"score": 0, "precision": 0}, {"score": 1, "precision": 100}]
    diagonal = {
        "data": {"values": ends},
        "mark": {"type": "line", "strokeDash": [4, 4], "color": p.GREY},
        "encoding": axes,
    }
    size = {
        "field": "detections",
        "type": "quantitative",
        "scale": {"type": "log", "range": [30, 500]},
    }
    said = p.tooltip(
        score="mean score", precision="precision (%)", detections="detections", seed="seed"
    )
    points = {
        "data": {"values": values},
        "mark": {"type": "circle", "color": p.BLUE, "opacity": 0.8},
        "encoding": {**axes, "size": size, "tooltip": said},
    }
    spec = p.base() | {"layer": [diagonal, points]}
    return Figure("calibration", *WORDS["calibration"], spec)


def false_positives(runs: Sequence[EvaluatedRun]) -> Figure:
    """DETAD's profile: what the detections of the ranks up to G, 2 G, ... of every class are."""
    values = []
    for s in range(SPLITS):
        total = sum(sum(run.diagnosis["counts"][s]) for run in runs)
        if not total:
            continue
        for e, kind in enumerate(KINDS):
            count = sum(run.diagnosis["counts"][s][e] for run in runs)
            share = {"share": 100 * count / total, "count": count}
            values.append({"split": f"{s + 1}G", "kind": kind, "order": e, **share})
    splits = {
        "field": "split",
        "type": "ordinal",
        "sort": None,
        "title": "detections of a class up to",
        "axis": p.FLAT,
    }
    spec = p.chart(
        values,
        {"type": "bar"},
        x=splits,
        y=p.number("share", "share (%)", domain=[0, 100]),
        color=p.nominal("kind", "", KINDS, KIND_COLORS),
        order={"field": "order"},
        tooltip=p.tooltip(split="up to", kind="kind", share="share (%)", count="detections"),
    )
    return Figure("false_positives", *WORDS["false_positives"], spec)


def error_gains(runs: Sequence[EvaluatedRun]) -> Figure:
    """What removing each kind of error would add to the average mAP."""
    errors = KINDS[1:]
    gains = {}
    for kind in errors:
        gains[kind] = 100 * statistics.fmean(run.diagnosis["gains"][kind] for run in runs)
    values = [{"kind": kind, "gain": gain} for kind, gain in gains.items()]
    # room for the words behind the longest bar
    longest = 1.25 * max(0.1, *gains.values())
    axes = {
        "x": p.number("gain", "points of average mAP", domain=[0, longest]),
        "y": {
            "field": "kind",
            "type": "nominal",
            "sort": list(errors),
            "title": None,
            "axis": {"ticks": False},
        },
    }
    color = p.nominal("kind", "", errors, KIND_COLORS[1:]) | {"legend": None}
    said = p.tooltip(kind="kind", gain="points of mAP")
    bars = {"mark": {"type": "bar"}, "encoding": {"color": color, "tooltip": said}}
    text = {"field": "gain", "type": "quantitative", "format": ".2f"}
    words = {"mark": {"type": "text", "align": "left", "dx": 4}, "encoding": {"text": text}}
    spec = p.base_of_lanes(28) | {
        "data": {"values": values},
        "encoding": axes,
        "layer": [bars, words],
    }
    return Figure("error_gains", *WORDS["error_gains"], spec)


def sensitivity(runs: Sequence[EvaluatedRun]) -> Figure:
    """Normalised mAP by coverage, length and number of instances, beside that of all."""
    overall = 100 * statistics.fmean(run.diagnosis["normalized_map"] for run in runs)
    rule = {
        "data": {"values": [{"overall": overall}]},
        "mark": {"type": "rule", "strokeDash": [4, 4]},
        "encoding": {
            "y": {"field": "overall", "type": "quantitative"},
            "tooltip": p.tooltip(overall="normalised mAP of all (%)"),
        },
    }
    bars = _bars(_by_bin(runs, "normalized_map"), "normalised mAP (%)")
    return Figure("sensitivity", *WORDS["sensitivity"], p.base() | {"layer": [bars, rule]})


def misses(runs: Sequence[EvaluatedRun]) -> Figure:
    """Share of ground truth that the best detections miss, by the same characteristics."""
    spec = p.base() | _bars(_by_bin(runs, "missed"), "missed (%)")
    return Figure("misses", *WORDS["misses"], spec)


def _by_bin(runs: Sequence[EvaluatedRun], key: str) -> list[Spec]:
    """One record per characteristic and bin that has ground truth."""
    values = []
    for what in CHARACTERISTICS:
        for b, entry in enumerate(runs[0].diagnosis["bins"][what]):
            if not entry["instances"]:
                continue
            mean = statistics.fmean(run.diagnosis["bins"][what][b][key] for run in runs)
            value = {
                "characteristic": what,
                "bin": entry["name"],
                "value": 100 * mean,
                "instances": entry["instances"],
                "edges": _edges(entry, what),
            }
            values.append(value)
    return values


def _edges(entry: Mapping[str, Any], what: str) -> str:
    """A bin in words: lower edge excluded, upper one included."""
    factor = 100 if what == "coverage" else 1
    low, high, unit = factor * entry["low"], entry["high"], UNITS[what]
    if high is None:
        return f"above {low:.3g}{unit}"
    return f"{low:.3g} to {factor * high:.3g}{unit}"


def _bars(values: Sequence[Spec], title: str) -> Spec:
    """Bars side by side, a group of the three characteristics per bin."""
    bins = {
        "field": "bin",
        "type": "ordinal",
        "scale": {"domain": list(BIN_NAMES)},
        "title": None,
        "axis": p.FLAT,
    }
    colors = [p.BLUE, p.ORANGE, p.GREEN]
    color = p.nominal("characteristic", "", CHARACTERISTICS, colors)
    said = p.tooltip(
        characteristic="by", bin="bin", edges="edges", value=title, instances="instances"
    )
    encoding = {
        "x": bins,
        "xOffset": {"field": "characteristic", "sort": list(CHARACTERISTICS)},
        "y": p.number("value", title),
        "color": color | {"legend": {"columns": 3}},
        "tooltip": said,
    }
    return {"data": {"values": list(values)}, "mark": {"type": "bar"}, "encoding": encoding}
