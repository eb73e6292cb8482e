"""From trained weights to detections, and from detections to metrics and diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from actionformer import layout, provenance, tracking
from actionformer.data.annotations import Database, load_database
from actionformer.data.detections import Results, read_results
from actionformer.data.features import FeatureStore
from actionformer.data.view import View, views
from actionformer.detection.classifiers import VideoClassifier, load_classifier
from actionformer.detection.predict import predict
from actionformer.errors import InputError
from actionformer.evaluation.summary import diagnosis_of, evaluated_text, metrics_of
from actionformer.files import file_md5, read_json, write_json
from actionformer.params import keys
from actionformer.params.experiment import EvaluationParams, Experiment, InferenceParams
from actionformer.stages import inputs
from actionformer.training.checkpoint import load_model
from actionformer.training.device import leased_device

# -------------------------------------------------------------------------------------- detections


@dataclass(frozen=True)
class Detector:
    """Runs networks over the evaluated videos of a row."""

    views: Sequence[View]
    params: InferenceParams
    classifier: VideoClassifier | None

    def __call__(self, network: nn.Module, classes: Sequence[str], device: str) -> Results:
        """What a network, which is on this device already, detects."""
        return predict(network, self.views, self.params, classes, self.classifier, device)


def detector(experiment: Experiment, database: Database, features: FeatureStore) -> Detector:
    """The detector of a row; with its external classifier, if it reads one."""
    classifier = None
    path, facts = layout.classifier_of(experiment), experiment.dataset.classifier
    if path is not None and facts is not None:
        with inputs.raw_files(experiment.dataset, [path]):
            classifier = load_classifier(path, facts.kind, facts.top_k)
    test_views = views(database, features, experiment, "test")
    if not test_views:
        subset = experiment.dataset.eval_subset
        raise InputError(f"{experiment.name}: no video of subset '{subset}' has features")
    return Detector(test_views, experiment.inference, classifier)


def detect(experiment: Experiment, seed: int, *, device: str, gpu_slots: int | None = None) -> str:
    """Run a trained row over its evaluated videos; says what it wrote."""
    run = layout.run(experiment.edition, experiment.name, seed)
    network, _, classes = load_model(run / "model.pt")
    with leased_device(device, gpu_slots) as chosen:
        run_detector = detector(experiment, *inputs.opened(experiment))
        results = run_detector(network.to(chosen), classes, chosen)
    manifest = layout.manifest(run / "detections.json")
    before = keys.stored(manifest)
    # it must never lie beside other detections
    manifest.unlink(missing_ok=True)
    said = inputs.write_detections(run, results)
    made = keys.record("detect", experiment, detection_inputs(experiment, run), before)
    write_detections_manifest(experiment, seed, made)
    return said


def detection_inputs(experiment: Experiment, run: Path) -> dict[str, str]:
    """md5 of everything that a run's detections are made from."""
    model = {"model": inputs.recorded_md5(run / "model.pt")}
    return model | inputs.md5s(experiment) | inputs.classifier_md5(experiment)


def write_detections_manifest(experiment: Experiment, seed: int, made: Mapping[str, Any]) -> None:
    """Beside a run's detections: all that their evaluation has to know of weights and data."""
    run = layout.run(experiment.edition, experiment.name, seed)
    trained = keys.stored(layout.manifest(run / "model.pt"))
    if trained is None:
        trained = inputs.training_record(experiment, seed)
    lineage = {"weights": keys.short_name(trained), "train_key": trained["key"]}
    lineage |= inputs.data_lineage(experiment)
    inputs.write_manifest(run / "detections.json", made, lineage=lineage)


# ----------------------------------------------------------------------------------------- metrics


def evaluate(experiment: Experiment, seed: int) -> dict[str, float]:
    """Score and diagnose a row's detections; returns the metrics in percent.

    Writes metrics.json, which says where its numbers come from, and diagnosis.json; MLflow gets
    them, too. Reads the detections with their manifest, the database with its own, and
    lineage.json: no features, no weights.
    """
    run = layout.run(experiment.edition, experiment.name, seed)
    database = inputs.database_of(experiment)
    path = run / "detections.json"
    maker = f"detect {experiment.argument} --seed {seed}"
    told = read_json(inputs.existing(layout.manifest(path), maker))
    detections = read_results(inputs.existing(path, maker))
    metrics = row_metrics(experiment, database, detections)
    diagnosis = _diagnosis(experiment, database, detections)
    made = keys.record(
        "evaluate",
        experiment,
        evaluation_inputs(experiment, told),
        keys.stored(run / "metrics.json"),
    )
    lineage = evaluated_lineage(experiment, run, told, made)
    lineage["evaluated_by"] = {"git": provenance.git_state(), "lock": provenance.lock_md5()}
    # metrics.json last: it names the diagnosis by its md5
    write_json(run / "diagnosis.json", diagnosis)
    origin = {
        "lineage": lineage,
        "made_with": made,
        "diagnosis": file_md5(run / "diagnosis.json"),
    }
    write_json(run / "metrics.json", metrics | origin)
    tracking.Careful(run)(tracking.log_result, run)
    return dict(metrics["percent"])


def row_metrics(experiment: Experiment, database: Database, detections: Results) -> dict[str, Any]:
    """What metrics.json says of a row's detections, without their origin."""
    return metrics_of(database, detections, experiment.evaluation, experiment.dataset.eval_subset)


def _diagnosis(experiment: Experiment, database: Database, detections: Results) -> dict[str, Any]:
    blocked = database.blocked if experiment.evaluation.use_blocked_list else frozenset()
    return diagnosis_of(
        database,
        detections,
        subset=experiment.dataset.eval_subset,
        tiou=experiment.evaluation.tiou,
        blocked=blocked,
        edges=experiment.dataset.bin_edges,
    )


def evaluation_inputs(experiment: Experiment, told: Mapping[str, Any]) -> dict[str, str]:
    """md5 of everything that a run's metrics are made from.

    Args:
        told: the manifest of its detections.
    """
    return {"detections": told["md5"], "database": inputs.database_md5(experiment)}


def evaluated_lineage(
    experiment: Experiment, run: Path, told: Mapping[str, Any], made: Mapping[str, Any]
) -> dict[str, Any]:
    """Where a run's metrics come from.

    Args:
        told: the manifest of its detections.
        made: the record of the metrics.
    """
    lineage = dict(told["lineage"])
    train_key = lineage.pop("train_key")
    lineage |= inputs.lineage_names(lineage["weights"], train_key, told["made_with"], made)
    trained = read_json(run / "lineage.json")
    lineage["trained_by"] = provenance.trained_by(trained, experiment.training.epochs)
    return lineage


def evaluate_files(
    annotations: Path,
    detections: Path,
    params: EvaluationParams,
    *,
    subset: str,
    label_field: str = "label",
    out: Path,
) -> tuple[str, dict[str, float]]:
    """Score any detections in the published form against any database, as a row is scored.

    Returns what was evaluated, in words, and the metrics in percent; `out` gets the metrics.

    Args:
        params: with `use_blocked_list`, the videos of the database's own blocked list are left out,
            as the published evaluation does.
        label_field: whose labels count, where the database has several (EPIC's noun and verb).
    """
    database = load_database(annotations, label_field)
    metrics = metrics_of(database, read_results(detections), params, subset)
    write_json(out, metrics)
    said = evaluated_text(database, metrics, use_blocked_list=params.use_blocked_list)
    return said, metrics["percent"]
