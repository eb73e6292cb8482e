"""A data set for other tools: Croissant metadata, its ground truth as csv files beside it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from actionformer import layout, provenance
from actionformer.data.annotations import Database, load_database
from actionformer.data.plan import page_of
from actionformer.files.md5 import file_md5
from actionformer.files.writing import write_json, write_text
from actionformer.params.dataset import Dataset, File
from actionformer.params.experiment import OWN, Experiment
from actionformer.params.files import load_dataset, load_edition
from actionformer.reporting.croissant import Column, Described, Listed, Records, metadata

METADATA = "croissant.json"
VIDEOS = Records(
    name="videos",
    file="videos.csv",
    text="Every video of the database; times are seconds.",
    columns=(
        Column("video", "sc:Text", "name of the video"),
        Column("subset", "sc:Text", "which subset it is in"),
        Column("duration", "sc:Float", "length in seconds"),
        Column("blocked", "sc:Boolean", "does the published evaluation leave it out?"),
    ),
    key="video",
)
SEGMENT = (
    Column("video", "sc:Text", "the video that it is in", references="videos/video"),
    Column("start", "sc:Float", "seconds from the start of the video"),
    Column("end", "sc:Float", "seconds from the start of the video"),
)


def export_croissant(experiment: Experiment, params: Path, out: Path) -> list[str]:
    """Write croissant.json of a row's data set into folder `out`; returns what to say.

    Beside it videos.csv and instances.csv, which hold the ground truth, once that is converted.
    """
    listed, lacking = _files(experiment, params, out)
    records: list[Records] = []
    said = []
    database = layout.database_of(experiment)
    if database.exists():
        for table, text in _ground_truth(experiment, database):
            write_text(out / table.file, text)
            listed.append(Listed(table.file, table.file, file_md5(out / table.file)))
            records.append(table)
    else:
        said.append(f"{database}: not converted yet, so without records")
    if lacking:
        said.append(f"left out, since no md5 of theirs is known here: {', '.join(lacking)}")
    write_json(out / METADATA, metadata(_described(experiment.dataset, lacking), listed, records))
    count = f"{len(listed)} files, {len(records)} sets of records"
    return [*said, f"{out / METADATA}: {count}"]


def _described(dataset: Dataset, lacking: Mapping[str, str]) -> Described:
    """The data set in words: what counts in it, its features, and what the metadata lack."""
    told = [f"{dataset.name} as its published ActionFormer rows read it: {dataset.protocol}"]
    for name, features in dataset.features.items():
        told.append(f"features {name}: {features.dim} channels")
    for name, address in lacking.items():
        told.append(f"not listed, since its md5 is not known: {name} of {address}")
    text = "; ".join(told) + "."
    return Described(dataset.name, text, dataset.licence, dataset.homepage, dataset.citation)


def _files(experiment: Experiment, params: Path, out: Path) -> tuple[list[Listed], dict[str, str]]:
    """The files whose md5 is known; of the others name and address."""
    from_publisher = True
    if experiment.edition != OWN:
        from_publisher = load_edition(experiment.edition, params).origin == "publisher"
    listed, lacking = [], {}
    for path, file in _facts(experiment, params).items():
        is_published = from_publisher and bool(file.sources)
        address = page_of(file.sources[0]) if is_published else _from(out, path)
        md5 = file.md5 if is_published else "unknown"
        # a folder has no md5 that another program would come to
        if path.is_dir():
            md5 = "absent"
        elif md5 == "unknown":
            md5 = provenance.source_md5(path)
        if md5 != "absent":
            listed.append(Listed(path.as_posix(), address, md5, file.archive))
        elif from_publisher or path.exists():
            lacking[path.as_posix()] = address
    return listed, lacking


def _from(folder: Path, path: Path) -> str:
    """The way from a folder to a file."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _facts(experiment: Experiment, params: Path) -> Mapping[Path, File]:
    """Every file of a data set, and of another one where its features lie there."""
    dataset, name, edition = experiment.dataset, experiment.data.dataset, experiment.edition
    root = layout.raw_root(dataset, name, edition)
    found = {path: File() for path in layout.annotation_files(dataset, name, edition)}
    for features in dataset.features.values():
        if features.dataset is None:
            found.setdefault(root / (features.videos or features.file), File())
        else:
            owner = load_dataset(features.dataset, edition, params)
            path = layout.raw_root(owner, features.dataset, edition) / features.file
            found[path] = owner.files.get(features.file, File())
    if dataset.classifier is not None:
        found.setdefault(root / dataset.classifier.file, File())
    found |= {root / file: facts for file, facts in dataset.files.items()}
    return dict(sorted(found.items()))


def _ground_truth(experiment: Experiment, database: Path) -> list[tuple[Records, str]]:
    """Videos and instances, as records and as the text of their csv files."""
    classes = experiment.dataset.num_classes
    fields = list(classes) if isinstance(classes, Mapping) else [experiment.data.label_field]
    read = {field: load_database(database, field) for field in fields}
    labels = tuple(Column(field, "sc:Text", "class of the action") for field in fields)
    instances = Records(
        name="instances",
        file="instances.csv",
        text="Every annotated action: from when to when, and which.",
        columns=(*SEGMENT, *labels),
    )
    first = read[fields[0]]
    return [(VIDEOS, _videos(first)), (instances, _instances(instances, read))]


def _videos(database: Database) -> str:
    lines = []
    for video in database.videos.values():
        is_blocked = video.name in database.blocked
        lines.append([video.name, video.subset, video.duration, str(is_blocked).lower()])
    return _csv(VIDEOS, lines)


def _instances(table: Records, read: Mapping[str, Database]) -> str:
    """The same segments with the labels of every label field."""
    lines = []
    first, *_ = read.values()
    for video in first.videos.values():
        labels = [database.videos[video.name].labels for database in read.values()]
        for segment, *named in zip(video.segments_G2.tolist(), *labels, strict=True):
            lines.append([video.name, *segment, *named])
    return _csv(table, lines)


def _csv(table: Records, lines: Sequence[Sequence[object]]) -> str:
    """For programs: a name that a spreadsheet would run as a formula stays as it is."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(column.name for column in table.columns)
    writer.writerows(lines)
    return buffer.getvalue()
