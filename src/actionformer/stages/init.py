"""The two YAML files of a data set of one's own, from what lies in a folder."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

from actionformer.data.guess import Guess, guess
from actionformer.errors import InputError
from actionformer.files import write_text
from actionformer.params.experiment import TrainingParams
from actionformer.params.files import load_experiment

Say = Callable[[str], None]


def init(folder: Path, *, say: Say) -> None:
    """Write FOLDER-dataset.yaml and FOLDER.yaml into a folder, every value explained.

    Raises:
        InputError: a file that is there already, or a folder without annotations or features; then
            nothing is written.
    """
    name = folder.resolve().name
    dataset, experiment = folder / f"{name}-dataset.yaml", folder / f"{name}.yaml"
    for path in (dataset, experiment):
        if path.exists():
            raise InputError(f"{path}: is there already; move it away, or edit it")
    found = guess(folder)
    write_text(dataset, _dataset(name, found))
    write_text(experiment, _experiment(dataset.name, found))
    try:
        # what was written must be what is read
        load_experiment(str(experiment))
    except InputError:
        dataset.unlink()
        experiment.unlink()
        raise
    say(f"{found.videos[0]} videos to train on, {found.videos[1]} to evaluate on; {_grid(found)}")
    say(f"written: {dataset} and {experiment}; read both, every value says what it is")
    say(f"then: snakemake --cores all --config {shlex.quote(f'experiment={experiment}')}")


def _grid(found: Guess) -> str:
    """Where steps lie, in words."""
    if found.stride is None:
        return f"{found.dim} channels, {found.steps} steps in every video"
    rate = f", {found.fps:g} frames per second" if found.fps is not None else ""
    return f"{found.dim} channels, a step every {found.stride:g} frames{rate}"


def quoted(text: str) -> str:
    """A text as YAML, whatever it looks like: 2024 is a name here, too."""
    return json.dumps(text, ensure_ascii=False)


def _dataset(name: str, found: Guess) -> str:
    """The YAML of the data set."""
    lines = [
        "# What the data are. Written by `actionformer init` from what lies here: check it.",
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
    half = found.stride / 2
    lines.append(f"    stride_frames: {found.stride:g}  # frames between two steps")
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


def _ema_decay(videos: int) -> float:
    """Of the published decay, or one that forgets the initial weights in fewer steps."""
    usual = TrainingParams()
    steps = math.ceil(videos / usual.batch_size) * usual.epochs
    return min(usual.ema_decay, round(0.05 ** (1 / max(steps, 1)), 3))


def _experiment(dataset: str, found: Guess) -> str:
    """The YAML of the experiment."""
    lines = [
        "# How to train. Everything that isn't here has a default:",
        "# `actionformer params` prints every value.",
        "data:",
        f"  dataset: {quoted(dataset)}",
        "  features: features",
    ]
    if found.stride is None:
        lines.append("  loader: resize  # features span the video")
        lines.append(f"  resize_length: {found.window}  # all are resampled to so many steps")
    lines += [
        f"  random_trunc: {{length: {found.window}}}  # crops to train on, in steps",
        "model:",
        f"  max_seq_len: {found.window}  # the longest training video here has {found.steps} steps",
        "  channels: 256  # of the network; the published rows have 256 to 2048, small data 128",
        "  attention_window: 19  # steps that attention looks at; -1 for all",
        "  # level by level the distances to a boundary, in steps, that it is responsible for",
        "  regression_range: [[0, 4], [4, 8], [8, 16], [16, 32], [32, 64], [64, 10000]]",
        "training:",
        "  schedule_epochs: 35  # warm-up included",
        "  first_eval_epoch: 30  # from when on mAP is reported while training; counted from 0",
        "  lr: 0.0001  # 1e-4 for 512 channels, 1e-3 for 128",
        f"  ema_decay: {_ema_decay(found.videos[0]):g}  # of the averaged weights; so that after "
        "all steps hardly anything of the initial ones is left in them",
        "evaluation:",
        "  tiou: [0.3, 0.4, 0.5, 0.6, 0.7]  # thresholds of your table",
    ]
    return "\n".join(lines) + "\n"
