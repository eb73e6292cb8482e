"""What several stages share: inputs, opened and named by md5, and what a lineage says of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actionformer import layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import checksums
from actionformer.data.annotations import Database, load_database
from actionformer.data.features import FeatureStore, read_manifest
from actionformer.data.scratch import near
from actionformer.errors import InputError
from actionformer.files.md5 import digest, file_md5
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json
from actionformer.params import keys
from actionformer.params.dataset import Dataset
from actionformer.params.experiment import Experiment

# stands for what a product was made with, where that is not known
NO_RECORD: Mapping[str, Any] = {"stage": "unknown", "key": "unknown", "inputs": {}}


# --------------------------------------------------------------------------------------- raw files


@contextmanager
def raw_files(dataset: Dataset, paths: Sequence[Path]) -> Iterator[None]:
    """Use publishers' files: they must be what is published, or what they were at their first use.

    What they are is recorded once they have been used. Files of the pinned version are DVC's:
    another content there is a change of the data, and tables say so.
    """
    used = []
    pinned = provenance.pinned_md5s()
    for path in paths:
        file = _name_of(dataset, path)
        if file is None or path.as_posix() in pinned or not path.exists():
            continue
        root = Path(path.as_posix().removesuffix(f"/{file}"))
        used.append((root, file, path))
        wanted = {"published": dataset.files[file].md5, **known_md5s(root, file)}
        for where, expected in wanted.items():
            # a large file is read only where there is something to compare it with
            found = "unknown" if expected == "unknown" else provenance.source_md5(path)
            if expected != found:
                raise InputError(
                    f"{path}: md5 is {found}, {where} is {expected}; fetch it again, or, if the "
                    "change is meant, delete what says otherwise"
                )
    yield
    # only what a stage could use is remembered: a broken file must not become the right one
    for root, file, path in used:
        with layout.locked(root):  # several jobs may do so at once
            checksums.record_md5(root, file, provenance.source_md5(path))


def _name_of(dataset: Dataset, path: Path) -> str | None:
    """How a data set's params call one of its raw files."""
    for name in dataset.files:
        if path.as_posix().endswith(f"/{name}"):
            return name
    return None


def known_md5s(root: Path, file: str) -> dict[str, str]:
    """Which md5 a raw file must have, beside the published one: where that is said -> md5."""
    known = {}
    pinned = provenance.pinned_md5s().get((root / file).as_posix())
    if pinned is not None:
        known["pinned in data.dvc"] = pinned
    entry = checksums.recorded(root).get(file)
    if entry is not None and "md5" in entry:
        known[f"recorded in {root / checksums.RECORD} at its first use"] = entry["md5"]
    return known


# -------------------------------------------------------------------------- databases and features


def opened(experiment: Experiment, scratch: Path | None = None) -> tuple[Database, FeatureStore]:
    """Database and features of a row.

    Args:
        scratch: folder of this machine, from a copy in which the features are read.
    """
    store = _store_of(experiment)
    if scratch is not None:
        store, why_not = near(store, str(read_manifest(store)["md5"]), scratch)
        if why_not:
            print(why_not, file=sys.stderr)
    return database_of(experiment), FeatureStore(store)


def database_of(experiment: Experiment) -> Database:
    """The database of a row, with the labels that it reads."""
    database = load_database(_database_file_of(experiment), experiment.data.label_field)
    return database.first(experiment.data.videos)


def _database_file_of(experiment: Experiment) -> Path:
    maker = f"convert {experiment.dataset_argument}{experiment.edition_option}"
    return existing(layout.database_of(experiment), maker)


def _store_of(experiment: Experiment) -> Path:
    features = f"{experiment.feature_argument} {experiment.data.features}"
    maker = f"pack {features}{experiment.edition_option}"
    return existing(layout.store_of(experiment), maker)


def existing(path: Path, maker: str) -> Path:
    """The path, or one line that says which command makes the file."""
    if not path.exists():
        raise InputError(f"{path}: not there yet; `actionformer {maker}` makes it")
    return path


def extractor_of(experiment: Experiment) -> dict[str, str] | None:
    """What made the features of a row, where they say so."""
    told: dict[str, str] | None = read_manifest(_store_of(experiment)).get("extractor")
    return told


# -------------------------------------------------------------------------------------------- md5s


def md5s(experiment: Experiment) -> dict[str, str]:
    """md5 of the content of database and feature store, as their manifests tell it."""
    database = database_md5(experiment)
    return {"database": database, "store": read_manifest(_store_of(experiment))["md5"]}


def database_md5(experiment: Experiment) -> str:
    """md5 of a row's database, as its manifest tells it."""
    path = _database_file_of(experiment)
    return str(read_object(databases.manifest_path(path), "md5")["md5"])


def classifier_md5(experiment: Experiment) -> dict[str, str]:
    """md5 of the external classifier's scores, for the rows that read them."""
    path = layout.classifier_of(experiment)
    return {} if path is None else {"classifier": provenance.source_md5(path)}


def recorded_md5(product: Path) -> str:
    """md5 of a product as its manifest tells it; of its content where there is no manifest."""
    manifest = layout.manifest(product)
    return str(read_object(manifest, "md5")["md5"]) if manifest.exists() else file_md5(product)


def refuse_other_weights(model: Path) -> None:
    """What is made from weights says which they were: those that their manifest tells of."""
    if file_md5(model) != recorded_md5(model):
        wrong = f"not the file that {layout.manifest(model).name} beside it tells of"
        raise InputError(
            f"{model}: {wrong}; delete it and train again (from checkpoint.pt, where that is)"
        )


def write_manifest(product: Path, made_with: Mapping[str, Any], **facts: Any) -> None:
    """The small file beside a product of any size, by which the next stage knows its content."""
    content = {"md5": file_md5(product), "made_with": made_with, **facts}
    write_json(layout.manifest(product), content)


def write_detections(run: Path, results: Mapping[str, Sequence[Any]]) -> str:
    """Write detections.json into a run's folder; says what it wrote."""
    listed = {video: list(found) for video, found in results.items()}
    content = {"version": "actionformer", "results": listed}
    write_json(run / "detections.json", content, indent=None)
    count = sum(len(found) for found in results.values())
    return f"{run / 'detections.json'}: {count} detections in {len(results)} videos"


# ----------------------------------------------------------------------------------------- lineage


def training_record(experiment: Experiment, seed: int) -> keys.Record:
    """What a training of today is made with."""
    model = layout.run(experiment.edition, experiment.name, seed) / "model.pt"
    made_from = {"seed": seed, **md5s(experiment)}
    before = keys.stored(layout.manifest(model))
    return keys.record("train", experiment, made_from, before)


def data_lineage(experiment: Experiment, checkpoint: Path | None = None) -> dict[str, Any]:
    """Which data a run's numbers are a function of.

    The version, the md5 of every raw file that was used, and whether all are the pinned ones.

    Args:
        checkpoint: the published one, where that was used.
    """
    database = read_object(databases.manifest_path(layout.database_of(experiment)))
    store = read_manifest(layout.store_of(experiment))
    files = {**database["sources"], **store["sources"]}
    used = [layout.classifier_of(experiment), checkpoint]
    files |= provenance.sources([path for path in used if path is not None])
    return {
        "data_version": provenance.data_version(files),
        "files": files,
        "pinned": provenance.is_pinned(files),
    }


def lineage_names(
    weights: str, train_key: str, detected: Mapping[str, Any], evaluated: Mapping[str, Any]
) -> dict[str, str]:
    """Names of a run: equal for equal params, data and seed, on whatever machine it was trained.

    `weights` names what the weights depend on, `params` the params in all, `identity` what the
    metrics depend on.

    Args:
        detected: the record of the detections.
        evaluated: the record of the metrics.
    """
    made_with = [detected["key"], evaluated["key"]]
    return {
        "weights": weights,
        "params": digest([train_key, *made_with]),
        "identity": digest([weights, *made_with, detected["inputs"].get("classifier")]),
    }
