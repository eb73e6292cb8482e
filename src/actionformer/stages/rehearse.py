"""The publishers' files of a row at published size, for a rehearsal of the paper edition."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from actionformer.data.publishers import convert_folder, found_in
from actionformer.errors import InputError
from actionformer.files.writing import atomic_path
from actionformer.params.dataset import Dataset
from actionformer.params.experiment import Experiment
from actionformer.params.files import load_dataset
from actionformer.synthetic import rehearsal

Say = Callable[[str], None]


def rehearse(
    rows: Sequence[Experiment],
    out: Path,
    *,
    videos: int | None,
    annotations: Path | None,
    params: Path,
    say: Say,
) -> None:
    """Write what is published with these rows into a folder that serves as a mirror.

    Args:
        out: holds one folder per data set, its files named as the publishers name them.
        videos: only so many training and so many evaluated videos; None: all.
        annotations: folder with real annotations, one folder per data set; what it lacks is drawn.

    Raises:
        InputError: real annotations that cannot be read; too little room on the disk.
    """
    edition = rows[0].edition
    needed: dict[str, list[Experiment]] = {}
    for row in rows:
        needed.setdefault(row.feature_owner, []).append(row)
    for name, of_dataset in needed.items():
        dataset = load_dataset(name, edition, params)
        annotated = _annotated(name, dataset, annotations, videos, params, edition, say)
        release = rehearsal.release_of(annotated, name, of_dataset)
        _check_room(out, name, rehearsal.feature_bytes(release, dataset))
        rehearsal.write(out, name, annotated, release)
        if annotations is not None and videos is None:
            for each in {row.data.dataset: row.dataset for row in of_dataset}.items():
                _copy_real(annotations, out, *each, say)
        rehearsal.write_released_checkpoints(out, of_dataset)
        counts = f"{len(annotated.recordings)} videos"
        say(f"{out / name}: {counts} for {', '.join(row.name for row in of_dataset)}")


def _annotated(
    name: str,
    dataset: Dataset,
    annotations: Path | None,
    videos: int | None,
    params: Path,
    edition: str,
    say: Say,
) -> rehearsal.Annotated:
    """What is annotated: really, where the folder has it, else drawn."""
    if annotations is None or not (annotations / name).is_dir():
        return rehearsal.drawn(name, videos)
    try:
        found_in(annotations / name, dataset.format, _durations(annotations, name))
    except InputError as none:
        say(f"{name}: drawn, since {none}")
        return rehearsal.drawn(name, videos)
    annotated = _real(name, dataset, annotations, videos)
    say(f"{name}: the annotations of {annotations / name}")
    if name != "thumos14":
        return annotated
    if not (annotations / "multithumos").is_dir():
        return rehearsal.with_finer(annotated)
    finer = _real("multithumos", load_dataset("multithumos", edition, params), annotations, None)
    return rehearsal.with_real_finer(annotated, finer, whole=videos is None)


def _real(
    name: str, dataset: Dataset, annotations: Path, videos: int | None
) -> rehearsal.Annotated:
    """Real annotations, with all that a protocol leaves out."""
    whole = {"excluded_videos": [], "drop_segments_past_end": False}
    durations = _durations(annotations, name)
    content = convert_folder(dataset.model_copy(update=whole), annotations / name, durations)
    return rehearsal.real(name, dataset, content, videos)


def _durations(annotations: Path, name: str) -> Path | None:
    """The csv of durations that THUMOS-14 and MultiTHUMOS share, if it is there."""
    found = sorted((annotations / "thumos14").rglob("*video_info*.csv"))
    return found[0] if name in ("thumos14", "multithumos") and found else None


def _copy_real(annotations: Path, out: Path, name: str, dataset: Dataset, say: Say) -> None:
    """The publisher's own files, where the folder has them, in the place of written ones."""
    wanted = [*dataset.annotations, *dataset.class_lists.values()]
    wanted += [file for file in (dataset.blocked,) if file is not None]
    if dataset.classifier is not None:
        wanted.append(dataset.classifier.file)
    for file in wanted:
        found = sorted((annotations / name).rglob(Path(file).name))
        if found and found[0].is_file():
            with atomic_path(out / name / file) as part:
                shutil.copyfile(found[0], part)
            say(f"{out / name / file}: {found[0]}")


def _check_room(out: Path, name: str, needed: int) -> None:
    """Refuse what doesn't fit before it begins."""
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if needed > free:
        room = f"{needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free in {out}"
        raise InputError(f"{name}: the features take {room}; take fewer videos with --videos")
