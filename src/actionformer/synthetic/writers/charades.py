"""Charades: csv per subset, class list (https://prior.allenai.org/projects/charades).

`Charades_v1_train.csv`, `Charades_v1_test.csv` in the columns below, `Charades_v1_classes.txt` with
lines `c000 Holding some clothes`. I3D features (stride 8 at 24 fps, `missing_files.txt` inside) and
VideoMAE-L features (stride 4 at 30 fps), each a zip of one npy per video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from actionformer.files.writing import write_text
from actionformer.synthetic import archives
from actionformer.synthetic.recordings import (
    Content,
    Recording,
    at_frames,
    draw,
    generator,
    names,
)
from actionformer.synthetic.release import Extractor, Release

CLASSES = {
    "c000": "Holding some clothes",
    "c006": "Closing a door",
    "c008": "Opening a door",
    "c011": "Sitting at a table",
    "c015": "Holding a phone/camera",
    "c020": "Holding a bag",
    "c026": "Holding a book",
    "c032": "Reading a book",
    "c033": "Holding a towel/s",
    "c047": "Holding a laptop",
    "c059": "Sitting in a chair",
    "c061": "Holding some food",
    "c092": "Lying on a bed",
    "c097": "Walking through a doorway",
    "c106": "Drinking from a cup/glass/bottle",
    "c118": "Holding a dish",
    "c123": "Sitting on sofa/couch",
    "c147": "Someone is cooking something",
    "c149": "Someone is laughing",
    "c151": "Someone is going from standing to sitting",
    "c154": "Someone is standing up from somewhere",
    "c156": "Someone is eating something",
}
COLUMNS = (
    "id",
    "subject",
    "scene",
    "quality",
    "relevance",
    "verified",
    "script",
    "objects",
    "descriptions",
    "actions",
    "length",
)
I3D = Extractor("i3d-charades", "features/i3d_charades_finetuned_stride8.zip", 32, noise=0.5)
VIDEOMAE = Extractor(
    "videomae_l",
    "features/videomae-large_16x4x1_img224_stride4_len16_interval1_charades_30fps.zip",
    32,
    noise=0.5,
)
EXTRACTORS = (I3D, VIDEOMAE)
# of each: stride, offset, frames per second, and whether missing videos are listed
TIMING = {"i3d-charades": (8, 0, 24, True), "videomae_l": (4, 2, 30, False)}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def write_demo(root: Path) -> None:
    """Charades' files of the demo edition under `root`."""
    recordings = _demo_recordings()
    missing = [recordings[6].name]
    write(root, Release(recordings, tuple(CLASSES), EXTRACTORS, missing), CLASSES)


def write(root: Path, release: Release, texts: Mapping[str, str]) -> None:
    """Charades' files under `root`.

    Args:
        texts: class -> what it is in words.
    """
    folder = root / "charades"
    for subset in ("train", "test"):
        rows = []
        for i, recording in enumerate(release.recordings):
            if recording.subset == subset:
                rows.append(_row(recording, i))
        archives.write_csv(folder / f"annotations/Charades_v1_{subset}.csv", COLUMNS, rows)
    classes = "".join(f"{label} {text}\n" for label, text in texts.items())
    write_text(folder / "annotations/Charades_v1_classes.txt", classes)
    archives.write_classes(folder / "annotations/category_idx.txt", list(texts))
    for extractor in release.extractors:
        stride, offset, fps, lists_missing = TIMING[extractor.key]
        archives.write_features(
            folder,
            release,
            extractor,
            partial(at_frames, stride=stride, offset=offset, fps=fps),
            lists_missing=lists_missing,
        )


def _demo_recordings() -> Sequence[Recording]:
    rng = generator("charades")
    labels = tuple(CLASSES)
    content = Content(labels, (8.0, 26.0), (2, 5), (3.0, 9.0), overlapping=True, decimals=2)
    recordings = []
    for i, name in enumerate(names(rng, 120, 5, LETTERS)):
        subset = "test" if i % 3 == 2 else "train"
        # two are longer than the model's window
        duration = 95.0 if i in (10, 11) else None
        recordings.append(draw(rng, name, subset, 30.0, content, duration))
    return recordings


def _row(recording: Recording, number: int) -> tuple[Any, ...]:
    """A line of the csv; some have a duplicate and an action past the end, one has no action."""
    actions = []
    for action in recording.actions:
        actions.append(f"{action.label} {action.start:.2f} {action.end:.2f}")
    if number % 20 == 0 and actions:
        label, duration = recording.actions[-1].label, recording.duration
        actions.append(actions[0])
        actions.append(f"{label} {duration - 1:.2f} {duration + 2:.2f}")
    if number == 8:
        actions = []
    return (
        recording.name,
        "ABCD",
        "Kitchen",
        6,
        7,
        "Yes",
        "A person moves.",
        "cup",
        "A person moves.",
        ";".join(actions),
        recording.duration,
    )
