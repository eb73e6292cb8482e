"""Detect actions in feature files with trained weights: no data set's params, any videos.

The weights file says which classes there are and how the network sees a video.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actionformer.data.annotations import Database, Video
from actionformer.data.feature_files import Features, Form, Loaded, checked, features_in
from actionformer.data.features import FeatureStore
from actionformer.data.members import ARRAYS, Member, members
from actionformer.data.view import views
from actionformer.detection.classifiers import VideoClassifier, load_classifier
from actionformer.detection.predict import predict
from actionformer.detection.timing import Timing, told_by, with_grid
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.values import number
from actionformer.model.actionformer import ActionFormer
from actionformer.params.dataset import FeatureSet
from actionformer.params.experiment import Experiment
from actionformer.progress import progress
from actionformer.training.checkpoint import extractor_of, load_model
from actionformer.training.device import leased_device

# label of class-agnostic weights, whose classes come from a classifier of whole videos
ONE_CLASS = "action"


@dataclass(frozen=True)
class Detector:
    """Trained weights and what is asked of them, read and checked before any features are."""

    network: ActionFormer
    trained: Experiment
    classes: list[str]
    # which extractor made the features of the training, where they said so (`checkpoint`)
    made_by: Mapping[str, str] | None
    timing: Timing
    # seconds of the only videos that are looked at
    durations: Mapping[str, float] | None
    # of class-agnostic weights
    scores: VideoClassifier | None

    def wants(self, video: str) -> bool:
        """Is this video looked at?"""
        return self.durations is None or video in self.durations


def load_detector(weights: Path, timing: Timing, classifier: Path | None) -> Detector:
    """Everything that a detection needs beside the features.

    Args:
        weights: a `model.pt` of this project.
        timing: when the steps are, where files don't say it of themselves.
        classifier: of class-agnostic weights, scores of whole videos in the form of the training
            data set's classifier; without it detections are labelled 'action'.

    Raises:
        InputError: weights, annotations or scores that cannot be read; scores for weights that know
            their classes; a duration that cannot be.
    """
    network, trained, classes = load_model(weights)
    duration = timing.duration
    if duration is not None and not 0 < duration < math.inf:
        raise InputError(f"duration {duration:g}: expected seconds above 0")
    durations = None
    if timing.annotations is not None:
        durations = _durations(timing.annotations, timing.subset)
    elif timing.subset is not None:
        raise InputError(f"subset '{timing.subset}': goes with annotations, which name its videos")
    scores = None if classifier is None else _classifier(trained, classifier)
    return Detector(network, trained, classes, extractor_of(weights), timing, durations, scores)


def detect_in_files(
    detector: Detector, sources: Sequence[Path], *, device: str, gpu_slots: int | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Video -> detections {"segment": [start, end] in seconds, "label", "score"}, best first.

    Args:
        sources: files (T, C) in npy, npz or pt, folders or archives of such files, h5 files, packed
            stores.

    Features that `extract` has written say of themselves when their steps are and from which
    extractor they come; those of another one than the weights were trained on are refused.

    Windows of a sliding test cover the whole video, and features are resampled in full precision,
    whatever the weights were trained for (`data.loading: corrected`).

    Raises:
        InputError: features that cannot be read or don't fit the weights, no frame rate, no video.
    """
    trained, timing, durations = detector.trained, detector.timing, detector.durations
    results: dict[str, list[dict[str, Any]]] = {}
    with leased_device(device, gpu_slots) as chosen:
        detector.network.to(chosen)
        videos = features_of(sources, trained.features)
        if timing.duration is not None:
            videos = iter(_only(videos))
        for found in progress(videos, "predict", unit="video", total=_count(sources)):
            name = found.video
            if not detector.wants(name):
                continue
            if name in results:
                raise InputError(f"video '{name}' occurs twice; give every file a name of its own")
            loaded = found.load()
            told, known = loaded.description, timing
            seconds = timing.duration if durations is None else durations[name]
            if told is not None:
                where = f"video '{name}'"
                refuse_other_extractor(told.made_by, trained, detector.made_by, where)
                known, seconds = told_by(told, timing, name), told.duration
            timed = with_grid(trained, known)
            results |= _detected(detector, timed, name, loaded.features_TC, seconds, chosen)
    if not results:
        wanted = ""
        if durations is not None:
            wanted = f" of the {len(durations)} videos of {timing.annotations}"
        where = ", ".join(str(source) for source in sources)
        raise InputError(f"{where}: no features{wanted} there; expected npy, npz, pt or h5 files")
    return results


def detect_in_array(
    network: ActionFormer,
    trained: Experiment,
    classes: Sequence[str],
    features: NDArray[Any],
    timing: Timing,
    *,
    device: str,
) -> list[dict[str, Any]]:
    """Detections in the features of one video that are in memory, best first.

    Args:
        trained: what the weights were trained with.
        features: (steps, channels); as the files of training: of `transposed` ones the other way.

    Raises:
        InputError: features of another shape or not finite; no frame rate.
    """
    form = Form(trained.features.dim, transposed=trained.features.transposed)
    array_TC = checked(features, form, "features")
    detector = Detector(network, trained, list(classes), None, timing, None, None)
    timed = with_grid(trained, timing)
    found = _detected(detector, timed, "features", array_TC, timing.duration, device)
    return found["features"]


def _detected(
    detector: Detector,
    timed: Experiment,
    name: str,
    array_TC: NDArray[Any],
    seconds: float | None,
    device: str,
) -> dict[str, list[dict[str, Any]]]:
    """One video, seen just as in a row's evaluation: in a database of its own."""
    classes = detector.classes
    labels = [ONE_CLASS] if timed.data.class_agnostic else classes
    only = Database({name: _video(name, len(array_TC), seconds, timed)}, tuple(classes))
    shown = views(only, {name: array_TC}, timed, "test")
    return predict(detector.network, shown, timed.inference, labels, detector.scores, device)


def refuse_other_extractor(
    told: Mapping[str, str], trained: Experiment, made_by: Mapping[str, str] | None, where: str
) -> None:
    """Weights know the channels of their own extractor alone.

    Args:
        told: which extractor made the features: its name, "identity" and "weights_md5".
        made_by: the same of the features that the weights were trained on; None: only their params
            may tell.
    """
    wanted = dict(made_by or {})
    if not wanted and trained.features.extractor is not None:
        wanted = {"extractor": Path(trained.features.extractor).stem}
    for name, value in wanted.items():
        if told[name] != value:
            raise InputError(
                f"{where}: features of {told['extractor']} ({name} {told[name]}), the weights were "
                f"trained on those of {wanted['extractor']} ({name} {value}); extract with that one"
            )


def _durations(annotations: Path, subset: str | None) -> dict[str, float]:
    """Seconds of the videos of a database file, or of one of its subsets."""
    content = read_object(annotations)
    if not isinstance(content.get("database"), dict):
        raise InputError(f"{annotations}: expected a JSON object with the key 'database'")
    durations = {}
    try:
        for name, entry in content["database"].items():
            if subset in (None, entry.get("subset")):
                durations[name] = number(entry["duration"])
                if durations[name] <= 0:
                    raise ValueError(f"video '{name}' has {durations[name]} seconds")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{annotations}: a video without a duration ({error})") from None
    if not durations:
        subsets = {str(entry.get("subset")) for entry in content["database"].values()}
        known = ", ".join(sorted(subsets)) or "none"
        raise InputError(f"{annotations}: no video of subset '{subset}'; there are {known}")
    return durations


def _only(videos: Iterator[Features]) -> list[Features]:
    """The one video that a duration goes with."""
    first = next(videos, None)
    if first is None:
        return []
    loaded = first.load()  # before an archive goes on
    if next(videos, None) is not None:
        raise InputError("a duration goes with one video")
    return [Features(first.video, lambda: loaded)]


def _classifier(trained: Experiment, path: Path) -> VideoClassifier:
    known = trained.dataset.classifier
    if not trained.data.class_agnostic or known is None:
        raise InputError(
            f"the weights of {trained.name} know their classes; they take no classifier"
        )
    return load_classifier(path, known.kind, known.top_k)


def _video(name: str, steps: int, duration: float | None, timed: Experiment) -> Video:
    """A video without ground truth; it lasts as long as its features, if nobody says how long."""
    grid = timed.features
    assert grid.fps is not None
    assert grid.stride_frames is not None
    assert grid.offset_frames is not None
    if duration is None:
        # the last step reaches as far beyond its centre as the first one before its own
        frames = (steps - 1) * grid.stride_frames + 2 * grid.offset_frames
        if timed.data.loader == "resize":
            frames = steps * grid.stride_frames
        duration = frames / grid.fps
    subset = timed.dataset.eval_subset
    return Video(name, subset, duration, duration * grid.fps, np.zeros((0, 2)), ())


# ------------------------------------------------------------------------------------------ videos


def features_of(sources: Sequence[Path], trained: FeatureSet) -> Iterator[Features]:
    """The videos of files, folders, archives and stores, in the order given.

    Arrays look as those of training do; a video is called as its file is.
    """
    form = Form(trained.dim, transposed=trained.transposed, arrays=trained.arrays)
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        if source.suffix in ARRAYS and source.is_file():
            yield from features_in(Member.of_file(source), form)
        elif _is_store(source):
            yield from _stored(source, form.dim)
        else:
            for member in members(source):
                yield from features_in(member, form)


def _count(sources: Sequence[Path]) -> int | None:
    """How many videos there are; None where only reading an archive would tell."""
    count = 0
    for source in sources:
        if source.is_dir():
            count += sum(path.suffix in ARRAYS for path in source.rglob("*"))
        elif source.suffix in ARRAYS:
            count += 1
        elif _is_store(source):
            count += len(FeatureStore(source))
        else:
            return None
    return count


def _is_store(path: Path) -> bool:
    """Is this a packed store, and not a publisher's h5?"""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "index" in file and "videos" in file
    except OSError:
        return False  # a damaged one, of which `members` says so


def _stored(path: Path, dim: int) -> Iterator[Features]:
    store = FeatureStore(path)
    told = store.descriptions()
    for name in store:

        def load(name: str = name) -> Loaded:
            array_TC = checked(store.array(name), Form(dim), f"{path}: video '{name}'")
            return Loaded(array_TC, told.get(name))

        yield Features(name, load)
