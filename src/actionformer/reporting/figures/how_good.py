"""How good is it? mAP against tIoU, curves of training, AP per class, precision and recall."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from actionformer.evaluation.curves import RECALL_LEVELS
from actionformer.reporting.figures import primitives as p
from actionformer.reporting.figures.primitives import EvaluatedRun, Figure, Spec

LOSSES = {"loss/classification": "classification", "loss/regression": "regression"}
# name -> title and caption
WORDS = {
    "map_tiou": ("mAP against tIoU", "How mAP falls as detections must overlap more."),
    "loss": ("Training loss", "Mean of an epoch's steps, a line per seed."),
    "validation": ("mAP while training", "Averaged weights, after each evaluated epoch."),
    "class_ap": (
        "AP per class",
        "Mean over tIoU thresholds, best class first; in brackets its instances in the evaluated "
        "subset.",
    ),
    "precision_recall": (
        "Precision and recall",
        "Interpolated precision, mean over classes: the area below a line is the mAP at its tIoU. "
        "Where a line ends below 100 % recall, some ground truth is never found.",
    ),
}


def map_against_tiou(
    runs: Sequence[EvaluatedRun],
    ours: str,
    published: Mapping[str, float],
    checkpoint: tuple[str, Mapping[str, float]] | None,
) -> Figure:
    """mAP per threshold: every seed, their mean, the published values, the published checkpoint.

    Args:
        ours: what the numbers of these runs are called.
        published: tIoU -> mAP in percent, and 'average'.
        checkpoint: what the published checkpoint is called, and its metrics in percent.
    """
    values: list[Spec] = []
    for key in runs[0].metrics["percent"]:
        if not key.startswith("mAP/") or key == "mAP/average":
            continue
        tiou = float(key.removeprefix("mAP/"))
        scores = [run.metrics["percent"][key] for run in runs]
        values.append({"tiou": tiou, "map": statistics.fmean(scores), "series": ours})
        if len(runs) > 1:
            for run, score in zip(runs, scores, strict=True):
                values.append({"tiou": tiou, "map": score, "series": f"seed {run.seed}"})
        if checkpoint is not None and key in checkpoint[1]:
            values.append({"tiou": tiou, "map": checkpoint[1][key], "series": checkpoint[0]})
    for threshold, score in published.items():
        if threshold != "average":
            values.append({"tiou": float(threshold), "map": score, "series": "published"})

    series = list(dict.fromkeys(str(value["series"]) for value in values))
    colors = {ours: p.BLUE, "published": p.ORANGE}
    if checkpoint is not None:
        colors[checkpoint[0]] = p.PURPLE
    spec = p.chart(
        values,
        {"type": "line", "point": {"size": 50}},
        x=p.number("tiou", "tIoU threshold", zero=False),
        y=p.number("map", "mAP (%)"),
        color=p.nominal("series", "", series, [colors.get(name, p.GREY) for name in series]),
        tooltip=p.tooltip(series="of", tiou="tIoU", map="mAP (%)"),
    )
    return Figure("map_tiou", *WORDS["map_tiou"], spec)


def losses(runs: Sequence[EvaluatedRun]) -> Figure:
    """Losses per epoch, as trained (with dropout), of every seed."""
    values = []
    for run in runs:
        for epoch, record in enumerate(run.history):
            for key, part in LOSSES.items():
                value = {"epoch": epoch + 1, "loss": record[key], "part": part, "seed": run.seed}
                values.append(value)
    spec = p.chart(
        values,
        {"type": "line", "point": {"size": 12}},
        x=p.number("epoch", "epoch", zero=False),
        y=p.number("loss", "loss"),
        color=p.nominal("part", "", list(LOSSES.values()), [p.BLUE, p.ORANGE]),
        strokeDash={"field": "part", "type": "nominal", "legend": None},
        detail={"field": "seed"},
        tooltip=p.tooltip(part="loss", epoch="epoch", loss="value", seed="seed"),
    )
    return Figure("loss", *WORDS["loss"], spec)


def validation(runs: Sequence[EvaluatedRun]) -> Figure:
    """Average mAP after the epochs that are evaluated."""
    values: list[Spec] = []
    for run in runs:
        for epoch, record in enumerate(run.history):
            score = record.get("mAP/average")
            if score is not None:
                values.append({"epoch": epoch + 1, "map": score, "seed": f"seed {run.seed}"})
    if not values:  # no epoch was evaluated: the score at the end is what there is
        for run in runs:
            score, last = run.metrics["percent"]["mAP/average"], len(run.history)
            values.append({"epoch": last, "map": score, "seed": f"seed {run.seed}"})
    # not closer than five points: what lies below that is noise
    scores = [value["map"] for value in values]
    domain = [max(0, min(scores) - 2.5), min(100, max(scores) + 2.5)]
    epochs = {
        "field": "epoch",
        "type": "ordinal",
        "title": "epoch",
        "axis": p.FLAT | {"labelOverlap": True},
    }
    spec = p.chart(
        values,
        {"type": "line", "point": {"size": 40}},
        x=epochs,
        y=p.number("map", "average mAP (%)", domain=domain),
        color={"field": "seed", "type": "nominal", "title": None},
        tooltip=p.tooltip(seed="of", epoch="epoch", map="average mAP (%)"),
    )
    return Figure("validation", *WORDS["validation"], spec)


def class_average_precision(runs: Sequence[EvaluatedRun]) -> Figure:
    """AP of every class, mean over thresholds, best first, with its number of instances."""
    values = []
    for label, entry in runs[0].metrics["classes"].items():
        instances = entry["instances"]
        per_seed = [statistics.fmean(run.metrics["classes"][label]["ap"]) for run in runs]
        ap = 100 * statistics.fmean(per_seed)
        values.append({"class": f"{label} ({instances})", "ap": ap, "instances": instances})
    lanes = p.lanes("class", "-x")
    spec = p.chart(
        values,
        {"type": "bar", "color": p.BLUE},
        y=lanes,
        x=p.number("ap", "AP (%), mean over tIoU"),
        tooltip=p.tooltip(**{"class": "class", "ap": "AP (%)", "instances": "instances"}),
        start=p.base_of_lanes(15),
    )
    return Figure("class_ap", *WORDS["class_ap"], spec)


def precision_recall(runs: Sequence[EvaluatedRun]) -> Figure:
    """Interpolated precision against recall, mean over classes, per threshold."""
    values = []
    for tiou in runs[0].diagnosis["precision"]:
        for r, recall in enumerate(RECALL_LEVELS.tolist()):
            precision = statistics.fmean(run.diagnosis["precision"][tiou][r] for run in runs)
            point = {"recall": 100 * recall, "precision": 100 * precision}
            values.append({"tiou": float(tiou), **point})
    thresholds = [float(tiou) for tiou in runs[0].diagnosis["precision"]]
    # an ordered scale: low thresholds dark, high ones light
    shades = [p.NAVY, p.BLUE, p.YELLOW]
    color = {
        "field": "tiou",
        "type": "quantitative",
        "title": "tIoU",
        "legend": {"type": "symbol", "values": thresholds, "columns": 5},
        "scale": {"range": shades, "zero": False, "nice": False},
    }
    spec = p.chart(
        values,
        {"type": "line"},
        x=p.number("recall", "recall (%)"),
        y=p.number("precision", "precision (%)", domain=[0, 100]),
        color=color,
        detail={"field": "tiou"},
        tooltip=p.tooltip(tiou="tIoU", recall="recall (%)", precision="precision (%)"),
    )
    return Figure("precision_recall", *WORDS["precision_recall"], spec)
