"""Predictions on any features or videos: what was found, as files that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actionformer.data.annotations import Video
from actionformer.data.detections import Detection
from actionformer.data.feature_files import description_in
from actionformer.detection.from_files import predict_timed
from actionformer.detection.timing import Timing, timed_as
from actionformer.errors import InputError
from actionformer.files import write_bytes, write_json, write_text
from actionformer.params.files import PARAMS, load_extractor
from actionformer.progress import progress
from actionformer.reporting import subtitles
from actionformer.reporting.figures import primitives
from actionformer.reporting.figures.what_happens_when import Timeline, timelines
from actionformer.training.checkpoint import experiment_of as experiment_of
from actionformer.training.checkpoint import extractor_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Machine:
    """What networks run on (`training.device.leased_device`)."""

    device: str = "auto"
    gpu_slots: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What `predict` writes beside predictions.json and .csv, which hold everything."""

    # of subtitles, pictures and labelled videos
    min_score: float
    pictures: bool


def extracted(
    weights: Path,
    videos: Sequence[Path],
    out: Path,
    *,
    extractor: str | None,
    params: Path = PARAMS,
    machine: Machine,
    say: Say,
) -> dict[str, Path]:
    """Extract videos as the weights were trained: video's name -> the file of its features.

    Args:
        weights: a model.pt, which says the extractor of its features.
        out: folder of the files.
        extractor: name or YAML file of the extractor; None: the one that the weights name.

    Raises:
        InputError: weights that name no extractor; whatever `stages.extract` raises.
    """
    # PyAV, which features do without
    from actionformer.stages.extract import extract

    if extractor is None:
        told = extractor_of(weights)
        in_params = experiment_of(weights).features.extractor
        extractor = in_params or (None if told is None else told["extractor"])
    if extractor is None:
        raise InputError(
            f"{weights}: does not say which extractor made the features that it was trained on; "
            "name it with --extractor"
        )
    files = extract(
        *load_extractor(extractor, params),
        videos,
        out,
        device=machine.device,
        gpu_slots=machine.gpu_slots,
        say=say,
    )
    return {file.stem: file for file in files}


def predict(
    weights: Path,
    features: Sequence[Path],
    timing: Timing,
    *,
    videos: Mapping[str, Path] | None = None,
    classifier: Path | None,
    machine: Machine,
    wanted: Wanted,
    out: Path,
) -> list[str]:
    """Detect in feature files and write what was found to folder `out`; returns what to say.

    predictions.json and .csv have everything; subtitles, picture and labelled copy of a video what
    is scored `wanted.min_score` or more.

    Args:
        timing: when which step of the features is, and which videos are looked at.
        videos: name -> file of videos that get a copy with the labels drawn in.
        classifier: of class-agnostic weights, scores of whole videos.
    """
    said = []
    if description_in(features[0]) is None:
        said.append(timed_as(experiment_of(weights), timing))
    results = predict_timed(
        weights,
        features,
        timing,
        classifier=classifier,
        device=machine.device,
        gpu_slots=machine.gpu_slots,
    )
    files = {video: video.replace("/", "_") for video in results}
    if len(set(files.values())) < len(files):
        raise InputError("two videos differ by / and _ alone; give their files other names")
    content = {"version": "actionformer", "results": results}
    write_json(out / "predictions.json", content, indent=None)
    write_text(out / "predictions.csv", subtitles.as_csv(results))
    for video, detections in progress(results.items(), "draw", unit="video"):
        shown = [found for found in detections if found["score"] >= wanted.min_score]
        said.append(f"{video}: {_counted(detections, shown, wanted.min_score)}")
        cues = subtitles.as_webvtt(detections, min_score=wanted.min_score)
        write_text(out / f"{files[video]}.vtt", cues)
        if wanted.pictures:
            picture = _picture(video, detections, shown, wanted.min_score)
            write_bytes(out / f"{files[video]}.png", picture)
        if wanted.pictures and videos is not None and video in videos:
            from actionformer.video.label import write_labelled

            write_labelled(videos[video], out / f"{files[video]}-labelled.mp4", shown)
    return [*said, f"written to {out}"]


def _counted(detections: Sequence[Detection], shown: Sequence[Detection], min_score: float) -> str:
    """How much was found in a video, in words."""
    best = max((found["score"] for found in detections), default=0.0)
    remark = f"none reaches --min-score {min_score:g}"
    if shown:
        remark = f"{len(shown)} action{'s' if len(shown) > 1 else ''}"
    return f"{remark} ({len(detections)} detections, the best scored {best:.2f})"


def _picture(
    video: str, detections: Sequence[Detection], shown: Sequence[Detection], min_score: float
) -> bytes:
    """What is shown of a video on one axis of seconds, as PNG."""
    last = max((found["segment"][1] for found in detections), default=1.0)
    empty = Video(video, "", last, None, np.zeros((0, 2)), ())
    labels = sorted({found["label"] for found in shown})
    figure = timelines([Timeline(empty, shown)], labels, min_score=min_score)
    return primitives.png(figure.spec)
