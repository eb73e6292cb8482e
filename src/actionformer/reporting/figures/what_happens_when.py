"""What happens when? Ground truth and detections of single videos; and which videos to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actionformer.data.annotations import Database, Video
from actionformer.data.detections import Detection, Results
from actionformer.errors import InputError
from actionformer.reporting.figures import primitives as p
from actionformer.reporting.figures.primitives import Figure, Spec

# best videos, and as many worst ones, whose timelines are drawn
SHOWN_VIDEOS = 8
# per video, or three times its ground truth where that is more
SHOWN_DETECTIONS = 60
TRUTH, DETECTED = "ground truth", "detected"
COLORS = {TRUTH: p.BLUE, DETECTED: p.ORANGE, "video": p.GREY}
# the lane that shows how long a video is
WHOLE_VIDEO = "(whole video)"
# how strong the detection of the lowest score is drawn, and how much stronger the surest one
FAINTEST, STRONGER = 0.35, 0.65
# name -> title and caption
WORDS = {
    "timelines": (
        "Timelines",
        "Ground truth (above) and detections (below), stronger where surer; videos that lack "
        "detections first, then the worst, then the best. "
        "Drag to move, scroll to zoom, double click for the whole video.",
    ),
}


@dataclass(frozen=True)
class Timeline:
    """A video with its detections, best first, and what the chooser says of it."""

    video: Video
    detections: Sequence[Detection]
    remark: str = ""


# ------------------------------------------------------------------------------------ which videos


def chosen_videos(
    database: Database,
    results: Results,
    scored: Mapping[str, Mapping[str, Any]],
    *,
    first: Sequence[str] = (),
    also: Mapping[str, str] | None = None,
) -> list[Timeline]:
    """The videos named, those without detections, the worst, then the best; their best detections.

    Args:
        scored: video -> its {"ap"}, as the diagnosis has it.
        first: the videos named.
        also: more videos that a figure leads to -> what is said of them.
    """
    for name in first:
        if name not in database.videos:
            known = ", ".join(sorted(scored)[:5])
            raise InputError(f"no video '{name}'; there are {known}, ...")
    detected = [name for name in scored if name in results]
    ranked = sorted(detected, key=lambda name: (scored[name]["ap"], name))
    count = min(SHOWN_VIDEOS, (len(ranked) + 1) // 2)
    worst = [name for name in ranked[:count] if scored[name]["ap"] < 1]
    best = [name for name in reversed(ranked) if name not in worst][:SHOWN_VIDEOS]
    unseen = sorted(name for name in scored if name not in results)[:SHOWN_VIDEOS]

    remarks = dict.fromkeys(first, "chosen")
    for name in unseen:
        remarks.setdefault(name, "absent from the detections")
    for i, name in enumerate(worst, 1):
        remarks.setdefault(name, f"worst {i}")
    for i, name in enumerate(best, 1):
        remarks.setdefault(name, f"best {i}")
    for name, remark in (also or {}).items():
        remarks.setdefault(name, remark)

    shown = []
    for name, remark in remarks.items():
        video = database.videos[name]
        found = sorted(results.get(name, []), key=lambda detection: -detection["score"])
        found = found[: max(SHOWN_DETECTIONS, 3 * len(video.labels))]
        if found and name in scored:
            remark += f", AP {100 * scored[name]['ap']:.0f} %"
        elif not found and name not in unseen:
            remark += ", nothing detected"
        shown.append(Timeline(video, found, remark))
    return shown


def usual_score(results: Results, instances: int) -> float:
    """The score that as many detections reach as there is ground truth, in hundredths."""
    scores = []
    for found in results.values():
        scores += [detection["score"] for detection in found]
    if not scores:
        return 0.0
    scores.sort(reverse=True)
    return int(100 * scores[min(instances, len(scores)) - 1]) / 100


# -------------------------------------------------------------------------------------- the figure


def timelines(videos: Sequence[Timeline], classes: Sequence[str], *, min_score: float) -> Figure:
    """Ground truth and detections of videos on one axis of seconds; one video shows at a time.

    A lane per class, and controls for what is shown.

    Args:
        classes: the order of the lanes.
        min_score: the score from which detections show at first.
    """
    values = _values(videos)
    occurring = {value["class"] for value in values}
    lanes = [label for label in classes if label in occurring]
    lanes += sorted(occurring - {*lanes, WHOLE_VIDEO})
    legend = []
    for what in (TRUTH, DETECTED):
        if any(value["what"] == what for value in values):
            legend.append(what)
    # the whole video lies where the first of them lies
    for value in values:
        value["place"] = value["what"] if value["what"] in legend else (legend or [TRUTH])[0]
    spec = _bars(values, lanes, legend) | _controls(videos, lanes, min_score)
    return Figure("timelines", *WORDS["timelines"], spec)


def _values(videos: Sequence[Timeline]) -> list[Spec]:
    """A bar per video, segment and detection."""
    surest = max(_scores(videos), default=0.0)
    values: list[Spec] = []
    for shown in videos:
        video = shown.video
        whole = {"what": "video", "class": WHOLE_VIDEO, "start": 0, "end": video.duration}
        values.append({**whole, "strength": 0.5, "video": video.name})
        for (start, end), label in zip(video.segments_G2.tolist(), video.labels, strict=True):
            truth = {"what": TRUTH, "class": label, "start": start, "end": end}
            values.append({**truth, "strength": 0.8, "video": video.name})
        for detection in shown.detections:
            start, end = detection["segment"]
            strength = FAINTEST + STRONGER * max(detection["score"], 0) / max(surest, 1e-9)
            value = {
                "what": DETECTED,
                "class": detection["label"],
                "start": start,
                "end": end,
                "score": detection["score"],
                "strength": strength,
                "video": video.name,
            }
            values.append(value)
    return values


def _bars(values: Sequence[Spec], lanes: Sequence[str], legend: Sequence[str]) -> Spec:
    """The drawing, without what a reader can change."""
    lane = {
        "field": "class",
        "type": "nominal",
        "sort": [WHOLE_VIDEO, *lanes],
        "title": None,
        "axis": {"grid": True, "ticks": False},
    }
    place = {"paddingInner": 0.1, "domain": legend or [TRUTH]}
    color = p.nominal("what", "", list(COLORS), list(COLORS.values()))
    strength = {
        "field": "strength",
        "type": "quantitative",
        "scale": {"domain": [0, 1], "range": [0, 1]},
        "legend": None,
    }
    said = {"what": "what", "class": "class", "start": "start (s)", "end": "end (s)"}
    return p.chart(
        values,
        {"type": "bar", "cornerRadius": 1},
        y=lane,
        yOffset={"field": "place", "scale": place},
        x=p.number("start", "seconds") | {"scale": {"nice": False}},
        x2={"field": "end"},
        color=color | {"legend": {"values": legend} if legend else None},
        opacity=strength,
        tooltip=p.tooltip(**said, score="score"),
        start=p.base_of_lanes(12 if len(lanes) > 12 else 15),
    )


def _controls(videos: Sequence[Timeline], lanes: Sequence[str], min_score: float) -> Spec:
    """What a reader can change: the video, the class, the lowest score, the stretch of time."""
    scores = _scores(videos)
    slider = {
        "input": "range",
        "min": min(0.0, min(scores, default=0.0)),
        "max": _next_tenth(max(scores, default=0.0)),
        "step": 0.01,
        "name": "score from ",
    }
    zoom = {"type": "interval", "encodings": ["x"]}
    params = [
        {
            "name": "only",
            "value": None,
            "bind": _chooser("class ", [None, *lanes], ["all", *lanes]),
        },
        {"name": "from_score", "value": min_score, "bind": slider},
        {"name": "zoom", "select": zoom, "bind": "scales"},
    ]
    tests = [
        "only === null || datum.class === only || datum.what === 'video'",
        "datum.what !== 'detected' || datum.score >= from_score",
    ]
    controls: Spec = {}
    if len(videos) > 1:
        names, labels = [], []
        for shown in videos:
            names.append(shown.video.name)
            labels.append(shown.video.name + (f" ({shown.remark})" if shown.remark else ""))
        bind = _chooser("video ", names, labels)
        params.insert(0, {"name": "video", "value": names[0], "bind": bind})
        tests.insert(0, "datum.video === video")
    else:
        name = videos[0].video.name if videos else ""
        controls["title"] = {"text": name, "anchor": "start", "fontWeight": "normal"}
    return controls | {"params": params, "transform": [{"filter": test} for test in tests]}


def _chooser(name: str, options: Sequence[str | None], labels: Sequence[str]) -> Spec:
    return {"input": "select", "options": options, "labels": labels, "name": name}


def _scores(videos: Sequence[Timeline]) -> list[float]:
    scores = []
    for shown in videos:
        scores += [detection["score"] for detection in shown.detections]
    return scores


def _next_tenth(score: float) -> float:
    return -(-score * 10 // 1) / 10
