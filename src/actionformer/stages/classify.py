"""Scores of whole videos by a linear probe, in the form that class-agnostic rows read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.data.annotations import Database, Video
from actionformer.data.features import FeatureStore
from actionformer.detection.from_files import features_of, refuse_other_extractor
from actionformer.detection.probe import LinearProbe, fit, pooled
from actionformer.errors import InputError
from actionformer.files.writing import write_json
from actionformer.params.experiment import Experiment
from actionformer.progress import progress
from actionformer.stages import inputs


def classify(
    experiment: Experiment, new: Sequence[Path], out: Path, *, say: Callable[[str], None]
) -> None:
    """Fit a probe on a row's training videos, and score new videos with it, or those evaluated.

    `out` gets {"kind": "standard", "results": {video: [probability per class]}, "classes"}, which
    `predict --classifier` and a data set's `classifier` read.

    Args:
        new: files, folders or archives of features like the row's; none: the evaluated videos.

    Raises:
        InputError: no database or features, no training video with an action, features of another
            shape or extractor, a video that occurs twice.
    """
    database, features = inputs.opened(experiment)
    probe = _fitted(experiment, database, features)
    evaluated = database.subset(experiment.dataset.eval_subset)
    results: dict[str, Any] = {}
    if new:
        made_by = inputs.extractor_of(experiment)
        for found in features_of(new, experiment.features):
            if found.video in results:
                again = "give every file a name of its own"
                raise InputError(f"video '{found.video}' occurs twice; {again}")
            loaded = found.load()
            if loaded.description is not None:
                where = f"video '{found.video}'"
                refuse_other_extractor(loaded.description.made_by, experiment, made_by, where)
            results[found.video] = _rounded(probe.scores(pooled(loaded.features_TC)))
        if not results:
            raise InputError(f"{new[0]}: no features there; expected npy, npz, pt or h5 files")
    hits = []
    for video, mean_C in _means(evaluated, features):
        scores_K = probe.scores(mean_C)
        if not new:
            results[video.name] = _rounded(scores_K)
        if video.labels:
            likeliest = database.classes[int(scores_K.argmax())]
            hits.append(likeliest in video.labels)
    content = {"kind": "standard", "results": results, "classes": list(database.classes)}
    write_json(out, content, indent=None)
    if hits:
        share = sum(hits) / len(hits)
        say(f"of {len(hits)} evaluated videos {share:.1%} have an action of the likeliest class")
    say(f"{out}: scores of {len(results)} videos, {len(database.classes)} classes")


def _fitted(experiment: Experiment, database: Database, features: FeatureStore) -> LinearProbe:
    """The probe of a row's training videos."""
    subset = experiment.dataset.train_subset
    number = {label: k for k, label in enumerate(database.classes)}
    means, labels = [], []
    videos = [video for video in database.subset(subset) if video.labels]
    for video, mean_C in progress(_means(videos, features), "pool", unit="video"):
        means.append(mean_C)
        labels.append([number[label] for label in video.labels])
    if not means:
        raise InputError(f"subset '{subset}' has no video with both features and an action")
    return fit(np.stack(means), labels, len(database.classes))


def _means(
    videos: Sequence[Video], features: FeatureStore
) -> Iterator[tuple[Video, NDArray[np.float64]]]:
    """Videos that have features, with the mean of these."""
    for video in videos:
        if video.name in features:
            yield video, pooled(features.array(video.name))


def _rounded(scores_K: NDArray[np.float64]) -> list[float]:
    """Six digits: scores are read in single precision."""
    return [float(f"{score:.6g}") for score in scores_K]
