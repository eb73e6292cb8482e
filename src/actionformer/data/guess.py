"""What a folder of annotations and features seems to hold: the facts that two YAML files say.

Nothing here is certain; whoever looks at the files that are written from it may know better.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from actionformer.data.annotations import Database, load_database
from actionformer.data.audit import LOOKED_AT, affixes
from actionformer.data.described import description_in, descriptions_in
from actionformer.data.feature_files import Form, shapes_in
from actionformer.data.members import ARCHIVES, ARRAYS, HDF5
from actionformer.errors import InputError
from actionformer.files.md5 import files_of
from actionformer.files.reading import read_json

# files that hold the arrays of several videos
SEVERAL = (*ARCHIVES, *HDF5)
# what subsets are called, likeliest first
TRAINING = ("training", "train", "trn")
EVALUATED = ("validation", "val", "valid", "test", "testing")


@dataclass(frozen=True)
class Guess:
    """What a folder seems to hold."""

    # relative to the folder
    annotations: str
    features: str
    train_subset: str
    eval_subset: str
    classes: int
    # of training and evaluated subset
    videos: tuple[int, int]
    dim: int
    transposed: bool
    # keys of arrays that are put side by side
    arrays: Sequence[str]
    prefix: str
    suffix: str
    # frames between two steps; None: all videos have as many steps
    stride: float | None
    # frame at the centre of step 0, where the features say so
    offset: float | None
    # frames per second, where the features say so, or the annotations don't say how many there are
    fps: float | None
    # which extractor made the features, where they say so (`Description.made_by`)
    made_by: Mapping[str, str] | None
    # what the YAML of the data set calls it: its name, or the path of its file
    extractor: str | None
    # video -> steps of its features, of those that were looked at
    steps: Mapping[str, int]
    database: Database


def guess(folder: Path) -> Guess:
    """Look at what lies in a folder.

    Raises:
        InputError: no annotations or no features, or none that are read here; says what is
            expected.
    """
    annotations, database = _annotations(folder)
    return guess_files(annotations, database, _features(folder, annotations), folder)


def guess_files(annotations: Path, database: Database, source: Path, folder: Path) -> Guess:
    """Look at annotations and at a folder, an archive or an h5 file of features.

    Args:
        folder: that paths are to be relative to.
    """
    train_subset, eval_subset = _subsets(database, annotations)
    found = list(islice(shapes_in(source), LOOKED_AT))
    if not found:
        raise InputError(f"{source}: no arrays in it; expected one npy, npz, pt or h5 per video")
    keys, shapes = _shapes(found, source)
    dim, transposed = _channels(shapes, source)
    prefix, suffix = _names(database, list(shapes))
    form = Form(dim, prefix, suffix)
    steps = {}
    for name, shape in shapes.items():
        steps[form.video(name)] = shape[-1] if transposed else shape[-2]
    told = description_in(source)
    stride, fps = _grid(database, steps)
    if told is not None:
        # an extractor may take each video at its own rate: then annotations say how many frames
        rates = {one.fps for one in descriptions_in(source) if one is not None}
        is_one = len(rates) == 1
        stride, fps = told.stride_frames, told.fps if is_one else None
    training = [video.name for video in database.subset(train_subset)]
    return Guess(
        annotations=Path(os.path.relpath(annotations, folder)).as_posix(),
        features=Path(os.path.relpath(source, folder)).as_posix(),
        train_subset=train_subset,
        eval_subset=eval_subset,
        classes=len(database.classes),
        videos=(len(training), len(database.subset(eval_subset))),
        dim=dim,
        transposed=transposed,
        arrays=keys,
        prefix=prefix,
        suffix=suffix,
        stride=stride,
        offset=None if told is None else told.offset_frames,
        fps=fps,
        made_by=None if told is None else told.made_by,
        extractor=None if told is None else told.extractor,
        steps=steps,
        database=database,
    )


def _annotations(folder: Path) -> tuple[Path, Database]:
    """The one JSON file with a database."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found, others = [], []
    for path in files_of(folder):
        if path.suffix == ".json":
            content = read_json(path)
            is_object = isinstance(content, Mapping)
            if is_object and isinstance(content.get("database"), Mapping):
                found.append(path)
            else:
                held = ", ".join(list(content)[:3]) if is_object else "no object"
                others.append(f"none ({path.relative_to(folder).as_posix()} holds {held})")
    if len(found) != 1:
        wanted = 'expected one JSON file {"database": {video: {"subset", "duration", ...}}}'
        names = ", ".join(path.relative_to(folder).as_posix() for path in found)
        names = names or (others[0] if others else "none")
        raise InputError(f"{folder}: {wanted}, found {names} (docs/own-dataset.md)")
    return found[0], load_database(found[0])


def _subsets(database: Database, annotations: Path) -> tuple[str, str]:
    """What the subsets that are trained on and evaluated are called."""
    counts = Counter(video.subset for video in database.videos.values())
    called = {name.lower(): name for name in counts}
    training = next((called[name] for name in TRAINING if name in called), None)
    evaluated = next((called[name] for name in EVALUATED if name in called), None)
    if training is None or evaluated is None:
        known = ", ".join(counts) or "none"
        raise InputError(
            f"{annotations}: expected subsets called training and validation, found {known}"
        )
    return training, evaluated


def _features(folder: Path, annotations: Path) -> Path:
    """The folder that holds all arrays, or the largest archive."""
    arrays = [path for path in files_of(folder) if path.suffix in ARRAYS]
    archives = [path for path in files_of(folder) if path.suffix in SEVERAL]
    if not arrays and not archives:
        wanted = "expected npy, npz or pt files, one per video, or an archive of them, or h5"
        raise InputError(f"{folder}: no features beside {annotations.name}; {wanted}")
    # arrays that lie there are likelier meant than an archive; of archives the largest one is
    best = max(archives, key=lambda path: path.stat().st_size, default=folder)
    if arrays:
        best = Path(os.path.commonpath([path.parent for path in arrays]))
    if best == folder:
        wanted = "put the features into a folder of their own"
        raise InputError(f"{folder}: features lie beside {annotations.name}; {wanted}")
    return best


def _shapes(
    found: Sequence[tuple[str, Mapping[str, tuple[int, ...]]]], source: Path
) -> tuple[Sequence[str], dict[str, tuple[int, ...]]]:
    """Keys that are put side by side, and video -> shape of its array then."""
    keys: Sequence[str] = ()
    parts: dict[str, list[tuple[int, ...]]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, of_keys in found:
        usable = {key: shape for key, shape in of_keys.items() if len(shape) >= 2}
        if not usable:
            raise InputError(f"{source}: {name}: expected an array (steps, channels)")
        if len(usable) > 1:
            keys = sorted(usable)
        parts[name] = [shape[-2:] for shape in usable.values()]
    flat = [part for several in parts.values() for part in several]
    # channels are what differs between arrays of one video, steps what differs between videos
    firsts = {tuple(part[0] for part in several) for several in parts.values()}
    lasts = {tuple(part[1] for part in several) for several in parts.values()}
    is_square = flat[0][0] == flat[0][1]
    if len(parts) > 1 and len(firsts) == len(lasts) == 1 and (is_square or keys):
        wrong = f"all arrays are of shape {flat[0]}: which of the two are steps is not to be seen"
        raise InputError(f"{source}: {wrong}; write the YAML by hand (docs/own-dataset.md)")
    transposed = len(firsts) == 1 and len(lasts) > 1
    for name, several in parts.items():
        channels = sum(part[0 if transposed else 1] for part in several)
        steps = several[0][1 if transposed else 0]
        shapes[name] = (channels, steps) if transposed else (steps, channels)
    return keys, shapes


def _channels(shapes: Mapping[str, tuple[int, ...]], source: Path) -> tuple[int, bool]:
    """How many channels there are, and whether they come before the steps."""
    first, last = ({shape[axis] for shape in shapes.values()} for axis in (-2, -1))
    if len(last) == 1:
        return last.pop(), False
    if len(first) == 1:
        return first.pop(), True
    (usual, count), *_ = Counter(shape[-1] for shape in shapes.values()).most_common()
    odd, shape = next((name, shape) for name, shape in shapes.items() if shape[-1] != usual)
    wrong = f"'{odd}' has the shape {shape}, {count} of {len(shapes)} arrays {usual} channels"
    raise InputError(f"{source}: {wrong}; expected (steps, channels), channels alike in all")


def _names(database: Database, names: Sequence[str]) -> tuple[str, str]:
    """What stands before and after a video's name."""
    if set(names) & set(database.videos):
        return "", ""
    fits = Counter(affixes(list(database.videos), names))
    if not fits:
        example = next(iter(database.videos))
        raise InputError(
            f"no features are called after a video: the first ones are {names[0]} and {example}"
        )
    return fits.most_common(1)[0][0]


def _grid(database: Database, steps: Mapping[str, int]) -> tuple[float | None, float | None]:
    """Frames between two steps; and frames per second, where no video says how many it has."""
    known = [name for name in steps if name in database.videos]
    durations = {database.videos[name].duration for name in known}
    if len(known) > 1 and len(durations) > 1 and len({steps[name] for name in known}) == 1:
        return None, None
    with_frames = [name for name in known if database.videos[name].frame is not None]
    if with_frames:
        per_step = [float(database.videos[name].frame or 0) / steps[name] for name in with_frames]
        return max(1.0, float(round(statistics.median(per_step)))), None
    rates = [steps[name] / database.videos[name].duration for name in known]
    # one frame a step: then `fps` is steps per second
    return 1.0, float(f"{statistics.median(rates):.4g}")
