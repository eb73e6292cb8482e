"""Can the demo edition be learnt, and does it look like the published rows?

Every row trained on its labels, and the same training on shuffled labels.

    python benchmarks/learnability.py [ROW ...]

Shuffled: all annotations of the training videos are pooled and dealt anew at random, each video
keeping its number; times keep their place relative to the video.

Prints a table. A row fails that scores below 35 or above 85 average mAP, below four times the score
on shuffled labels, or whose mAP falls from the lowest to the highest published threshold, relative
to where it starts, less than half as steeply as the published one.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from actionformer import load_experiment
from actionformer.data import views
from actionformer.data.annotations import Database, Video, load_database
from actionformer.data.detections import Results
from actionformer.data.features import FeatureStore, pack
from actionformer.data.publishers import convert
from actionformer.detection.classifiers import load_classifier
from actionformer.detection.predict import predict
from actionformer.evaluation import AveragePrecision, mean_average_precision
from actionformer.params.experiment import Experiment
from actionformer.params.files import published_rows
from actionformer.synthetic import demo
from actionformer.training.checkpoint import load_model
from actionformer.training.loop import train


def shuffled(database: Database, subset: str, seed: int = 0) -> Database:
    """The database with the annotations of a subset dealt anew."""
    videos = database.subset(subset)
    pool = [
        (segment / video.duration, label)
        for video in videos
        for segment, label in zip(video.segments_G2, video.labels, strict=True)
    ]
    random.Random(seed).shuffle(pool)
    dealt: dict[str, Video] = {}
    for video in videos:
        hand = [pool.pop() for _ in video.labels]
        segments_G2 = np.array([segment * video.duration for segment, _ in hand]).reshape(-1, 2)
        dealt[video.name] = replace(
            video, segments_G2=segments_G2, labels=tuple(label for _, label in hand)
        )
    return Database({**database.videos, **dealt}, database.classes, database.blocked)


@dataclass(frozen=True)
class Detected:
    """A demo row's detections, and what they are held against."""

    experiment: Experiment
    database: Database
    detections: Results

    def score(self) -> AveragePrecision:
        """mAP of the evaluated subset."""
        dataset = self.experiment.dataset
        use_blocked = self.experiment.evaluation.use_blocked_list
        return mean_average_precision(
            self.database,
            self.detections,
            subset=dataset.eval_subset,
            tiou_thresholds=self.experiment.evaluation.tiou,
            blocked=self.database.blocked if use_blocked else (),
        )

    def shifted(self, steps: float) -> Detected:
        """The same with every segment so many steps of the features later."""
        features = self.experiment.features
        moved = {}
        for video, found in self.detections.items():
            fps = self.database.videos[video].fps(features.fps)
            seconds = steps * (features.stride_frames or 0) / fps
            moved[video] = [
                {**one, "segment": [time + seconds for time in one["segment"]]} for one in found
            ]
        return replace(self, detections=moved)


def detected(row: str, data: Path, work: Path, *, shuffle: bool) -> Detected:
    """Train a demo row with seed 0 and detect with it."""
    experiment = load_experiment(row, "demo")
    torch.set_num_threads(experiment.training.threads)
    root, dataset = data / experiment.data.dataset, experiment.dataset
    database = load_database(convert(dataset, root), experiment.data.label_field)
    features = experiment.features
    store = work / f"{experiment.feature_owner}-{experiment.data.features}.h5"
    if not store.exists():
        pack(
            data / experiment.feature_owner / features.file,
            store,
            dim=features.dim,
            prefix=features.prefix,
        )
    reader = FeatureStore(store)
    labels = shuffled(database, dataset.train_subset) if shuffle else database
    run = work / f"{row}-{'shuffled' if shuffle else 'true'}"
    train(experiment, views(labels, reader, experiment, "train"), database.classes, seed=0, run=run)
    classifier = None
    if experiment.inference.use_classifier and dataset.classifier is not None:
        classifier = load_classifier(
            root / dataset.classifier.file, dataset.classifier.kind, dataset.classifier.top_k
        )
    model, _, classes = load_model(run / "model.pt")
    detections = predict(
        model,
        views(database, reader, experiment, "test"),
        experiment.inference,
        classes,
        classifier,
    )
    return Detected(experiment, database, detections)


def fall(map_of_tiou: Mapping[float, float]) -> float:
    """How much of the mAP at the lowest threshold is lost at the highest one, as a share."""
    return 1 - map_of_tiou[max(map_of_tiou)] / map_of_tiou[min(map_of_tiou)]


def published_map(row: str) -> dict[float, float]:
    """tIoU -> published mAP in percent."""
    published = load_experiment(row).expect.published
    return {float(tiou): score for tiou, score in published.items() if tiou != "average"}


def shape_of(row: str, learnt: AveragePrecision) -> tuple[float, float]:
    """How much a row's mAP falls between the published thresholds: here, and as published."""
    published = published_map(row)
    tious = load_experiment(row, "demo").evaluation.tiou
    here = {}
    for tiou, score in zip(tious, learnt.map_U.tolist(), strict=True):
        for threshold in published:
            if math.isclose(tiou, threshold):
                here[threshold] = score
    return fall(here), fall(published)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", default=published_rows(), help="rows (default: all)")
    rows = parser.parse_args().rows
    failed = []
    print("| row | average mAP | fall | published fall | shuffled labels | ratio | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        data, work = Path(folder) / "data", Path(folder) / "work"
        demo.write_data(data)
        for row in rows:
            began = time.perf_counter()
            learnt = detected(row, data, work, shuffle=False).score()
            chance = detected(row, data, work, shuffle=True).score()
            ratio = learnt.average / chance.average
            here, published = shape_of(row, learnt)
            cells = [
                row,
                f"{100 * learnt.average:.1f}",
                f"{100 * here:.0f} %",
                f"{100 * published:.0f} %",
                f"{100 * chance.average:.1f}",
                f"{ratio:.1f}",
                f"{time.perf_counter() - began:.0f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
            if not 0.35 <= learnt.average <= 0.85 or ratio < 4 or here < published / 2:
                failed.append(row)
    if failed:
        print(f"not like the published rows: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
