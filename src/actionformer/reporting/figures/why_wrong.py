"""Why is it wrong? Scores that mislead, kinds of error and their cost, what is hard or missed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from actionformer.evaluation.diagnosis import CHARACTERISTICS, KINDS, SPLITS, TIOU
from actionformer.reporting.figures import primitives as p
from actionformer.reporting.figures.primitives import EvaluatedRun, Figure, Spec

KIND_COLORS = (p.NAVY, p.PURPLE, p.BLUE, p.ORANGE, p.YELLOW, p.PALE)
# in a bar, for whom colours say nothing; on which of them letters are light
KIND_LETTERS = ("T", "D", "W", "L", "C", "B")
LIGHT_LETTERS = (True, True, True, False, False, False)
MISSED = "missed ground truth"
# how many pairs of classes are drawn, and what is said where there are none
SHOWN_PAIRS = 15
NO_CONFUSION = "no class is taken for another"
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
        "ground truth (1G), then as many again, ... (DETAD, Alwassel et al. 2018). Letters: True, "
        "Double, Wrong label, Localization, Confusion, Background.",
    ),
    "error_gains": (
        "Gain from removing errors",
        "How much the average mAP would gain, were all detections of one kind of error removed; or "
        "were ground truth that nothing finds found by sure detections.",
    ),
    "confusions": (
        "Confused classes",
        f"Which class is taken for which, among the surest detections of every class, at tIoU "
        f"{TIOU:g}; a mean over seeds. Click a bar for a video of it in the timelines.",
    ),
    "sensitivity": (
        "Sensitivity",
        "Average mAP of the ground truth in a bin, normalised so that bins of different size "
        "compare; dashed: of all. In brackets how much ground truth there is in a bin; of none "
        "there is no mAP. Coverage is a segment's part of its video, instances those of its class "
        "there.",
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
        start = 0.0
        for e, kind in enumerate(KINDS):
            count = sum(run.diagnosis["counts"][s][e] for run in runs)
            share = 100 * count / total
            value = {
                "split": f"{s + 1}G",
                "kind": kind,
                "letter": KIND_LETTERS[e],
                "on_dark": LIGHT_LETTERS[e],
                "order": e,
                "share": share,
                "count": count,
                "middle": start + share / 2,
            }
            values.append(value)
            start += share
    splits = {
        "field": "split",
        "type": "ordinal",
        "sort": None,
        "title": "detections of a class up to",
        "axis": p.FLAT,
    }
    share_axis = p.number("share", "share (%)", domain=[0, 100])
    said = p.tooltip(split="up to", kind="kind", share="share (%)", count="detections")
    bars = {
        "mark": {"type": "bar", "stroke": p.GREY, "strokeWidth": 0.5},
        "encoding": {
            "y": share_axis,
            "color": p.nominal("kind", "", KINDS, KIND_COLORS),
            "order": {"field": "order"},
            "tooltip": said,
        },
    }
    letters = {
        "transform": [{"filter": "datum.share >= 7"}],
        "mark": {"type": "text", "fontSize": 10},
        "encoding": {
            "y": p.number("middle", "share (%)", domain=[0, 100]),
            "text": {"field": "letter"},
            "color": {
                "condition": {"test": "datum.on_dark", "value": "#ffffff"},
                "value": "#222222",
            },
        },
    }
    spec = p.base() | {
        "data": {"values": values},
        "encoding": {"x": splits},
        "layer": [bars, letters],
    }
    return Figure("false_positives", *WORDS["false_positives"], spec)


def error_gains(runs: Sequence[EvaluatedRun]) -> Figure:
    """What removing each kind of error would add to the average mAP, and missing nothing."""
    gains = gains_of(runs)
    values = [{"kind": kind, "gain": gain} for kind, gain in gains.items()]
    errors = list(gains)
    lanes = p.lanes("kind", errors)
    colors = [*KIND_COLORS[1:], p.GREY]
    color = p.nominal("kind", "", errors, colors[: len(errors)]) | {"legend": None}
    said = p.tooltip(kind="kind", gain="points of mAP")
    title = "points of average mAP"
    words = _as_number("gain", ".2f")
    spec = _lanes(values, lanes, "gain", title, words, color=color, said=said, height=28)
    return Figure("error_gains", *WORDS["error_gains"], spec)


def gains_of(runs: Sequence[EvaluatedRun]) -> dict[str, float]:
    """Kind of error -> points of average mAP that it costs, mean over seeds; and missing."""
    gains = {}
    for kind in KINDS[1:]:
        gains[kind] = 100 * statistics.fmean(run.diagnosis["gains"][kind] for run in runs)
    # an evaluation of an earlier version does not say it
    if all("missed_gain" in run.diagnosis for run in runs):
        gains[MISSED] = 100 * statistics.fmean(run.diagnosis["missed_gain"] for run in runs)
    return gains


def confusions(runs: Sequence[EvaluatedRun]) -> Figure:
    """Which class is taken for which: pairs of classes by how often, over all runs."""
    counts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        for pair in run.diagnosis.get("confusions", []):
            counts.setdefault((pair["truth"], pair["detected"]), []).append(pair)
    values = []
    for (truth, detected), pairs in counts.items():
        value = {
            "pair": f"{truth} as {detected}",
            "count": sum(pair["count"] for pair in pairs) / len(runs),
            "class": truth,
            # where a click leads to; runs are in their order, timelines are of the first
            "video": pairs[0]["videos"][0],
        }
        values.append(value)
    values.sort(key=lambda value: -value["count"])
    values = values[:SHOWN_PAIRS]
    if not values:
        values = [{"pair": NO_CONFUSION, "count": 0, "class": "", "video": ""}]
    lanes = p.lanes("pair", [value["pair"] for value in values])
    said = p.tooltip(pair="taken", count="detections", video="video")
    words, color = _as_number("count", ".3~g"), {"value": p.BLUE}
    spec = _lanes(values, lanes, "count", "detections", words, color=color, said=said)
    return Figure("confusions", *WORDS["confusions"], spec)


def confused_videos(runs: Sequence[EvaluatedRun]) -> dict[str, str]:
    """Videos that the bars of `confusions` lead to -> what is said of them."""
    spec = confusions(runs).spec
    found: dict[str, str] = {}
    for value in spec["data"]["values"]:
        if value["video"]:
            found.setdefault(value["video"], value["pair"])
    return found


def sensitivity(runs: Sequence[EvaluatedRun]) -> Figure:
    """Normalised mAP by coverage, length and number of instances, beside that of all."""
    overall = 100 * statistics.fmean(run.diagnosis["normalized_map"] for run in runs)
    rule = {
        "data": {"values": [{"overall": overall}]},
        "mark": {"type": "rule", "strokeDash": [4, 4]},
        "encoding": {
            "x": {"field": "overall", "type": "quantitative"},
            "tooltip": p.tooltip(overall="normalised mAP of all (%)"),
        },
    }
    spec = _by_bin(runs, "normalized_map", "normalised mAP (%)")
    spec["layer"].append(rule)
    return Figure("sensitivity", *WORDS["sensitivity"], spec)


def misses(runs: Sequence[EvaluatedRun]) -> Figure:
    """Share of ground truth that the best detections miss, by the same characteristics."""
    return Figure("misses", *WORDS["misses"], _by_bin(runs, "missed", "missed (%)"))


def _by_bin(runs: Sequence[EvaluatedRun], key: str, title: str) -> Spec:
    """A lane per characteristic and bin, which says its edges and how much lies in it.

    A bin without ground truth says so: nothing is not 0.
    """
    values = []
    for what in CHARACTERISTICS:
        for b, entry in enumerate(runs[0].diagnosis["bins"][what]):
            instances = entry["instances"]
            value: dict[str, Any] = {
                "lane": f"{what} {entry['name']}: {_edges(entry, what)}",
                "characteristic": what,
                "instances": instances,
                "said": "none (0)",
                "value": None,
            }
            if instances:
                mean = statistics.fmean(run.diagnosis["bins"][what][b][key] for run in runs)
                value |= {"value": 100 * mean, "said": f"{100 * mean:.1f} ({instances})"}
            values.append(value)
    lanes = p.lanes("lane", [value["lane"] for value in values])
    colors = [p.BLUE, p.ORANGE, p.YELLOW]
    color = p.nominal("characteristic", "", CHARACTERISTICS, colors) | {"legend": None}
    said = p.tooltip(lane="bin", value=title, instances="instances")
    words = {"field": "said", "type": "nominal"}
    return _lanes(
        values, lanes, "value", title, words, color=color, said=said, height=16, at_the_right=True
    )


def _as_number(field: str, form: str) -> Spec:
    """A number in words."""
    return {"field": field, "type": "quantitative", "format": form}


def _lanes(
    values: Sequence[Spec],
    lanes: Spec,
    field: str,
    title: str,
    words: Spec,
    *,
    color: Spec,
    said: Sequence[Spec],
    height: int = 18,
    at_the_right: bool = False,
) -> Spec:
    """Lying bars with what they say behind their ends.

    Args:
        lanes: the axis of names.
        field: of the values: how long a bar is.
        words: what stands behind its end.
        said: on hover.
        at_the_right: the words stand in a column there, where no line crosses them; of percents.
    """
    numbers = [value[field] for value in values if value[field] is not None]
    # room for the words behind the longest bar
    longest = (1.7 if at_the_right else 1.25) * max([0.1, *numbers])
    cursor = "pointer" if "video" in values[0] else "default"
    length = p.number(field, title, domain=[0, longest])
    length["axis"] = {"tickCount": 5}
    if longest > 100:  # there are no more than 100 %
        length["axis"] = {"values": [0, 25, 50, 75, 100]}
    bars = {
        "mark": {"type": "bar", "cursor": cursor},
        "encoding": {"x": length, "y": lanes, "color": color, "tooltip": list(said)},
    }
    # the words of a bar that isn't there begin where it would
    begin = f"datum['{field}'] === null ? 0 : datum['{field}']"
    mark = {"type": "text", "align": "left", "dx": 4}
    if at_the_right:
        begin, mark = str(longest), {"type": "text", "align": "right"}
    labels = {
        "mark": mark,
        "encoding": {"x": {"field": "at", "type": "quantitative"}, "y": lanes, "text": words},
    }
    return p.base_of_lanes(height) | {
        "data": {"values": list(values)},
        "transform": [{"calculate": begin, "as": "at"}],
        "layer": [bars, labels],
    }


def _edges(entry: Mapping[str, Any], what: str) -> str:
    """A bin in words: lower edge excluded, upper one included."""
    factor = 100 if what == "coverage" else 1
    low, high, unit = factor * entry["low"], entry["high"], UNITS[what]
    if high is None:
        return f"above {low:.3g}{unit}"
    return f"{low:.3g} to {factor * high:.3g}{unit}"
