"""From trained weights to detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actionformer import layout, provenance
from actionformer.data.annotations import Database
from actionformer.data.detections import DetectionArrays
from actionformer.data.features import FeatureStore
from actionformer.data.view import View, views
from actionformer.detection.classifiers import VideoClassifier, load_classifier
from actionformer.detection.predict import predict_arrays
from actionformer.errors import InputError
from actionformer.model.actionformer import ActionFormer
from actionformer.model.precision import effective
from actionformer.params import keys
from actionformer.params.experiment import Experiment, InferenceParams
from actionformer.stages import inputs, share
from actionformer.training.checkpoint import load_model
from actionformer.training.device import leased_device

if TYPE_CHECKING:
    from actionformer.result_cache import ResultCache


@dataclass(frozen=True)
class Detector:
    """Runs networks over the evaluated videos of a row."""

    views: Sequence[View]
    params: InferenceParams
    classifier: VideoClassifier | None

    def __call__(
        self, network: ActionFormer, classes: Sequence[str], device: str
    ) -> dict[str, DetectionArrays]:
        """What a network, which is on this device already, detects."""
        return predict_arrays(network, self.views, self.params, classes, self.classifier, device)


def detector(
    experiment: Experiment, database: Database, features: FeatureStore, *, room: float = 0
) -> Detector:
    """The detector of a row; with its external classifier, if it reads one.

    Args:
        room: for resampled videos, as in `views`: of a detector that is used several times.
    """
    test_views = views(database, features, experiment, "test", room=room)
    if not test_views:
        subset = experiment.dataset.eval_subset
        raise InputError(f"{experiment.name}: no video of subset '{subset}' has features")
    classifier = None
    path, facts = layout.classifier_of(experiment), experiment.dataset.classifier
    if path is not None and facts is not None:
        with inputs.raw_files(experiment.dataset, [path]):
            classes = len(database.classes)
            classifier = load_classifier(path, facts.kind, facts.top_k, classes)
            for view in test_views:
                classifier.refuse_without(view.video)
    return Detector(test_views, experiment.inference, classifier)


def detect(
    experiment: Experiment,
    seed: int,
    *,
    device: str,
    gpu_slots: int | None = None,
    scratch: Path | None = None,
    cache: ResultCache | None = None,
) -> str:
    """Run a trained row over its evaluated videos, unless a cache has what it finds.

    Says what it wrote.
    """
    run = layout.run(experiment.edition, experiment.name, seed)
    path, model = run / "detections.json", run / "model.pt"
    if not model.exists() and not layout.manifest(model).exists():
        raise InputError(f"{model}: no such file; train first")
    manifest = layout.manifest(path)
    detected_from = detection_inputs(experiment, run)
    made = keys.record("detect", experiment, detected_from, keys.stored(manifest))

    def outdate(*_: object) -> None:
        """It must never lie beside other detections."""
        manifest.unlink(missing_ok=True)

    entry = None if cache is None else cache.fetch(made, [path], outdate)
    if cache is not None and entry is not None:
        write_detections_manifest(experiment, seed, made, detected_by=entry.made_by[0])
        return f"{path}: {share.fetched_text(cache, entry)}"
    inputs.refuse_other_weights(model)
    network, _, classes = load_model(model)
    with leased_device(device, gpu_slots) as chosen:
        run_detector = detector(experiment, *inputs.opened(experiment, scratch))
        results = run_detector(network.to(chosen), classes, chosen)
        detected_by = provenance.who(chosen, effective(network.precision, chosen))
    outdate()
    said = inputs.write_detections(run, results)
    write_detections_manifest(experiment, seed, made, detected_by=detected_by)
    if cache is not None:
        share.keep_detections(cache, run)
    return said


def detection_inputs(experiment: Experiment, run: Path) -> dict[str, str]:
    """md5 of everything that a run's detections are made from."""
    model = {"model": inputs.recorded_md5(run / "model.pt")}
    return model | inputs.md5s(experiment) | inputs.classifier_md5(experiment)


def write_detections_manifest(
    experiment: Experiment,
    seed: int,
    made: Mapping[str, Any],
    *,
    detected_by: Mapping[str, Any] | None = None,
) -> None:
    """Beside a run's detections: all that their evaluation has to know of weights and data.

    Args:
        detected_by: who ran the network, on what; None where nobody kept that.
    """
    run = layout.run(experiment.edition, experiment.name, seed)
    trained = keys.stored(layout.manifest(run / "model.pt"))
    if trained is None:
        trained = inputs.training_record(experiment, seed)
    lineage = {"weights": keys.short_name(trained), "train_key": trained["key"]}
    lineage |= inputs.data_lineage(experiment)
    facts = {} if detected_by is None else {"detected_by": detected_by}
    inputs.write_manifest(run / "detections.json", made, lineage=lineage, **facts)
