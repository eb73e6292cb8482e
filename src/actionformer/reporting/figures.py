"""Every figure, as a Vega-Lite specification: one renderer for the report, MLflow, Snakemake's report and files.

A specification is a plain mapping that holds its data (https://vega.github.io/vega-lite/docs/spec.html). Colours of
text and axes are not in it: `LIGHT` or `DARK` gives them where it is drawn. Numbers of several seeds are means.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert

from actionformer.data.annotations import Video
from actionformer.evaluation.curves import RECALL_LEVELS
from actionformer.evaluation.diagnosis import BIN_NAMES, CHARACTERISTICS, KINDS, SPLITS, TIOU

Spec = dict[str, Any]

WORDS = {
    "map_tiou": ("mAP against tIoU", "How mAP falls as detections must overlap more."),
    "loss": ("Training loss", "Mean of an epoch's steps, a line per seed."),
    "validation": ("mAP while training", "Averaged weights, after each evaluated epoch."),
    "class_ap": (
        "AP per class",
        "Mean over tIoU thresholds, best class first; in brackets its instances in the evaluated subset.",
    ),
    "precision_recall": (
        "Precision and recall",
        "Interpolated precision, mean over classes: the area below a line is the mAP at its tIoU. Where a line ends "
        "below 100 % recall, some ground truth is never found.",
    ),
    "calibration": (
        "Calibration of scores",
        f"Detections in ten bins of score: how many of a bin find a segment at tIoU {TIOU:g}. On the dashed line a "
        "score is the probability of being right.",
    ),
    "false_positives": (
        "False-positive profile",
        f"What the best detections are, at tIoU {TIOU:g}: of every class first as many as it has ground truth (1G), "
        "then as many again, ... (DETAD, Alwassel et al. 2018).",
    ),
    "error_gains": (
        "Gain from removing errors",
        "How much the average mAP would gain, were all detections of one kind of error removed.",
    ),
    "sensitivity": (
        "Sensitivity",
        "Average mAP of the ground truth in a bin, normalised so that bins of different size compare; dashed: of all. "
        "A bin's edges show on hover. Coverage is a segment's part of its video, instances those of its class there.",
    ),
    "misses": (
        "False negatives",
        f"Ground truth that none of its class's best {SPLITS}G detections finds at tIoU {TIOU:g}, in the same bins.",
    ),
    "timelines": (
        "Timelines",
        "Ground truth and detections, stronger where surer; the worst videos first, then the best. Drag to move, "
        "scroll to zoom, double click for the whole video.",
    ),
}
"""name -> title and caption of every figure of a row, in their order (`layout.FIGURES`)"""
VEGA_LITE = "6.4"
WIDTH = 640
"""of a drawn picture; on a page a figure is as wide as its place"""
BLUE, ORANGE, GREEN, RED, PURPLE, GREY, YELLOW = (
    "#4c78a8", "#e07b39", "#3d9970", "#c8504b", "#8d6cab", "#8c8c8c", "#c9a227",
)  # fmt: skip
KIND_COLORS = (GREEN, YELLOW, PURPLE, BLUE, ORANGE, RED)
TRUTH, DETECTED = GREEN, ORANGE
WHOLE_VIDEO = "(whole video)"


def _theme(text: str, lines: str, background: str | None) -> Spec:
    axis = {"labelColor": text, "titleColor": text, "gridColor": lines, "domainColor": lines, "tickColor": lines}
    return {
        "background": background,
        "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
        "axis": axis | {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 150},
        "legend": {"labelColor": text, "titleColor": text, "labelFontSize": 11, "titleFontWeight": "normal"}
        | {"orient": "bottom", "columns": 2, "symbolLimit": 40, "labelLimit": 200},
        "title": {"color": text, "subtitleColor": text},
        "view": {"stroke": None},
        "text": {"color": text},
        "rule": {"color": text},
    }


LIGHT = _theme("#333333", "#dddddd", "white")
DARK = _theme("#d8d8d8", "#444444", None)


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
    history: Sequence[Mapping[str, float]]
    """one record per epoch; empty where nothing was trained here"""
    metrics: Mapping[str, Any]
    diagnosis: Mapping[str, Any]


def svg(spec: Spec) -> str:
    """A figure drawn for a light background."""
    return vl_convert.vegalite_to_svg(_fixed_width(spec), vl_version=VEGA_LITE, config=LIGHT)


def png(spec: Spec) -> bytes:
    """A figure drawn for a light background, at twice the usual density."""
    return vl_convert.vegalite_to_png(_fixed_width(spec), vl_version=VEGA_LITE, config=LIGHT, scale=2)


def pdf(spec: Spec) -> bytes:
    """A figure drawn for a light background."""
    return vl_convert.vegalite_to_pdf(_fixed_width(spec), vl_version=VEGA_LITE, config=LIGHT)


def library() -> str:
    """The JavaScript that draws specifications in a browser; defines `vegaEmbed`."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)


def _fixed_width(spec: Spec) -> str:
    return json.dumps(spec | {"width": WIDTH} if spec.get("width") == "container" else spec)


# ---------------------------------------------------------------------------------------------- the figures of a row


def row_figures(
    runs: Sequence[EvaluatedRun],
    *,
    ours: str,
    published: Mapping[str, float],
    checkpoint: tuple[str, Mapping[str, float]] | None,
    videos: Sequence[Timeline],
    classes: Sequence[str],
    min_score: float,
) -> list[Figure]:
    """All figures of a row, in the order in which a reader asks for them.

    Args:
        ours: what the numbers of these runs are called.
        published: tIoU -> published mAP in percent, and 'average'; empty where it doesn't compare.
        checkpoint: what the published checkpoint is called, and its metrics in percent, where there is one.
        videos: what the timelines show, in order.
        min_score: the score from which timelines show detections at first.
    """
    figures = [map_against_tiou(runs, ours, published, checkpoint)]
    if any(run.history for run in runs):
        figures += [losses(runs), validation(runs)]
    figures += [
        class_average_precision(runs),
        precision_recall(runs),
        calibration(runs),
        false_positives(runs),
        error_gains(runs),
        sensitivity(runs),
        misses(runs),
    ]
    if videos:
        figures.append(timelines(videos, classes, min_score=min_score))
    return figures


def map_against_tiou(
    runs: Sequence[EvaluatedRun],
    ours: str,
    published: Mapping[str, float],
    checkpoint: tuple[str, Mapping[str, float]] | None,
) -> Figure:
    """mAP per threshold: every seed, their mean, the published values, the published checkpoint."""
    values = []
    keys = [key for key in runs[0].metrics["percent"] if key.startswith("mAP/") and key != "mAP/average"]
    for key in keys:
        tiou = float(key.removeprefix("mAP/"))
        scores = [run.metrics["percent"][key] for run in runs]
        values.append({"tiou": tiou, "map": statistics.fmean(scores), "series": ours})
        if len(runs) > 1:
            values += [
                {"tiou": tiou, "map": score, "series": f"seed {run.seed}"}
                for run, score in zip(runs, scores, strict=True)
            ]
        if checkpoint is not None and key in checkpoint[1]:
            values.append({"tiou": tiou, "map": checkpoint[1][key], "series": checkpoint[0]})
    values += [
        {"tiou": float(tiou), "map": score, "series": "published"}
        for tiou, score in published.items()
        if tiou != "average"
    ]
    series = list(dict.fromkeys(str(v["series"]) for v in values))
    colors = {ours: BLUE, "published": ORANGE} | ({} if checkpoint is None else {checkpoint[0]: GREEN})
    spec = _chart(
        values,
        {"type": "line", "point": {"size": 50}},
        x=_number("tiou", "tIoU threshold", zero=False),
        y=_number("map", "mAP (%)"),
        color=_nominal("series", "", series, [colors.get(name, GREY) for name in series]),
        tooltip=_tooltip(series="of", tiou="tIoU", map="mAP (%)"),
    )
    return _figure("map_tiou", spec)


def losses(runs: Sequence[EvaluatedRun]) -> Figure:
    """Losses per epoch, as trained (with dropout), of every seed."""
    names = {"loss/classification": "classification", "loss/regression": "regression"}
    values = [
        {"epoch": epoch + 1, "loss": record[key], "part": part, "seed": run.seed}
        for run in runs
        for epoch, record in enumerate(run.history)
        for key, part in names.items()
    ]
    spec = _chart(
        values,
        {"type": "line", "point": {"size": 12}},
        x=_number("epoch", "epoch", zero=False),
        y=_number("loss", "loss"),
        color=_nominal("part", "", list(names.values()), [BLUE, ORANGE]),
        detail={"field": "seed"},
        tooltip=_tooltip(part="loss", epoch="epoch", loss="value", seed="seed"),
    )
    return _figure("loss", spec)


def validation(runs: Sequence[EvaluatedRun]) -> Figure:
    """Average mAP after the epochs that are evaluated."""
    values: list[Spec] = [
        {"epoch": epoch + 1, "map": record["mAP/average"], "seed": f"seed {run.seed}"}
        for run in runs
        for epoch, record in enumerate(run.history)
        if record.get("mAP/average") is not None
    ]
    if not values:  # no epoch was evaluated: the score at the end is what there is
        values = [
            {"epoch": len(run.history), "map": run.metrics["percent"]["mAP/average"], "seed": f"seed {run.seed}"}
            for run in runs
        ]
    # not closer than five points: what lies below that is noise
    scores = [value["map"] for value in values]
    spec = _chart(
        values,
        {"type": "line", "point": {"size": 40}},
        x={"field": "epoch", "type": "ordinal", "title": "epoch", "axis": _FLAT | {"labelOverlap": True}},
        y=_number("map", "average mAP (%)", domain=[max(0, min(scores) - 2.5), min(100, max(scores) + 2.5)]),
        color={"field": "seed", "type": "nominal", "title": None},
        tooltip=_tooltip(seed="of", epoch="epoch", map="average mAP (%)"),
    )
    return _figure("validation", spec)


def class_average_precision(runs: Sequence[EvaluatedRun]) -> Figure:
    """AP of every class, mean over thresholds, best first, with its number of instances."""
    values = []
    for label, entry in runs[0].metrics["classes"].items():
        ap = statistics.fmean(statistics.fmean(run.metrics["classes"][label]["ap"]) for run in runs)
        values.append({"class": f"{label} ({entry['instances']})", "ap": 100 * ap, "instances": entry["instances"]})
    spec = _chart(
        values,
        {"type": "bar", "color": BLUE},
        y={
            "field": "class",
            "type": "nominal",
            "sort": "-x",
            "title": None,
            "axis": {"ticks": False, "labelLimit": 200},
        },
        x=_number("ap", "AP (%), mean over tIoU"),
        tooltip=_tooltip(**{"class": "class", "ap": "AP (%)", "instances": "instances"}),
        base=_steps(15),
    )
    return _figure("class_ap", spec)


def precision_recall(runs: Sequence[EvaluatedRun]) -> Figure:
    """Interpolated precision against recall, mean over classes, per threshold."""
    values = []
    for tiou in runs[0].diagnosis["precision"]:
        for r, recall in enumerate(RECALL_LEVELS.tolist()):
            precision = statistics.fmean(run.diagnosis["precision"][tiou][r] for run in runs)
            values.append({"tiou": float(tiou), "recall": 100 * recall, "precision": 100 * precision})
    ends = [float(value["tiou"]) for value in (values[0], values[-1])]
    spec = _chart(
        values,
        {"type": "line"},
        x=_number("recall", "recall (%)"),
        y=_number("precision", "precision (%)", domain=[0, 100]),
        color={
            "field": "tiou",
            "type": "quantitative",
            "title": "tIoU",
            "legend": {"gradientLength": 160, "values": ends},
        }
        | {"scale": {"range": [BLUE, GREEN, YELLOW, ORANGE], "zero": False, "nice": False}},
        detail={"field": "tiou"},
        tooltip=_tooltip(tiou="tIoU", recall="recall (%)", precision="precision (%)"),
    )
    return _figure("precision_recall", spec)


def calibration(runs: Sequence[EvaluatedRun]) -> Figure:
    """Of detections with about the same score, how many find a segment."""
    values = [
        {"score": b["mean_score"], "precision": 100 * b["precision"], "detections": b["detections"], "seed": run.seed}
        for run in runs
        for b in run.diagnosis["calibration"]
    ]
    top = max([1.0, *(v["score"] for v in values)])
    diagonal = {
        "data": {"values": [{"score": 0, "precision": 0}, {"score": 1, "precision": 100}]},
        "mark": {"type": "line", "strokeDash": [4, 4], "color": GREY},
        "encoding": {
            "x": _number("score", "score", domain=[0, top]),
            "y": _number("precision", "precision (%)", domain=[0, 100]),
        },
    }
    points = {
        "data": {"values": values},
        "mark": {"type": "circle", "color": BLUE, "opacity": 0.8},
        "encoding": {
            "x": _number("score", "score", domain=[0, top]),
            "y": _number("precision", "precision (%)", domain=[0, 100]),
            "size": {"field": "detections", "type": "quantitative", "scale": {"type": "log", "range": [30, 500]}},
            "tooltip": _tooltip(score="mean score", precision="precision (%)", detections="detections", seed="seed"),
        },
    }
    return _figure("calibration", _base() | {"layer": [diagonal, points]})


def false_positives(runs: Sequence[EvaluatedRun]) -> Figure:
    """DETAD's false-positive profile: what the detections of the ranks up to G, 2 G, ... of every class are."""
    values = []
    for s in range(SPLITS):
        total = sum(sum(run.diagnosis["counts"][s]) for run in runs)
        for e, kind in enumerate(KINDS):
            count = sum(run.diagnosis["counts"][s][e] for run in runs)
            if total:
                share = 100 * count / total
                values.append({"split": f"{s + 1}G", "kind": kind, "order": e, "share": share, "count": count})
    spec = _chart(
        values,
        {"type": "bar"},
        x={"field": "split", "type": "ordinal", "sort": None, "title": "detections of a class up to", "axis": _FLAT},
        y=_number("share", "share (%)", domain=[0, 100]),
        color=_nominal("kind", "", KINDS, KIND_COLORS),
        order={"field": "order"},
        tooltip=_tooltip(split="up to", kind="kind", share="share (%)", count="detections"),
    )
    return _figure("false_positives", spec)


def error_gains(runs: Sequence[EvaluatedRun]) -> Figure:
    """What removing each kind of error would add to the average mAP."""
    gains = {kind: 100 * statistics.fmean(run.diagnosis["gains"][kind] for run in runs) for kind in KINDS[1:]}
    values = [{"kind": kind, "gain": gain} for kind, gain in gains.items()]
    y = {"field": "kind", "type": "nominal", "sort": list(KINDS[1:]), "title": None, "axis": {"ticks": False}}
    # room for the words behind the longest bar
    x = _number("gain", "points of average mAP", domain=[0, 1.25 * max(0.1, *gains.values())])
    color = _nominal("kind", "", KINDS[1:], KIND_COLORS[1:]) | {"legend": None}
    bars = {
        "mark": {"type": "bar"},
        "encoding": {"color": color, "tooltip": _tooltip(kind="kind", gain="points of mAP")},
    }
    words = {
        "mark": {"type": "text", "align": "left", "dx": 4},
        "encoding": {"text": {"field": "gain", "type": "quantitative", "format": ".2f"}},
    }
    spec = _steps(28) | {"data": {"values": values}, "encoding": {"x": x, "y": y}, "layer": [bars, words]}
    return _figure("error_gains", spec)


def sensitivity(runs: Sequence[EvaluatedRun]) -> Figure:
    """Normalised mAP of ground truth by coverage, length and number of instances, beside that of all."""
    values = _by_bin(runs, "normalized_map")
    overall = 100 * statistics.fmean(run.diagnosis["normalized_map"] for run in runs)
    rule = {
        "data": {"values": [{"overall": overall}]},
        "mark": {"type": "rule", "strokeDash": [4, 4]},
        "encoding": {
            "y": {"field": "overall", "type": "quantitative"},
            "tooltip": _tooltip(overall="normalised mAP of all (%)"),
        },
    }
    layers = [_bars(values, "normalised mAP (%)"), rule]
    return _figure("sensitivity", _base() | {"layer": layers})


def misses(runs: Sequence[EvaluatedRun]) -> Figure:
    """Share of ground truth that the best detections miss, by coverage, length and number of instances."""
    spec = _base() | _bars(_by_bin(runs, "missed"), "missed (%)")
    return _figure("misses", spec)


@dataclass(frozen=True)
class Timeline:
    """A video with its detections, best first, and what the chooser says of it."""

    video: Video
    detections: Sequence[Mapping[str, Any]]
    remark: str = ""


def timelines(videos: Sequence[Timeline], classes: Sequence[str], *, min_score: float) -> Figure:
    """Ground truth and detections of videos on one axis of seconds, a lane per class; one video shows at a time."""
    scores = [d["score"] for shown in videos for d in shown.detections]
    surest, least = max(scores, default=0.0), min(scores, default=0.0)
    values: list[Spec] = []
    for shown in videos:
        name = shown.video.name
        values.append({"what": "video", "class": WHOLE_VIDEO, "start": 0, "end": shown.video.duration, "strength": 0.5})
        values += [
            {"what": "ground truth", "class": label, "start": start, "end": end, "strength": 0.8}
            for (start, end), label in zip(shown.video.segments_N2.tolist(), shown.video.labels, strict=True)
        ]
        values += [
            {"what": "detected", "class": d["label"], "start": start, "end": end, "score": d["score"]}
            | {"strength": 0.35 + 0.65 * max(d["score"], 0) / max(surest, 1e-9)}
            for d in shown.detections
            for start, end in [d["segment"]]
        ]
        for value in values:
            value.setdefault("video", name)
    occurring = {v["class"] for v in values}
    lanes = [label for label in classes if label in occurring]
    lanes += sorted(occurring - {*lanes, WHOLE_VIDEO})
    colors = {"ground truth": TRUTH, "detected": DETECTED, "video": GREY}
    legend = [what for what in ("ground truth", "detected") if any(v["what"] == what for v in values)]
    for value in values:
        value["place"] = value["what"] if value["what"] in legend else next(iter(legend), "ground truth")
    spec = _chart(
        values,
        {"type": "bar", "cornerRadius": 1},
        y={"field": "class", "type": "nominal", "sort": [WHOLE_VIDEO, *lanes], "title": None}
        | {"axis": {"grid": True, "ticks": False}},
        yOffset={"field": "place", "scale": {"paddingInner": 0.1, "domain": legend or ["ground truth"]}},
        x=_number("start", "seconds") | {"scale": {"nice": False}},
        x2={"field": "end"},
        color=_nominal("what", "", list(colors), list(colors.values()))
        | {"legend": {"values": legend} if legend else None},
        opacity={"field": "strength", "type": "quantitative", "scale": {"domain": [0, 1], "range": [0, 1]}}
        | {"legend": None},
        tooltip=_tooltip(what="what", **{"class": "class"}, start="start (s)", end="end (s)", score="score"),
        base=_steps(12 if len(lanes) > 12 else 15),
    )
    slider = {"input": "range", "min": min(0.0, least), "max": _ceil(surest), "step": 0.01, "name": "score from "}
    chooser = {"input": "select", "options": [None, *lanes], "labels": ["all", *lanes], "name": "class "}
    spec["params"] = [
        {"name": "only", "value": None, "bind": chooser},
        {"name": "from_score", "value": min_score, "bind": slider},
        {"name": "zoom", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"},
    ]
    tests = [
        "only === null || datum.class === only || datum.what === 'video'",
        "datum.what !== 'detected' || datum.score >= from_score",
    ]
    if len(videos) > 1:
        names = [t.video.name for t in videos]
        labels = [f"{t.video.name}{f' ({t.remark})' if t.remark else ''}" for t in videos]
        chooser = {"input": "select", "options": names, "labels": labels, "name": "video "}
        spec["params"].insert(0, {"name": "video", "value": names[0], "bind": chooser})
        tests.insert(0, "datum.video === video")
    else:
        spec["title"] = {"text": next((t.video.name for t in videos), ""), "anchor": "start", "fontWeight": "normal"}
    spec["transform"] = [{"filter": test} for test in tests]
    return _figure("timelines", spec)


# ---------------------------------------------------------------------------------------------- what they share


def _figure(name: str, spec: Spec) -> Figure:
    return Figure(name, *WORDS[name], spec)


_FLAT = {"labelAngle": 0}


def _base() -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 260,
        "autosize": {"type": "fit-x", "contains": "padding"},
    }


def _steps(height: int) -> Spec:
    """A base whose lanes each have this height."""
    return {key: value for key, value in _base().items() if key != "autosize"} | {"height": {"step": height}}


def _chart(values: Iterable[Mapping[str, Any]], mark: Spec, *, base: Spec | None = None, **encoding: Any) -> Spec:
    return (base or _base()) | {"data": {"values": list(values)}, "mark": mark, "encoding": encoding}


def _number(field: str, title: str, *, zero: bool = True, domain: Sequence[float] | None = None) -> Spec:
    scale: Spec = {"zero": zero, "nice": True} if domain is None else {"domain": list(domain)}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale}


def _nominal(field: str, title: str, domain: Sequence[str], colors: Sequence[str]) -> Spec:
    scale = {"domain": list(domain), "range": list(colors)}
    return {"field": field, "type": "nominal", "title": title or None, "scale": scale}


def _tooltip(**fields: str) -> list[Spec]:
    """field -> what it is called; numbers get two digits."""
    exact = {"epoch", "seed", "instances", "detections", "count", "tiou", "score"}
    words = {"series", "part", "class", "kind", "split", "what", "bin", "edges", "characteristic"}
    return [
        {"field": field, "title": title} | ({} if field in exact | words else {"format": ".2f", "type": "quantitative"})
        for field, title in fields.items()
    ]


def _by_bin(runs: Sequence[EvaluatedRun], key: str) -> list[Spec]:
    """One record per characteristic and bin that has ground truth."""
    values = []
    for what in CHARACTERISTICS:
        for b, entry in enumerate(runs[0].diagnosis["bins"][what]):
            if entry["instances"]:
                value = 100 * statistics.fmean(run.diagnosis["bins"][what][b][key] for run in runs)
                values.append(
                    {"characteristic": what, "bin": entry["name"], "value": value, "instances": entry["instances"]}
                    | {"edges": _edges(entry, what)}
                )
    return values


def _edges(entry: Mapping[str, Any], what: str) -> str:
    """A bin in words: lower edge excluded, upper one included."""
    unit = {"coverage": " %", "length": " s", "instances": ""}[what]
    low, high = (None if e is None else (100 * e if what == "coverage" else e) for e in (entry["low"], entry["high"]))
    if high is None:
        return f"above {low:.3g}{unit}"
    return f"{low:.3g} to {high:.3g}{unit}"


def _bars(values: Sequence[Spec], title: str) -> Spec:
    return {
        "data": {"values": list(values)},
        "mark": {"type": "bar"},
        "encoding": {
            "x": {
                "field": "bin",
                "type": "ordinal",
                "scale": {"domain": list(BIN_NAMES)},
                "title": None,
                "axis": _FLAT,
            },
            "xOffset": {"field": "characteristic", "sort": list(CHARACTERISTICS)},
            "y": _number("value", title),
            "color": _nominal("characteristic", "", CHARACTERISTICS, [BLUE, ORANGE, GREEN])
            | {"legend": {"columns": 3}},
            "tooltip": _tooltip(characteristic="by", bin="bin", edges="edges", value=title, instances="instances"),
        },
    }


def _ceil(score: float) -> float:
    """The next tenth."""
    return -(-score * 10 // 1) / 10
