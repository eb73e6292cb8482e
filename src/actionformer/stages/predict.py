"""Predictions on any features or videos: what was found, as files that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actionformer.data.annotations import Video
from actionformer.data.described import description_in
from actionformer.data.detections import Detection
from actionformer.detection.from_files import Detector, detect_in_files, refuse_other_extractor
from actionformer.detection.from_files import load_detector as load_detector
from actionformer.detection.timing import OF_A_VIDEO, timed_as
from actionformer.errors import InputError
from actionformer.files.writing import write_bytes, write_json, write_text
from actionformer.params.experiment import Experiment
from actionformer.params.extractor import Extractor
from actionformer.params.files import PARAMS, load_extractor
from actionformer.progress import progress
from actionformer.reporting import subtitles
from actionformer.reporting.figures import primitives
from actionformer.reporting.figures.what_happens_when import Timeline, timelines

Say = Callable[[str], None]


@dataclass(frozen=True)
class Machine:
    """What networks run on (`training.device.leased_device`)."""

    device: str = "auto"
    gpu_slots: int | None = None
    # clips of videos that an extractor's network sees at once
    batch_size: int = 8


@dataclass(frozen=True)
class Wanted:
    """What `predict` writes beside predictions.json and .csv, which hold everything."""

    # of subtitles, pictures and labelled videos
    min_score: float
    pictures: bool


@dataclass(frozen=True)
class Extracted:
    """Videos, each by its name, and the files of their features."""

    videos: Mapping[str, Path]
    features: Sequence[Path]


def extracted(
    detector: Detector,
    sources: Sequence[Path],
    out: Path,
    *,
    extractor: str | None,
    params: Path = PARAMS,
    machine: Machine,
    say: Say,
) -> Extracted:
    """Extract those videos that are looked at, as the detector's weights were trained.

    Args:
        sources: video files, and folders of them.
        out: folder of the files.
        extractor: name or YAML file of the extractor; None: the one that the weights name.

    Raises:
        InputError: before anything is extracted, weights that name no extractor or were trained on
            features of another, and times that such features say of themselves; then whatever
            `stages.extract` raises.
    """
    # PyAV, which features do without
    from actionformer.stages.extract import extract, made_by, named

    for option in OF_A_VIDEO:
        if getattr(detector.timing, option) is not None:
            raise InputError(f"{option}: goes with features; of a video its extractor knows it")
    if extractor is None:
        told = detector.made_by
        in_params = detector.trained.features.extractor
        extractor = in_params or (None if told is None else told["extractor"])
    if extractor is None:
        raise InputError(
            "the weights do not say which extractor made the features that they were trained on; "
            "name it with --extractor"
        )
    chosen = load_extractor(extractor, params)
    refuse_other_extractor(made_by(*chosen), detector.trained, detector.made_by, extractor)
    _refuse_other_form(chosen[1], detector.trained, extractor)
    videos = {name: path for name, path in named(sources).items() if detector.wants(name)}
    if not videos:
        where = ", ".join(map(str, sources))
        raise InputError(f"{where}: no video that {detector.timing.annotations} names")
    files = extract(
        *chosen,
        list(videos.values()),
        out,
        device=machine.device,
        gpu_slots=machine.gpu_slots,
        batch_size=machine.batch_size,
        say=say,
    )
    return Extracted(videos, files)


def _refuse_other_form(extractor: Extractor, trained: Experiment, name: str) -> None:
    """One line where extracted features cannot be what the weights were trained on."""
    features = trained.features
    if features.dim != extractor.dim:
        wrong = f"makes {extractor.dim} channels, the weights were trained on {features.dim}"
        raise InputError(f"{name}: {wrong}")
    if features.transposed or features.arrays:
        wrong = "the weights were trained on files of another form (`transposed` or `arrays`)"
        raise InputError(f"{name}: {wrong}; extract first, and predict from such --features")


def predict(
    detector: Detector,
    features: Sequence[Path],
    *,
    videos: Mapping[str, Path] | None = None,
    machine: Machine,
    wanted: Wanted,
    out: Path,
) -> list[str]:
    """Detect in feature files and write what was found to folder `out`; returns what to say.

    predictions.json and .csv have everything; subtitles, picture and labelled copy of a video what
    is scored `wanted.min_score` or more.

    Args:
        videos: name -> file of videos that get a copy with the labels drawn in.
    """
    said = []
    if description_in(features[0]) is None:
        said.append(timed_as(detector.trained, detector.timing))
    results = detect_in_files(
        detector, features, device=machine.device, gpu_slots=machine.gpu_slots
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
