"""Pictures of results. Functions return a matplotlib figure; the caller writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from actionformer.data.annotations import Video

TRUTH, DETECTED = "#1b6e53", "#d1702a"


def timeline(
    video: Video, detections: Sequence[Mapping[str, Any]], classes: Sequence[str], *, min_score: float
) -> Figure:
    """Ground truth and detections of one video on one axis of seconds, a lane per class that occurs.

    Detections scored `min_score` or more are drawn below the ground truth of their class, stronger where surer.
    """
    shown = [d for d in detections if d["score"] >= min_score]
    surest = max((d["score"] for d in shown), default=1.0)
    occurring = {*video.labels, *(d["label"] for d in shown)}
    lanes = [label for label in classes if label in occurring]
    figure = Figure(figsize=(10, 0.7 + 0.36 * len(lanes)), layout="constrained")
    axes = figure.add_subplot()
    for (start, end), label in zip(video.segments_N2.tolist(), video.labels, strict=True):
        axes.broken_barh([(start, end - start)], (lanes.index(label) - 0.36, 0.32), color=TRUTH)
    for d in shown:
        start, end = d["segment"]
        alpha = 0.25 + 0.75 * d["score"] / surest
        axes.broken_barh([(start, end - start)], (lanes.index(d["label"]) + 0.04, 0.32), color=DETECTED, alpha=alpha)
    axes.set_yticks(range(len(lanes)), lanes, fontsize=8)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(0, video.duration)
    axes.set_xlabel("seconds")
    for lane in range(1, len(lanes)):
        axes.axhline(lane - 0.5, color="#dddddd", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot([], [], color=TRUTH, linewidth=6, label="ground truth")
    axes.plot([], [], color=DETECTED, linewidth=6, label=f"detected (score ≥ {min_score:g})")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
    return figure
