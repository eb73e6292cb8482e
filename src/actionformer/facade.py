"""What Python programs and notebooks use: trained weights on arrays, runs, scores, pictures.

Each of these is a few lines over a stage or a room. They print nothing, set no threads, and write
files only where they say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actionformer import layout
from actionformer.data.annotations import Database, load_database
from actionformer.data.detections import Results, read_results
from actionformer.data.members import holds_videos
from actionformer.detection.from_files import detect_in_array, detect_in_files, load_detector
from actionformer.detection.timing import Timing
from actionformer.errors import InputError
from actionformer.evaluation.summary import metrics_of
from actionformer.files.writing import write_bytes
from actionformer.model.actionformer import ActionFormer as Network
from actionformer.params.experiment import EvaluationParams, Experiment, ModelParams, Precision
from actionformer.reporting.figures import primitives
from actionformer.reporting.figures.what_happens_when import Timeline, timelines, usual_score
from actionformer.training.checkpoint import load_model
from actionformer.training.weights import load_folder

COLUMNS = ("video", "label", "start", "end", "score")


class ActionFormer(Network):
    """The network and its loss; with trained weights also what they need to find actions.

    Zhang, Wu, Li: ActionFormer, ECCV 2022 (arXiv:2202.07925). `ActionFormer(params)` has drawn
    weights; `ActionFormer.from_pretrained(...)` those of a run.
    """

    def __init__(self, params: ModelParams, precision: Precision = "published") -> None:
        super().__init__(params, precision)
        # of the run that the weights come from; None where they are drawn
        self.experiment: Experiment | None = None
        self.classes: list[str] = []

    @classmethod
    def from_pretrained(
        cls, path_or_row: str | Path, *, edition: str = "demo", seed: int = 0
    ) -> ActionFormer:
        """The network with the weights of a run, ready to detect.

        Args:
            path_or_row: a `model.pt`, a folder that holds one, a folder that `export hub` has
                written, or the name of a row whose run lies under `results/`.
            edition: of a row: 'demo', 'paper' or 'own'.
            seed: of a row.

        Raises:
            InputError: no weights there, or none of this project.
        """
        path = Path(path_or_row)
        if not path.exists() and path.suffix != ".pt" and len(path.parts) == 1:
            path = layout.run(edition, path.name, seed)
            if not path.exists():
                wrong = f"no run of row '{path_or_row}' in the {edition} edition"
                raise InputError(f"{path}: {wrong}, and no such file")
        if path.is_dir() and not (path / "model.pt").exists():
            trained, experiment, classes = load_folder(path)
        else:
            trained, experiment, classes = load_model(path / "model.pt" if path.is_dir() else path)
        model = cls(experiment.model, experiment.training.precision)
        model.load_state_dict(trained.state_dict())
        model.experiment, model.classes = experiment, classes
        return model.eval()

    def predict(
        self,
        features: NDArray[Any],
        *,
        fps: float | None = None,
        stride: float | None = None,
        offset: float | None = None,
        duration: float | None = None,
    ) -> list[dict[str, Any]]:
        """Detections {"segment": [start, end] in seconds, "label", "score"}, best first.

        Args:
            features: (steps, channels) of one video, from the extractor of the training data; where
                the training files are `transposed`, (channels, steps) as they are.
            fps: frames per second; default: those of the training features, if all were alike.
            stride: frames between two steps; default: that of the training features.
            offset: frame at the centre of step 0; default: that of the training features, or half
                of another stride.
            duration: seconds; default: up to where the last step reaches.

        Raises:
            InputError: drawn weights, features of another shape or not finite, no frame rate.
        """
        if self.experiment is None:
            raise InputError("these weights are drawn; ActionFormer.from_pretrained loads a run's")
        device = str(next(self.parameters()).device)
        timing = Timing(fps, stride, offset, duration)
        return detect_in_array(
            self, self.experiment, self.classes, np.asarray(features), timing, device=device
        )


def predict(
    weights: Path | str,
    features: Path | str | Sequence[Path | str],
    *,
    fps: float | None = None,
    stride: float | None = None,
    offset: float | None = None,
    duration: float | None = None,
    annotations: Path | str | None = None,
    subset: str | None = None,
    classifier: Path | str | None = None,
    extractor: Path | str | None = None,
    device: str = "auto",
) -> dict[str, list[dict[str, Any]]]:
    """Video -> detections {"segment": [start, end] in seconds, "label", "score"}, best first.

    Args:
        weights: a `model.pt` of this project.
        features: files (T, C) in npy, npz or pt, folders or archives of such files, h5 files,
            packed stores; or video files and folders of them, which are extracted first.
        fps: frames per second of the videos; default: those of the training features, if they were
            all alike. Features that `actionformer extract` has made say this and the next three of
            themselves, and with videos all four are refused.
        stride: frames between two steps; default: that of the training features.
        offset: frame at the centre of step 0; default: that of the training features, or half of
            another stride.
        duration: seconds, if there is one video; default: up to where the last step reaches.
        annotations: a database file; only its videos are looked at. Features that don't say so of
            themselves last as long as it says.
        subset: only the videos of this subset of `annotations`.
        classifier: of class-agnostic weights, scores of whole videos in the form of the training
            data set's classifier; without it detections are labelled 'action'.
        extractor: of videos, its name or YAML file; default: the one that the weights name.
        device: 'auto', 'cpu', 'cuda:0', ...

    Windows of a sliding test cover the whole video, and features are resampled in full precision,
    whatever the weights were trained for (`data.loading: corrected`).

    Raises:
        InputError: weights or features that cannot be read or don't fit each other, no frame rate,
            no video, one that cannot be decoded.
    """
    given = [features] if isinstance(features, Path | str) else features
    paths = [Path(path) for path in given]
    timing = Timing(
        fps, stride, offset, duration, None if annotations is None else Path(annotations), subset
    )
    scores = None if classifier is None else Path(classifier)
    detector = load_detector(Path(weights), timing, scores)
    of_videos = [path for path in paths if holds_videos(path)]
    if not of_videos:
        if extractor is not None:
            raise InputError("an extractor goes with videos; features are made already")
        return detect_in_files(detector, paths, device=device)
    if len(of_videos) < len(paths):
        raise InputError("videos and features together; give one kind at a time")
    # PyAV, which features do without
    from actionformer.stages.predict import Machine, extracted

    with TemporaryDirectory() as folder:
        made = extracted(
            detector,
            paths,
            Path(folder),
            extractor=None if extractor is None else str(extractor),
            machine=Machine(device),
            say=_nothing,
        )
        return detect_in_files(detector, made.features, device=device)


def train(
    experiment: Experiment, *, seed: int = 0, device: str = "auto", anew: bool = False
) -> Path:
    """Train a row with one seed, or go on with it; returns the folder of its run.

    As `actionformer train` does: database and features must have been built, what lies there and is
    the same is left as it is, and MLflow sees every epoch. Threads are those that torch is set to;
    the command sets those of the params, which is part of the last bits of a result.

    Args:
        experiment: of `load_experiment`.
        seed: of weights, crops and dropout.
        device: 'auto', 'cpu', 'cuda:0', ...
        anew: move aside what lies there, and start over.

    Raises:
        InputError: no database or features, another process that trains there.
    """
    # MLflow takes seconds to import, and nothing else here needs it
    from actionformer.stages import train as stage

    stage.train(experiment, seed, device=device, anew=anew, say=_nothing)
    return layout.run(experiment.edition, experiment.name, seed)


def _nothing(line: str) -> None:
    """Says nothing."""


def evaluate(
    annotations: Path | str,
    results: Path | str | Results,
    *,
    subset: str,
    tiou: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7),
    label_field: str = "label",
    blocked: bool = True,
) -> dict[str, float]:
    """Scores in percent of any detections against any database, as a row is scored.

    Args:
        annotations: a database file (docs/own-dataset.md).
        results: a result file {"results": {video: [...]}}, or video -> detections.
        subset: the subset to evaluate.
        tiou: thresholds.
        label_field: 'noun' or 'verb' in EPIC's database.
        blocked: leave out the videos of the database's blocked list, as published.

    Returns:
        'mAP/0.5' and so on, and 'mAP/average'.

    Raises:
        InputError: a file that cannot be read, a subset without ground truth, detections without
            segment, label or score.
    """
    database = load_database(Path(annotations), label_field)
    params = EvaluationParams(tiou=tuple(tiou), use_blocked_list=blocked)
    metrics = metrics_of(database, read_results(results), params, subset)
    return dict(metrics["percent"])


def detections(results: Path | str | Results) -> pd.DataFrame:
    """Detections as a table: video, label, start, end (seconds), score; in the file's order.

    Of fused actions the label is verb and noun.

    Args:
        results: a result file such as a run's detections.json, or video -> detections.

    Raises:
        InputError: a file that cannot be read.
    """
    rows = []
    for video, found in read_results(results).items():
        for detection in found:
            start, end = detection["segment"]
            label = detection.get("label", f"{detection.get('verb')} {detection.get('noun')}")
            rows.append((video, label, start, end, detection["score"]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook shows and `save` writes."""

    # Vega-Lite
    spec: Mapping[str, Any]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": primitives.svg(dict(self.spec))}

    def save(self, path: Path | str) -> None:
        """Write it as png, svg or pdf.

        Raises:
            InputError: a name that ends otherwise.
        """
        path = Path(path)
        if path.suffix not in primitives.WRITERS:
            known = ", ".join(primitives.WRITERS)
            raise InputError(f"{path}: expected a name that ends with {known}")
        write_bytes(path, primitives.WRITERS[path.suffix](dict(self.spec)))


def plot_timeline(
    annotations: Path | str,
    results: Path | str | Results,
    video: str,
    *,
    label_field: str = "label",
    min_score: float | None = None,
) -> Picture:
    """Ground truth and detections of one video on one axis of seconds.

    Args:
        annotations: a database file.
        results: a result file, or video -> detections.
        video: its name.
        label_field: 'noun' or 'verb' in EPIC's database.
        min_score: from this score on; default: as many detections as there is ground truth.

    Raises:
        InputError: no such video, or a file that cannot be read.
    """
    database: Database = load_database(Path(annotations), label_field)
    if video not in database.videos:
        known = ", ".join(sorted(database.videos)[:5])
        raise InputError(f"{annotations}: no video '{video}'; there are {known}, ...")
    truth = database.videos[video]
    found = sorted(read_results(results).get(video, []), key=lambda one: -one["score"])
    if min_score is None:
        min_score = usual_score({video: found}, len(truth.labels))
    figure = timelines([Timeline(truth, found)], database.classes, min_score=min_score)
    return Picture(figure.spec)
