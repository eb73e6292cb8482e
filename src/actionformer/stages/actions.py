"""Actions: a row of nouns fused with its row of verbs, and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionformer import layout, provenance
from actionformer.data.annotations import load_database
from actionformer.data.detections import Results, read_results
from actionformer.data.view import View, views
from actionformer.detection.actions import predict_actions
from actionformer.errors import InputError
from actionformer.evaluation.summary import action_metrics_of
from actionformer.files.md5 import digest
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json
from actionformer.model.precision import effective
from actionformer.params import keys
from actionformer.params.experiment import Experiment
from actionformer.params.files import load_experiment, verbs_of
from actionformer.stages import inputs, share
from actionformer.tracking.careful import Careful
from actionformer.tracking.results import log_result
from actionformer.training.checkpoint import load_model
from actionformer.training.device import leased_device

if TYPE_CHECKING:
    from actionformer.result_cache import ResultCache


def detect_actions(
    experiment: Experiment,
    params: Path,
    seed: int,
    *,
    device: str,
    gpu_slots: int | None = None,
    scratch: Path | None = None,
    cache: ResultCache | None = None,
) -> str:
    """Fuse a row of nouns with its row of verbs, both trained with `seed`; says what it found.

    The actions are scored, and so are their nouns and verbs. Those that a cache has are fetched.
    """
    _refuse_other_points(experiment, params)
    run = layout.run(experiment.edition, layout.actions(experiment), seed)
    path, before = run / "detections.json", keys.stored(run / "metrics.json")
    made = keys.record("actions", experiment, actions_inputs(experiment, seed), before)
    entry = None if cache is None else cache.fetch(made, [path])
    results: Results
    if cache is not None and entry is not None:
        said, results = f"{path}: {share.fetched_text(cache, entry)}", read_results(path)
        evaluated_by = entry.made_by[0]
        database = inputs.database_of(experiment)
    else:
        database, features = inputs.opened(experiment, scratch)
        shown = views(database, features, experiment, "test")
        with leased_device(device, gpu_slots) as chosen:
            results, evaluated_by = _detected(experiment, seed, shown, chosen)
        said = inputs.write_detections(run, results)
    lineage = actions_lineage(experiment, seed, made) | {"evaluated_by": evaluated_by}
    write_json(run / "lineage.json", lineage)
    metrics = action_metrics_of(
        database,
        load_database(layout.database_of(experiment), "verb").first(experiment.data.videos),
        results,
        experiment.evaluation,
        experiment.dataset.eval_subset,
    )
    write_json(run / "metrics.json", metrics | {"lineage": lineage, "made_with": made})
    Careful(run)(log_result, run)
    if cache is not None and entry is None:
        share.keep_scored(cache, run)
    return said


def _detected(
    experiment: Experiment, seed: int, shown: Sequence[View], device: str
) -> tuple[Results, dict[str, Any]]:
    """The actions that two runs find together in these videos, and who found them."""
    noun_run, verb_run = _fused(experiment, seed).values()
    for run in (noun_run, verb_run):
        inputs.refuse_other_weights(run / "model.pt")
    noun, _, nouns = load_model(noun_run / "model.pt")
    verb, _, verbs = load_model(verb_run / "model.pt")
    noun, verb = noun.to(device), verb.to(device)
    results = predict_actions(noun, verb, shown, experiment.inference, nouns, verbs, device)
    return results, provenance.who(device, effective(noun.precision, device))


def _refuse_other_points(experiment: Experiment, params: Path) -> None:
    """Two networks can be fused where they see videos alike and have the same points."""
    if experiment.actions_with is None:
        none = "names no row of verbs to be fused with (params: actions_with)"
        raise InputError(f"{experiment.name}: {none}")
    verbs = verbs_of(experiment)
    other = load_experiment(
        verbs, experiment.edition, params=params, overrides=experiment.overrides
    )
    both = f"{experiment.name} and {other.name}"
    labelled_alike = {"label_field": other.data.label_field}
    if experiment.data.model_copy(update=labelled_alike) != other.data:
        raise InputError(f"{both} see videos in different ways (params: data)")
    if _points(experiment) != _points(other):
        raise InputError(f"{both} have other points (params: model)")


def _points(experiment: Experiment) -> tuple[Any, ...]:
    """What decides which points a network has."""
    model = experiment.model
    return model.max_seq_len, model.strides, model.attention_windows


def _fused(experiment: Experiment, seed: int) -> dict[str, Path]:
    """Run folders that are fused into actions, by row: that of nouns, that of verbs."""
    rows = [experiment.name, str(experiment.actions_with)]
    return {row: layout.run(experiment.edition, row, seed) for row in rows}


def actions_inputs(experiment: Experiment, seed: int) -> dict[str, str]:
    """md5 of everything that fused detections and their metrics are made from."""
    models = {}
    for row, run in _fused(experiment, seed).items():
        models[row] = inputs.recorded_md5(run / "model.pt")
    return models | inputs.md5s(experiment)


def actions_lineage(experiment: Experiment, seed: int, made: Mapping[str, Any]) -> dict[str, Any]:
    """Where the metrics of fused actions come from; `made` is their record."""
    weights, trained_by = [], []
    for row, run in _fused(experiment, seed).items():
        unknown = {"stage": row, "key": "", "inputs": {}}
        trained = keys.stored(layout.manifest(run / "model.pt")) or unknown
        weights.append(keys.short_name(trained))
        lineage = read_object(run / "lineage.json")
        for session in provenance.trained_by(lineage, experiment.training.epochs):
            trained_by.append({"row": row, **session})
    return {
        "kind": "actions",
        "seed": seed,
        "trained_by": trained_by,
        "weights": digest(weights),
        "params": made["key"],
        "identity": digest([weights, made["key"], inputs.md5s(experiment)]),
        **inputs.data_lineage(experiment),
    }
