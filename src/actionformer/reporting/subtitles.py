"""Detections as files for other programs: csv for tables, WebVTT for players.

https://www.w3.org/TR/webvtt1/
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from actionformer.data.detections import Detection, Results
from actionformer.files.csv_files import csv_cell


def as_csv(results: Results) -> str:
    """One detection per line: video, start and end in seconds, label, score."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["video", "start", "end", "label", "score"])
    for video, detections in results.items():
        for found in detections:
            label = csv_cell(found["label"])
            writer.writerow([csv_cell(video), *found["segment"], label, found["score"]])
    return buffer.getvalue()


def as_webvtt(detections: Sequence[Detection], *, min_score: float) -> str:
    """Subtitles of one video: a cue per detection scored `min_score` or more, in order of time."""
    cues = ["WEBVTT"]
    for found in sorted(detections, key=lambda found: (found["segment"], -found["score"])):
        start, end = found["segment"]
        # a cue that starts and ends in the same millisecond is none
        if found["score"] < min_score or round(1000 * end) <= round(1000 * start):
            continue
        label = str(found["label"])
        label = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_clock(start)} --> {_clock(end)}\n{label} ({found['score']:.2f})")
    return "\n\n".join(cues) + "\n"


def _clock(seconds: float) -> str:
    """hh:mm:ss.mmm"""
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}.{milliseconds:03d}"
