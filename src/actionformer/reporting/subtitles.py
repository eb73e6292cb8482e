"""Detections as files for other programs: csv for tables, WebVTT for players (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

Detections = Sequence[Mapping[str, Any]]


def as_csv(results: Mapping[str, Detections]) -> str:
    """One detection per line: video, start and end in seconds, label, score."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["video", "start", "end", "label", "score"])
    for video, detections in results.items():
        writer.writerows([video, *d["segment"], d["label"], d["score"]] for d in detections)
    return buffer.getvalue()


def as_webvtt(detections: Detections, *, min_score: float) -> str:
    """Subtitles of one video: a cue per detection scored `min_score` or more, in order of time."""
    cues = ["WEBVTT"]
    for d in sorted(detections, key=lambda d: (d["segment"], -d["score"])):
        start, end = d["segment"]
        if d["score"] >= min_score and round(1000 * end) > round(1000 * start):
            text = str(d["label"]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            cues.append(f"{_clock(start)} --> {_clock(end)}\n{text} ({d['score']:.2f})")
    return "\n\n".join(cues) + "\n"


def _clock(seconds: float) -> str:
    """hh:mm:ss.mmm"""
    total = round(1000 * seconds)
    hours, minutes, rest, milliseconds = total // 3_600_000, total // 60_000 % 60, total // 1000 % 60, total % 1000
    return f"{hours:02d}:{minutes:02d}:{rest:02d}.{milliseconds:03d}"
