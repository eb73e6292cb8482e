"""THUMOS-14 (http://crcv.ucf.edu/THUMOS14/).

Zips with `annotation/{Class}_val.txt`, `{Class}_test.txt`, lines `video  start end` in tenths of a
second, and `Ambiguous_*.txt`; every CliffDiving is listed as Diving, too. Features: zip of one (T,
2 x 1024) npy per video, RGB then flow, stride 4, `missing_files.txt` inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actionformer.synthetic import archives
from actionformer.synthetic.recordings import (
    Action,
    Array,
    Content,
    Generator,
    Recording,
    at_frames,
    draw,
    generator,
    uniform,
)
from actionformer.synthetic.release import Extractor, Release

CLASSES = ("CleanAndJerk", "CliffDiving", "HammerThrow", "HighJump", "LongJump", "TennisSwing")
# MultiTHUMOS's finer classes
PARTS = ("BodyBend", "Drop", "Fall", "Jump", "Run", "Squat", "Stand", "Throw")
# in the official files this video has nothing but ambiguous stretches, and another one has nothing
AMBIGUOUS_ALONE = "video_test_0001292"
EXTRACTORS = (Extractor("i3d", "features/i3d_actionformer_stride4_thumos.zip", dim=48, noise=0.75),)

# video -> its finer actions
Parts = Mapping[str, Sequence[Action]]


def write_demo(root: Path) -> Parts:
    """THUMOS-14's files of the demo edition under `root`; returns what MultiTHUMOS labels."""
    rng = generator("thumos14")
    recordings = _demo_recordings(rng)
    parts = {recording.name: parts_of(rng, recording, PARTS) for recording in recordings}
    missing = [recordings[5].name, recordings[-2].name]
    release = Release(recordings, (*CLASSES, "Diving"), EXTRACTORS, missing)
    write(root, release, parts, rng)
    for dataset in ("thumos14", "multithumos"):
        path = root / dataset / "annotations/video_info.csv"
        archives.write_csv(path, ("video_id", "duration_s", "fps", "frames"), _info(recordings))
    labelled = {}
    for recording in recordings:
        labelled[recording.name] = (*recording.actions, *parts[recording.name])
    return labelled


def write(root: Path, release: Release, parts: Parts, rng: Generator) -> None:
    """THUMOS-14's annotations, without durations, and features under `root`.

    Args:
        parts: MultiTHUMOS' finer actions, which features show, too.
        rng: draws the ambiguous stretches.
    """
    folder = root / "thumos14"
    _write_annotations(folder, rng, release)
    archives.write_classes(folder / "annotations/category_idx.txt", release.classes)

    def shown(recording: Recording) -> Recording:
        return replace(recording, actions=(*recording.actions, *parts[recording.name]))

    for extractor in release.extractors:
        archives.write_features(folder, release, extractor, _centres, shown=shown)


def _centres(recording: Recording) -> Array:
    return at_frames(recording, stride=4, offset=8, fps=recording.fps)


def write_database(path: Path, recordings: Sequence[Recording]) -> None:
    """The JSON database that gives the durations, which the publisher's text files lack."""
    database = {}
    for recording in sorted(recordings, key=lambda recording: recording.name):
        annotations = []
        for action in recording.actions:
            annotations.append({"segment": [action.start, action.end], "label": action.label})
        database[recording.name] = {
            "subset": "training" if recording.subset == "validation" else "validation",
            "duration": recording.duration,
            "frame": recording.frames,
            "annotations": annotations,
        }
    archives.write_json(path, {"version": "synthetic", "database": database})


def _info(recordings: Sequence[Recording]) -> list[tuple[Any, ...]]:
    """Lines of the csv of durations."""
    info = []
    for recording in sorted(recordings, key=lambda recording: recording.name):
        duration, fps = f"{recording.duration:.2f}", f"{recording.fps}"
        info.append((recording.name, duration, fps, recording.frames))
    return info


def _demo_recordings(rng: Generator) -> list[Recording]:
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


def parts_of(rng: Generator, recording: Recording, classes: Sequence[str]) -> tuple[Action, ...]:
    """Finer labels: what happens within the actions."""
    parts = []
    for action in recording.actions:
        first, second = (classes[int(i)] for i in rng.permutation(len(classes))[:2])
        share = uniform(rng, 0.35, 0.65)
        middle = round(action.start + share * (action.end - action.start), 2)
        parts.append(Action(action.start, middle, first))
        parts.append(Action(middle, action.end, second))
    return tuple(parts)


def _write_annotations(folder: Path, rng: Generator, release: Release) -> None:
    """The two zips of the challenge."""
    official: dict[str, list[str]] = {}

    def add(file: str, recording: Recording, start: float, end: float) -> None:
        line = f"{recording.name}  {start:.1f} {end:.1f}\n"
        official.setdefault(file, []).append(line)

    for recording in release.recordings:
        subset = "val" if recording.subset == "validation" else "test"
        alone = recording.name == AMBIGUOUS_ALONE
        for action in () if alone else _with_diving(recording.actions):
            add(f"{action.label}_{subset}", recording, action.start, action.end)
        if int(rng.integers(4)) == 0 or alone:
            add(f"Ambiguous_{subset}", recording, 0.5, 1.5)
    # instances past their video's end, and an exact duplicate, as in the official files
    for file, subset, place in (("HighJump_val", "validation", 3), ("LongJump_test", "test", -4)):
        of_subset = release.of_subset(subset)
        recording = of_subset[place % len(of_subset)]
        add(file, recording, recording.duration + 2, recording.duration + 5)
    twice = official.get("HammerThrow_val", [])
    twice += twice[:1]
    for subset, zip_name in (("val", "validation"), ("test", "test")):
        members = {}
        for stem, lines in official.items():
            if stem.endswith(f"_{subset}"):
                members[f"annotation/{stem}.txt"] = "".join(lines).encode()
        path = folder / f"annotations/TH14_Temporal_annotations_{zip_name}.zip"
        archives.write_archive(path, sorted(members.items()))


def _with_diving(actions: Sequence[Action]) -> list[Action]:
    """Every CliffDiving as Diving, too, as in the official files."""
    dived = {(action.start, action.end) for action in actions if action.label == "Diving"}
    listed = []
    for action in actions:
        listed.append(action)
        if action.label == "CliffDiving" and (action.start, action.end) not in dived:
            listed.append(replace(action, label="Diving"))
    return listed
