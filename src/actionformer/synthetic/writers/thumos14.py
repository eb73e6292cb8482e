"""THUMOS-14 (http://crcv.ucf.edu/THUMOS14/).

Zips with `annotation/{Class}_val.txt`, `{Class}_test.txt`, lines `video  start end` in tenths of a
second, and `Ambiguous_*.txt`; every CliffDiving is listed as Diving, too. Features: zip of one (T,
2 x 1024) npy per video, RGB then flow, stride 4, `missing_files.txt` inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from actionformer.synthetic import archives
from actionformer.synthetic.recordings import (
    Action,
    Content,
    Generator,
    Recording,
    at_frames,
    draw,
    features,
    generator,
    uniform,
)

CLASSES = ("CleanAndJerk", "CliffDiving", "HammerThrow", "HighJump", "LongJump", "TennisSwing")
# MultiTHUMOS's finer classes
PARTS = ("BodyBend", "Drop", "Fall", "Jump", "Run", "Squat", "Stand", "Throw")
# in the official files this video has nothing but ambiguous stretches, and another one has nothing
AMBIGUOUS_ALONE = "video_test_0001292"
FEATURES = "i3d_actionformer_stride4_thumos"
DIM = 48

# video -> its finer actions
Parts = Mapping[str, Sequence[Action]]


def write(root: Path) -> tuple[list[Recording], Parts]:
    """THUMOS-14's files under `root`; returns what MultiTHUMOS labels."""
    rng = generator("thumos14")
    recordings = _recordings(rng)
    parts = {recording.name: _parts(rng, recording) for recording in recordings}
    _write_annotations(root, rng, recordings)
    info = []
    for recording in sorted(recordings, key=lambda recording: recording.name):
        duration, fps = f"{recording.duration:.2f}", f"{recording.fps}"
        info.append((recording.name, duration, fps, recording.frames))
    for dataset in ("thumos14", "multithumos"):
        path = root / dataset / "annotations/video_info.csv"
        archives.write_csv(path, ("video_id", "duration_s", "fps", "frames"), info)
    archives.write_classes(root / "thumos14/annotations/category_idx.txt", [*CLASSES, "Diving"])
    _write_features(root, recordings, parts)
    return recordings, parts


def _recordings(rng: Generator) -> list[Recording]:
    content = Content(
        CLASSES,
        (9.0, 42.0),
        (3, 7),
        (1.0, 7.0),
        overlapping=False,
        decimals=1,
        fuzziness=0.32,
        lookalikes=1.2,
    )
    names = [f"video_validation_{i:07d}" for i in range(51, 51 + 44 * 7, 7)]
    names += ["video_test_0000270", AMBIGUOUS_ALONE]
    names += [f"video_test_{i:07d}" for i in range(4, 4 + 30 * 9, 9)]
    recordings = []
    for i, name in enumerate(names):
        fps = 30.0 if i % 5 else 25.0
        # some are longer than the model's window
        duration = 55.0 if i % 17 == 3 else None
        recordings.append(draw(rng, name, name.split("_")[1], fps, content, duration))
    return recordings


def _parts(rng: Generator, recording: Recording) -> tuple[Action, ...]:
    """The finer labels: what happens within the actions."""
    parts = []
    for action in recording.actions:
        first, second = (PARTS[int(i)] for i in rng.permutation(len(PARTS))[:2])
        share = uniform(rng, 0.35, 0.65)
        middle = round(action.start + share * (action.end - action.start), 2)
        parts.append(Action(action.start, middle, first))
        parts.append(Action(middle, action.end, second))
    return tuple(parts)


def _write_annotations(root: Path, rng: Generator, recordings: Sequence[Recording]) -> None:
    """The two zips of the challenge."""
    official: dict[str, list[str]] = {}
    for recording in recordings:
        subset = "val" if recording.subset == "validation" else "test"
        alone = recording.name == AMBIGUOUS_ALONE
        for action in () if alone else recording.actions:
            line = f"{recording.name}  {action.start:.1f} {action.end:.1f}\n"
            official.setdefault(f"{action.label}_{subset}", []).append(line)
            if action.label == "CliffDiving":
                official.setdefault(f"Diving_{subset}", []).append(line)
        if int(rng.integers(4)) == 0 or alone:
            line = f"{recording.name}  0.5 1.5\n"
            official.setdefault(f"Ambiguous_{subset}", []).append(line)
    # instances past their video's end, and an exact duplicate, as in the official files
    for recording, file in ((recordings[3], "HighJump_val"), (recordings[-4], "LongJump_test")):
        start, end = recording.duration + 2, recording.duration + 5
        official[file].append(f"{recording.name}  {start:.1f} {end:.1f}\n")
    official["HammerThrow_val"].append(official["HammerThrow_val"][0])
    for subset, zip_name in (("val", "validation"), ("test", "test")):
        members = {}
        for stem, lines in official.items():
            if stem.endswith(f"_{subset}"):
                members[f"annotation/{stem}.txt"] = "".join(lines).encode()
        path = root / f"thumos14/annotations/TH14_Temporal_annotations_{zip_name}.zip"
        archives.write_zip(path, members)


def _write_features(root: Path, recordings: Sequence[Recording], parts: Parts) -> None:
    """I3D features, which show the finer actions, too."""
    missing = [recordings[5].name, recordings[-2].name]
    arrays = {}
    for recording in recordings:
        if recording.name in missing:
            continue
        shown = replace(recording, actions=(*recording.actions, *parts[recording.name]))
        centres_T = at_frames(shown, stride=4, offset=8, fps=shown.fps)
        arrays[recording.name] = features(shown, "i3d", centres_T, DIM, noise=0.75)
    members = archives.feature_members(FEATURES, arrays, missing=missing)
    archives.write_zip(root / f"thumos14/features/{FEATURES}.zip", members)
