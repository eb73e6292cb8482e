"""The two YAML files of a data set of one's own, from what its files are like."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from actionformer.data.annotations import load_database
from actionformer.data.guess import Guess, guess, guess_files
from actionformer.data.suggestion import Advice, Suggestion, suggest
from actionformer.errors import InputError
from actionformer.files.writing import write_bytes, write_text
from actionformer.params.dataset import YAML
from actionformer.params.files import PARAMS, load_experiment, load_extractor, names
from actionformer.reporting.figures import primitives
from actionformer.reporting.figures.lengths import lengths_and_levels

Say = Callable[[str], None]


def init(folder: Path, *, say: Say) -> None:
    """Write FOLDER-dataset.yaml and FOLDER.yaml into a folder, every value explained.

    Raises:
        InputError: a file that is there already, or a folder without annotations or features; then
            nothing is written.
    """
    name = folder.resolve().name
    dataset, experiment = _new_files(folder, name)
    _write(name, dataset, experiment, guess(folder), say)


def suggest_for(
    annotations: Path,
    features: Path,
    out: Path,
    *,
    extractor: str | None = None,
    params: Path = PARAMS,
    say: Say,
) -> None:
    """The same of annotations and features that are named, and a picture of what is suggested.

    Args:
        annotations: a database file (docs/own-dataset.md).
        features: a folder, an archive or an h5 file.
        out: folder to write; its name is that of the data set.
        extractor: name or YAML file of what made the features; None: as they say of themselves,
            which is no path, where it is one of one's own.

    Raises:
        InputError: a file that is there already, annotations or features that cannot be read,
            features that don't say of themselves that this extractor made them, with these params;
            then nothing is written.
    """
    name = out.resolve().name
    dataset, experiment = _new_files(out, name)
    chosen = None if extractor is None else load_extractor(extractor, params)
    found = guess_files(annotations, load_database(annotations), features, out)
    if chosen is not None and extractor is not None:
        _refuse_others(found, features, chosen[0], chosen[1].identity)
        path = Path(os.path.relpath(extractor, out)).as_posix()
        found = replace(found, extractor=path if extractor.endswith(YAML) else chosen[0])
    suggestion = _write(name, dataset, experiment, found, say)
    picture = out / f"{name}-lengths.png"
    write_bytes(picture, primitives.png(lengths_and_levels(suggestion).spec))
    say(f"{picture}: how long actions are, beside what every level is responsible for")


def _refuse_others(found: Guess, features: Path, extractor: str, identity: str) -> None:
    """One line where features do not say that this extractor made them."""
    if found.made_by is None:
        wrong = "do not say which extractor made them, so that none can be written down"
        raise InputError(f"{features}: its files {wrong}; leave --extractor out")
    told = found.made_by["extractor"]
    if told != extractor:
        raise InputError(f"{features}: made by {told}, not by {extractor}; name that one")
    if found.made_by["identity"] != identity:
        wrong = f"made by {told} with other params than its file has now"
        raise InputError(f"{features}: {wrong}; extract the videos again")


def _new_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Where the two files go; refused where one is there."""
    dataset, experiment = folder / f"{name}-dataset.yaml", folder / f"{name}.yaml"
    for path in (dataset, experiment):
        if path.exists():
            raise InputError(f"{path}: is there already; move it away, or edit it")
    return dataset, experiment


def _write(name: str, dataset: Path, experiment: Path, found: Guess, say: Say) -> Suggestion:
    """Write both files, and say what was found."""
    suggestion = suggest(
        found.database,
        found.train_subset,
        stride=found.stride,
        fps=found.fps,
        measured=found.steps,
    )
    write_text(dataset, _dataset(name, found))
    write_text(experiment, _experiment(dataset.name, found, suggestion))
    try:
        # what was written must be what is read
        load_experiment(str(experiment))
    except InputError:
        dataset.unlink()
        experiment.unlink()
        raise
    for advice in (suggestion.branch_blocks, suggestion.max_seq_len, suggestion.schedule_epochs):
        say(advice.why)
    say(f"{found.videos[0]} videos to train on, {found.videos[1]} to evaluate on; {_grid(found)}")
    if found.extractor is not None and not _is_known(found.extractor):
        wanted = "`suggest --extractor FILE.yaml` writes where it lies, so that `predict` finds it"
        say(f"{found.extractor} is none of params/extractors; {wanted}")
    say(f"written: {dataset} and {experiment}; read both, every value says what it is")
    say(f"then: snakemake --cores all --config {shlex.quote(f'experiment={experiment}')}")
    return suggestion


def _is_known(extractor: str) -> bool:
    """Does its name, or path, tell where an extractor is?"""
    return extractor.endswith(YAML) or extractor in names("extractors")


def _grid(found: Guess) -> str:
    """Where steps lie, in words."""
    if found.stride is None:
        return f"{found.dim} channels, {max(found.steps.values())} steps in every video"
    rate = f", {found.fps:g} frames per second" if found.fps is not None else ""
    return f"{found.dim} channels, a step every {found.stride:g} frames{rate}"


def quoted(text: str) -> str:
    """A text as YAML, whatever it looks like: 2024 is a name here, too."""
    return json.dumps(text, ensure_ascii=False)


def _dataset(name: str, found: Guess) -> str:
    """The YAML of the data set."""
    lines = [
        "# What the data are. Written from what their files are like: check it.",
        f"name: {quoted(name)}  # as tables write it",
        "licence: unknown  # of the data, and so of weights that are trained on them",
        "# paths are relative to this file",
        f"annotations: [{quoted(found.annotations)}]",
        f"train_subset: {quoted(found.train_subset)}",
        f"eval_subset: {quoted(found.eval_subset)}",
        f"num_classes: {found.classes}  # labels in the annotations",
        "features:",
        "  features:  # a name for this feature set",
        f"    file: {quoted(found.features)}  # a folder, an archive or h5: an array per video",
        f"    dim: {found.dim}  # channels",
    ]
    if found.transposed:
        lines.append("    transposed: true  # arrays are (channels, steps)")
    if found.arrays:
        keys = ", ".join(map(quoted, found.arrays))
        lines.append(f"    arrays: [{keys}]  # put side by side, in this order")
    if found.prefix:
        lines.append(f"    prefix: {quoted(found.prefix)}  # before a video's name")
    if found.suffix:
        lines.append(f"    suffix: {quoted(found.suffix)}  # after a video's name")
    if found.stride is None:
        lines.append("    stride_frames: null  # features span the video: all have as many steps")
        return "\n".join(lines) + "\n"
    lines.append(f"    stride_frames: {found.stride:g}  # frames between two steps")
    if found.extractor is not None:
        lines += [
            f"    offset_frames: {found.offset:g}  # frame at the centre of step 0",
            _fps(found),
            f"    extractor: {quoted(found.extractor)}  # which made the features, and all this",
        ]
        return "\n".join(lines) + "\n"
    half = found.stride / 2
    lines.append(
        f"    offset_frames: {half:g}  # frame at the centre of step 0: half of what the extractor "
        "sees at once; here half a stride, which is a guess"
    )
    if found.fps is not None:
        lines.append(
            f"    fps: {found.fps:g}  # the annotations have no `frame`: this is steps per second, "
            "a step being one frame"
        )
    return "\n".join(lines) + "\n"


def _fps(found: Guess) -> str:
    if found.fps is None:
        return "    fps: null  # each video's own, `frame` / `duration` of the annotations"
    return f"    fps: {found.fps!r}  # frames per second of every video, as it was extracted"


def _experiment(dataset: str, found: Guess, suggestion: Suggestion) -> str:
    """The YAML of the experiment."""
    length = suggestion.max_seq_len.value
    lines = [
        "# How to train. Everything that isn't here has a default:",
        "# `actionformer params` prints every value.",
        "data:",
        f"  dataset: {quoted(dataset)}",
        "  features: features",
    ]
    if suggestion.is_resized:
        lines.append("  loader: resize  # features span the video")
        lines.append(f"  resize_length: {length}  # all are resampled to so many steps")
    lines += [
        f"  random_trunc: {{length: {length}}}  # crops to train on, in steps",
        "model:",
        _line("branch_blocks", suggestion.branch_blocks, f"{suggestion.levels} levels: "),
        "  # level by level the distances to a boundary, in steps, that it is responsible for",
        f"  regression_range: {suggestion.regression_range.value}",
        _line("max_seq_len", suggestion.max_seq_len),
        _line("channels", suggestion.channels),
        _line("attention_window", suggestion.attention_window),
        "training:",
        _line("batch_size", suggestion.batch_size),
        _line("schedule_epochs", suggestion.schedule_epochs),
        f"  first_eval_epoch: {_first_eval_epoch(suggestion)}  # from when on mAP is reported "
        "while training; counted from 0",
        _line("lr", suggestion.lr),
        _line("ema_decay", suggestion.ema_decay),
        "evaluation:",
        "  tiou: [0.3, 0.4, 0.5, 0.6, 0.7]  # thresholds of your table",
    ]
    return "\n".join(lines) + "\n"


def _line(key: str, advice: Advice, remark: str = "") -> str:
    return f"  {key}: {advice.value}  # {remark}{advice.why}"


def _first_eval_epoch(suggestion: Suggestion) -> int:
    """The last sixth of the epochs is evaluated."""
    epochs = suggestion.schedule_epochs.value
    assert isinstance(epochs, int)
    return epochs - max(1, epochs // 6)
