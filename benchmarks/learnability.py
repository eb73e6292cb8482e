"""Can the demo edition be learnt?

Every row trained on its labels, and the same training on shuffled labels.

    python benchmarks/learnability.py [ROW ...]

Shuffled: all annotations of the training videos are pooled and dealt anew at random, each video
keeping its number; times keep their place relative to the video. Prints a table; fails if a row
scores below 30 average mAP, below 5 at its highest threshold, or below five times the score on
shuffled labels.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from actionformer import load_experiment
from actionformer.data import views
from actionformer.data.annotations import Database, Video, load_database
from actionformer.data.features import FeatureStore, pack
from actionformer.data.publishers import convert
from actionformer.detection.classifiers import load_classifier
from actionformer.detection.predict import predict
from actionformer.evaluation import AveragePrecision, mean_average_precision
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


def score(row: str, data: Path, work: Path, *, shuffle: bool) -> AveragePrecision:
    """Train a demo row with seed 0 and evaluate it."""
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
    return mean_average_precision(
        database,
        detections,
        subset=dataset.eval_subset,
        tiou_thresholds=experiment.evaluation.tiou,
        blocked=database.blocked if experiment.evaluation.use_blocked_list else (),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", default=published_rows(), help="rows (default: all)")
    rows = parser.parse_args().rows
    failed = []
    print("| row | average mAP | at the highest tIoU | shuffled labels | ratio | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        data, work = Path(folder) / "data", Path(folder) / "work"
        demo.write_data(data)
        for row in rows:
            began = time.perf_counter()
            learnt, chance = (score(row, data, work, shuffle=shuffle) for shuffle in (False, True))
            ratio = learnt.average / chance.average
            highest = 100 * learnt.map_U[-1]
            cells = [
                row,
                f"{100 * learnt.average:.1f}",
                f"{highest:.1f}",
                f"{100 * chance.average:.1f}",
                f"{ratio:.1f}",
                f"{time.perf_counter() - began:.0f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
            if learnt.average < 0.3 or highest < 5 or ratio < 5:
                failed.append(row)
    if failed:
        print(f"not learnable enough: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
