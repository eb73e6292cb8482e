"""From detections to metrics and diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actionformer import layout, provenance
from actionformer.data.annotations import Database, load_database
from actionformer.data.detections import Results, read_results
from actionformer.errors import InputError
from actionformer.evaluation.summary import diagnosis_of, evaluated_text, metrics_of, oddities
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json
from actionformer.params import keys
from actionformer.params.experiment import EvaluationParams, Experiment
from actionformer.stages import inputs
from actionformer.tracking.careful import Careful
from actionformer.tracking.results import log_result


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
    told = read_object(inputs.existing(layout.manifest(path), maker), "md5", "lineage", "made_with")
    detections = read_results(inputs.existing(path, maker))
    metrics = row_metrics(experiment, database, detections)
    diagnosis = row_diagnosis(experiment, database, detections)
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
    Careful(run)(log_result, run)
    return dict(metrics["percent"])


def row_metrics(experiment: Experiment, database: Database, detections: Results) -> dict[str, Any]:
    """What metrics.json says of a row's detections, without their origin."""
    return metrics_of(database, detections, experiment.evaluation, experiment.dataset.eval_subset)


def row_diagnosis(
    experiment: Experiment, database: Database, detections: Results
) -> dict[str, Any]:
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
    trained = read_object(run / "lineage.json")
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

    Returns what was evaluated, in words, with what is odd in it, and the metrics in percent; `out`
    gets the metrics.

    Args:
        params: with `use_blocked_list`, the videos of the database's own blocked list are left out,
            as the published evaluation does.
        label_field: whose labels count, where the database has several (EPIC's noun and verb).
    """
    database = load_database(annotations, label_field)
    results = read_results(detections)
    try:
        metrics = metrics_of(database, results, params, subset)
    except InputError as error:
        raise InputError(f"{detections}, against {annotations}: {error}") from None
    write_json(out, metrics)
    said = evaluated_text(database, metrics, use_blocked_list=params.use_blocked_list)
    blocked = database.blocked if params.use_blocked_list else frozenset()
    odd = oddities(database, results, subset, blocked)
    return "\n  ".join([said, *odd]), metrics["percent"]
