"""From raw files to the database, the feature stores, and an audit of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from actionformer import layout, provenance
from actionformer.data import annotations as databases
from actionformer.data import audit as audits
from actionformer.data import features as stores
from actionformer.data.annotations import Database, load_database
from actionformer.data.extracted import Description
from actionformer.data.features import FeatureStore, read_manifest
from actionformer.data.publishers import class_list, convert_folder
from actionformer.data.publishers import convert as convert_files
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.writing import write_json
from actionformer.params import keys
from actionformer.params.dataset import Dataset, FeatureSet
from actionformer.params.experiment import Experiment
from actionformer.stages import inputs

LABEL_FIELDS = ("label", "noun", "verb")


def convert(dataset: Dataset, name: str, edition: str) -> str:
    """Publisher's annotations -> the database; says what it wrote."""
    root = layout.raw_root(dataset, name, edition)
    out = layout.database(edition, name)
    read = layout.annotation_files(dataset, name, edition)
    with inputs.raw_files(dataset, read):
        before = keys.stored(databases.manifest_path(out))
        content = convert_files(dataset, root)
        databases.save_database(
            out,
            content,
            origin=", ".join(map(str, read)),
            label_fields=_fields(content),
            sources=lambda: provenance.sources(read),
            made_with=lambda sources: keys.record("convert", dataset, sources, before),
        )
    return f"{out}: {len(content['database'])} videos"


def convert_source(dataset: Dataset, folder: Path, video_info: Path | None, out: Path) -> str:
    """Annotations of any form in any folder -> a database file; says what it wrote."""
    content = convert_folder(dataset, folder, video_info)
    fields = _fields(content)
    databases.save_database(out, content, origin=str(folder), label_fields=fields, sources=dict)
    entries = content["database"].values()
    instances = sum(len(entry["annotations"]) for entry in entries)
    protocol = dataset.protocol
    if dataset.blocked is not None and "blocked" not in content:
        unblocked = dataset.model_copy(update={"blocked": None})
        protocol = f"{unblocked.protocol}; no blocked.json there, so nothing is blocked"
    return f"{out}: {len(entries)} videos, {instances} instances; {protocol}"


def pack(dataset: Dataset, name: str, edition: str, features: str) -> str:
    """Publisher's features -> one store; says what it wrote."""
    if features not in dataset.features:
        known = ", ".join(dataset.features)
        raise InputError(f"data set {name} has no features '{features}'; it has {known}")
    chosen = dataset.features[features]
    source = layout.raw_root(dataset, name, edition) / chosen.file
    sources = partial(provenance.sources, [source])
    if chosen.videos is not None:
        source = layout.extracted(edition, name, chosen)
        # what it all began as: videos and weights
        sources = partial(_extracted_from, source.with_name(f"{features}.json"))
    store = layout.feature_store(edition, name, features)
    before = keys.stored(stores.manifest_path(store))
    with inputs.raw_files(dataset, [source]):
        manifest = stores.pack(
            source,
            store,
            dim=chosen.dim,
            prefix=chosen.prefix,
            suffix=chosen.suffix,
            transposed=chosen.transposed,
            arrays=chosen.arrays,
            sources=sources,
            made_with=lambda sources: keys.record("pack", chosen, sources, before),
            check=lambda description: _refuse_other_grid(chosen, description, source),
        )
    return f"{store}: {manifest['videos']} videos, md5 {manifest['md5']}"


def _extracted_from(manifest: Path) -> dict[str, str]:
    """md5 of the videos and weights that features were made of."""
    found: dict[str, str] = read_object(manifest, "sources")["sources"]
    return found


def _refuse_other_grid(features: FeatureSet, description: Description, source: Path) -> None:
    """One line where features say of themselves something else than the params do."""
    # one of one's own is named by the path of its file
    extractor = None if features.extractor is None else Path(features.extractor).stem
    told = {
        "extractor": (extractor, description.extractor),
        "stride_frames": (features.stride_frames, description.stride_frames),
        "offset_frames": (features.offset_frames, description.offset_frames),
    }
    for name, (in_params, in_file) in told.items():
        if in_params is not None and in_params != in_file:
            wrong = f"{name} is {in_file} in the feature files, {in_params} in the params"
            raise InputError(f"{source}: {wrong} of the feature set; correct these")


def audit(experiment: Experiment, say: Callable[[str], None]) -> None:
    """Check a row's database and features: says what it finds.

    Raises:
        InputError: something that makes the row's numbers wrong.
    """
    database, features = inputs.opened(experiment)
    report = _audited(
        experiment.dataset,
        experiment.data.label_field,
        database,
        features=experiment.features,
        lengths=features.lengths,
        described=features.descriptions(),
        listed_missing=read_manifest(layout.store_of(experiment))["missing"],
        comparable=experiment.comparable,
    )
    # said before it fails: the counts help to see why
    say(report.text())
    report.raise_errors(str(layout.database_of(experiment)))
    out = layout.audit(experiment)
    made = keys.record("audit", experiment, inputs.md5s(experiment), keys.stored(out))
    write_json(out, report.as_json() | {"made_with": made})


@dataclass(frozen=True)
class Audited:
    """Files to audit outside of a row: a database file, or a folder that is converted first."""

    annotations: Path | None
    folder: Path | None = None
    # of a folder: durations
    video_info: Path | None = None
    # of `store`: the feature set's name; the data set's first, if None
    features: str | None = None
    # packed features
    store: Path | None = None
    # a published class list, to compare the order with
    classes: Path | None = None


def audit_files(dataset: Dataset, given: Audited, *, out: Path, say: Callable[[str], None]) -> None:
    """Check files against what the params say of a data set; `out` gets the report as JSON.

    Raises:
        InputError: something that makes numbers wrong; the report is written before.
    """
    where = given.annotations or given.folder
    assert where is not None
    if given.folder is None:
        content = read_object(where, "database")
    else:
        content = convert_folder(dataset, given.folder, given.video_info)
    if not isinstance(content["database"], dict):
        raise InputError(f"{where}: expected a JSON object with the key 'database'")
    features, lengths = _features_given(dataset, given)
    reports: dict[str, audits.Audit] = {}
    for field, order in _class_orders(_fields(content), given.classes).items():
        reports[field] = _audited(
            dataset,
            field,
            load_database(content, field, where),
            features=features,
            lengths=lengths,
            order=order,
        )
    for field, report in reports.items():
        head = f"{field}: " if len(reports) > 1 else ""
        say(head + report.text())
    write_json(out, {field: report.as_json() for field, report in reports.items()})
    say(f"written to {out}")
    for report in reports.values():
        report.raise_errors(str(where))


def _features_given(
    dataset: Dataset, given: Audited
) -> tuple[FeatureSet | None, Mapping[str, int] | None]:
    """The feature set of the store that is audited, and the lengths of its videos."""
    if given.store is None:
        return None, None
    name = given.features or next(iter(dataset.features))
    if name not in dataset.features:
        raise InputError(f"no feature set '{name}'; there are {', '.join(dataset.features)}")
    return dataset.features[name], FeatureStore(given.store).lengths


def _class_orders(fields: Sequence[str], classes: Path | None) -> dict[str, Sequence[str] | None]:
    """Per label field the class order to compare with.

    Of several fields it is the one that the list's own name names.
    """
    orders: dict[str, Sequence[str] | None] = dict.fromkeys(fields)
    if classes is None:
        return orders
    named = list(fields)
    if len(fields) > 1:
        named = [field for field in fields if field in classes.stem]
    if len(named) != 1:
        known = ", ".join(fields)
        raise InputError(f"{classes}: whose classes are these? expected one of {known} in its name")
    orders[named[0]] = class_list.read(classes)
    return orders


def _audited(
    dataset: Dataset,
    field: str,
    database: Database,
    *,
    features: FeatureSet | None,
    lengths: Mapping[str, int] | None,
    described: Mapping[str, Description] | None = None,
    order: Sequence[str] | None = None,
    listed_missing: Sequence[str] = (),
    comparable: bool = True,
) -> audits.Audit:
    """The audit of one label field under a data set's params."""
    classes: int | None
    if isinstance(dataset.num_classes, int):
        classes = dataset.num_classes
    else:
        classes = dataset.num_classes.get(field)
    published = None
    if comparable:
        published = {
            subset: (counts.videos, counts.instances)
            for subset, counts in dataset.published.items()
        }
    return audits.audit(
        database,
        train_subset=dataset.train_subset,
        eval_subset=dataset.eval_subset,
        feature_lengths=lengths,
        described=described,
        stride=None if features is None else features.stride_frames,
        fps=None if features is None else features.fps,
        num_classes=classes,
        class_order=order,
        listed_missing=listed_missing,
        names_blocked=dataset.blocked is not None,
        published=published,
    )


def _fields(content: Mapping[str, Any]) -> list[str]:
    """The label fields that a database's annotations have."""
    for entry in content["database"].values():
        if entry["annotations"]:
            first = entry["annotations"][0]
            return [field for field in LABEL_FIELDS if field in first] or ["label"]
    return ["label"]
