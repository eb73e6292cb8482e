"""Published checkpoints: run over a row's evaluated videos and scored, without any training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionformer import layout, provenance
from actionformer.data.detections import Results, read_results
from actionformer.errors import InputError
from actionformer.files.md5 import digest
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json
from actionformer.model.precision import effective
from actionformer.model.state_dict_adapter import published_model, why_not_fitting
from actionformer.params import keys
from actionformer.params.experiment import Experiment
from actionformer.params.files import load_experiment
from actionformer.stages import inputs, share
from actionformer.stages.detect import detector
from actionformer.stages.evaluate import row_metrics
from actionformer.tracking.careful import Careful
from actionformer.tracking.results import log_result
from actionformer.training.checkpoint import load_published
from actionformer.training.device import leased_device

if TYPE_CHECKING:
    from actionformer.result_cache import ResultCache


def evaluate_released(
    experiment: Experiment,
    params: Path,
    *,
    device: str,
    gpu_slots: int | None = None,
    scratch: Path | None = None,
    cache: ResultCache | None = None,
) -> tuple[str, dict[str, float]]:
    """Score a row's published checkpoint; says what it found, and the metrics in percent.

    Detections that a cache has are fetched.

    A checkpoint that two rows share fits one of them; of the other the metrics say that it has
    none.
    """
    path, run = layout.released_checkpoint_of(experiment), layout.released_run(experiment)
    if path is None:
        none = "no checkpoint was published with this row (params: released)"
        raise InputError(f"{experiment.name}: {none}")
    # to the end: what a refused command has read must not become what the file has to be
    with inputs.raw_files(experiment.dataset, [path]):
        return _evaluate_released(experiment, path, run, params, device, gpu_slots, scratch, cache)


def _evaluate_released(
    experiment: Experiment,
    path: Path,
    run: Path,
    params: Path,
    device: str,
    gpu_slots: int | None,
    scratch: Path | None,
    cache: ResultCache | None,
) -> tuple[str, dict[str, float]]:
    """`evaluate_released` of a checkpoint in a file."""
    weights = load_published(path)
    why_none = _fits_the_other_row(experiment, path, weights, params)
    before = keys.stored(run / "metrics.json")
    made = keys.record("released", experiment, released_inputs(experiment, path), before)
    lineage = released_lineage(experiment, path, made)
    if why_none:
        # those of an earlier file under this name
        (run / "detections.json").unlink(missing_ok=True)
        write_json(run / "lineage.json", lineage)
        write_json(run / "metrics.json", {"none": why_none, "lineage": lineage, "made_with": made})
        return f"{experiment.name}: no checkpoint of its own: {why_none}", {}
    found = run / "detections.json"
    entry = None if cache is None else cache.fetch(made, [found])
    results: Results
    if cache is not None and entry is not None:
        said, results = f"{found}: {share.fetched_text(cache, entry)}", read_results(found)
        lineage["evaluated_by"] = entry.made_by[0]
        database = inputs.database_of(experiment)
    else:
        database, features = inputs.opened(experiment, scratch)
        with leased_device(device, gpu_slots) as chosen:
            network = published_model(experiment.model, weights).to(chosen)
            run_detector = detector(experiment, database, features)
            results = run_detector(network, database.classes, chosen)
            lineage["evaluated_by"] = provenance.who(chosen, effective(network.precision, chosen))
        said = inputs.write_detections(run, results)
    write_json(run / "lineage.json", lineage)
    metrics = row_metrics(experiment, database, results)
    write_json(run / "metrics.json", metrics | {"lineage": lineage, "made_with": made})
    Careful(run)(log_result, run)
    if cache is not None and entry is None:
        share.keep_scored(cache, run)
    percent: dict[str, float] = metrics["percent"]
    return said, percent


def beside_published(experiment: Experiment, tolerance: float | None) -> tuple[str, bool]:
    """What a row's published checkpoint scores here and was published with, in words.

    And whether the two are further apart than the tolerance, in points. Nothing where nobody has
    evaluated it, or there is nothing to compare.
    """
    path = layout.released_run(experiment) / "metrics.json"
    published = experiment.expect.published.get("average")
    percent = read_object(path).get("percent") if path.exists() else None
    if percent is None or published is None or experiment.released is None:
        return "", False
    found = percent["mAP/average"]
    text = f"the published checkpoint scores {found:.2f} here, published are {published:.2f}"
    return text, tolerance is not None and abs(found - published) > tolerance


def refuse_if_far_from_published(experiment: Experiment, tolerance: float | None) -> None:
    """Raise `InputError` where a published checkpoint says that data or code are wrong.

    It costs minutes and training days.
    """
    text, is_far = beside_published(experiment, tolerance)
    if is_far:
        raise InputError(f"{experiment.name}: {text}, {what_to_check(experiment)}")


def what_to_check(experiment: Experiment) -> str:
    """What makes a checkpoint score something else than it was published with."""
    return (
        "so something of its data is not as published: check the order of classes, stride and "
        f"offset of the features, and the loader (`actionformer audit {experiment.argument}`); "
        "--config trust_released=false (train --ignore-released) trains all the same"
    )


def released_inputs(experiment: Experiment, path: Path) -> dict[str, str]:
    """md5 of everything that the evaluation of a published checkpoint is made from."""
    checkpoint = {"checkpoint": provenance.source_md5(path)}
    return checkpoint | inputs.md5s(experiment) | inputs.classifier_md5(experiment)


def released_lineage(experiment: Experiment, path: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """Where the metrics of a published checkpoint come from; `made` is their record."""
    return {
        "seed": None,
        "trained_by": [],
        "weights": digest(["released", made["inputs"]["checkpoint"]]),
        "params": made["key"],
        "identity": keys.short_name(made),
        **inputs.data_lineage(experiment, path),
    }


def _fits_the_other_row(
    experiment: Experiment, path: Path, weights: Mapping[str, Any], params: Path
) -> str:
    """Why a checkpoint that two rows share is the other row's; empty where it fits this one.

    Raises:
        InputError: it fits neither.
    """
    try:
        misfit = why_not_fitting(experiment.model, weights)
        shared_with = experiment.released.shared_with if experiment.released is not None else None
        if misfit and shared_with is not None:
            other = load_experiment(shared_with, experiment.edition, params=params)
            if not why_not_fitting(other.model, weights):
                return f"the checkpoint linked is that of {other.row}: {misfit}"
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if misfit:
        raise InputError(f"{path}: {misfit}")
    return ""
