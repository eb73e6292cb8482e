"""The stages that make files for others: predictions on any features, submissions to challenges, ONNX.

Like `stages`, each reads its files, calls the code that knows how, and writes its files once they are checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actionformer import layout
from actionformer.data.annotations import Video, load_database
from actionformer.errors import InputError
from actionformer.evaluation.matching import read_results
from actionformer.experiment import Experiment
from actionformer.files import read_json, write_bytes, write_json, write_text
from actionformer.progress import progress
from actionformer.reporting import figures, submissions
from actionformer.reporting.submissions import Challenge


def predict(
    weights: Path,
    features: Sequence[Path],
    *,
    fps: float | None,
    stride: float | None,
    offset: float | None,
    duration: float | None,
    annotations: Path | None,
    subset: str | None,
    classifier: Path | None,
    device: str,
    min_score: float,
    pictures: bool,
    out: Path,
) -> list[str]:
    """Detect in feature files and write what was found to folder `out`; returns what it says in a terminal.

    predictions.json and .csv have everything; subtitles and picture of a video what is scored `min_score` or more.
    """
    from actionformer.detection.from_files import predict_files, timed_as
    from actionformer.reporting import subtitles
    from actionformer.training.checkpoint import experiment_of

    grid: dict[str, float | None] = {"fps": fps, "stride": stride, "offset": offset}
    timeless = duration is not None or annotations is not None
    said = [timed_as(experiment_of(weights), **grid, timeless=timeless)]
    results = predict_files(
        weights, features, **grid, duration=duration, annotations=annotations, subset=subset, classifier=classifier,
        device=device,
    )  # fmt: skip
    files = {video: video.replace("/", "_") for video in results}
    if len(set(files.values())) < len(files):
        raise InputError("two videos differ by / and _ alone; give their files other names")
    write_json(out / "predictions.json", {"version": "actionformer", "results": results}, indent=None)
    write_text(out / "predictions.csv", subtitles.as_csv(results))
    for video, detections in progress(results.items(), "draw", unit="video"):
        shown = [d for d in detections if d["score"] >= min_score]
        best = max((d["score"] for d in detections), default=0.0)
        remark = (
            f"{len(shown)} action{'s' if shown[1:] else ''}" if shown else f"none reaches --min-score {min_score:g}"
        )
        said.append(f"{video}: {remark} ({len(detections)} detections, the best scored {best:.2f})")
        write_text(out / f"{files[video]}.vtt", subtitles.as_webvtt(detections, min_score=min_score))
        longest = max((d["segment"][1] for d in detections), default=1.0)
        empty = Video(video, "", longest, None, np.zeros((0, 2)), ())
        labels = sorted({d["label"] for d in shown})
        if pictures:
            spec = figures.timelines([figures.Timeline(empty, shown)], labels, min_score=min_score).spec
            write_bytes(out / f"{files[video]}.png", figures.png(spec))
    return [*said, f"written to {out}"]


def export(
    challenge: Challenge,
    experiment: Experiment,
    seed: int,
    *,
    subset: str | None,
    detections: Path | None,
    external_data: str | None,
    levels: Sequence[int],
    out: Path,
) -> str:
    """Write a submission from a row's detections, or from those of a file; says what it wrote.

    EPIC takes the fused actions of a row of nouns. The videos are those of `subset`, by default the evaluated one.
    Detections without extent, which nothing can match, are left out.

    Raises:
        InputError: detections that the challenge would refuse; nothing is written then.
    """
    durations, classes = _challenge_videos(challenge, experiment, subset)
    name = layout.actions(experiment) if challenge == "epic" else experiment.name
    path = detections or layout.run(experiment.edition, name, seed) / "detections.json"
    if challenge == "epic" and experiment.actions_with is None:
        raise InputError(f"{experiment.name}: EPIC takes actions; name the row of nouns that is fused with verbs")
    results = read_results(path)
    found = {
        video: [d for d in results.get(video, []) if submissions.has_extent(d)] for video in {**durations, **results}
    }
    if challenge == "activitynet":
        used = f"features: {experiment.row}" + (
            "; scores of a video classifier" if experiment.inference.use_classifier else ""
        )
        submission = submissions.activitynet(found, external_data=used if external_data is None else external_data)
    elif challenge == "epic":
        submission = submissions.epic(found, levels=levels)
    else:
        submission = submissions.ego4d(found)
    _refuse_invalid(path, submissions.problems(challenge, submission, durations=durations, classes=classes))
    write_json(out, submission, indent=None)
    return f"{out}: {sum(map(len, found.values()))} detections in {len(found)} videos, valid for {challenge}"


def check_submission(challenge: Challenge, experiment: Experiment, path: Path, *, subset: str | None) -> str:
    """Validate a submission against the videos of a subset; says that it is valid, or raises with what is not."""
    durations, classes = _challenge_videos(challenge, experiment, subset)
    _refuse_invalid(path, submissions.problems(challenge, read_json(path), durations=durations, classes=classes))
    return f"{path}: valid for {challenge}"


def _challenge_videos(
    challenge: Challenge, experiment: Experiment, subset: str | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Durations of the videos of a subset, by default the evaluated one, and the classes."""
    if experiment.dataset.format not in (challenge, "database"):
        raise InputError(
            f"{experiment.name}: {experiment.dataset.name} is not what the challenge '{challenge}' is about"
        )
    database = load_database(layout.database_of(experiment), experiment.data.label_field)
    videos = database.subset(subset or experiment.dataset.eval_subset)
    if not videos:
        known = ", ".join(sorted({video.subset for video in database.videos.values()}))
        raise InputError(f"{layout.database_of(experiment)}: no video of subset '{subset}'; there are {known}")
    return {video.name: video.duration for video in videos}, database.classes


def _refuse_invalid(path: Path, found: Sequence[str]) -> None:
    if found:
        raise InputError(f"{path}: {found[0]}{f' (and {len(found) - 1} more problems)' if found[1:] else ''}")


def export_onnx(weights: Path, *, length: int | None, out: Path) -> str:
    """Write the network of a weights file as ONNX, checked in onnxruntime; says what it wrote."""
    from actionformer.model import onnx_export
    from actionformer.training.checkpoint import load_model

    network, experiment, classes = load_model(weights)
    steps = experiment.model.max_seq_len if length is None else length
    facts = {"classes": json.dumps(classes), "experiment": json.dumps(experiment.model_dump(mode="json"))}
    worst = onnx_export.export(network, out, length=steps, facts=facts)
    return (
        f"{out}: {experiment.name}, for videos of up to {steps} steps, differs from the network by at most {worst:.1e}"
    )
