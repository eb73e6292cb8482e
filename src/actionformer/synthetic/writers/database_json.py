"""Data sets whose publishers give one JSON database: ActivityNet, HACS and FineAction.

ActivityNet-1.3 (http://activity-net.org): `activity_net.v1-3.min.json` with version, taxonomy and
database {id: subset, duration, resolution, url, annotations [{segment, label}]}; blocked list: JSON
list of ids; TSP features: zip of `v_{id}.npy`, stride 16 at 15 fps; CUHK's classifier:
{"results": {id: [probability per class]}, "class": [names]}.

HACS Segments v1.1.1 (https://github.com/hangzhaomit/HACS-dataset): the form of ActivityNet's file;
TCANet's SlowFast features: zip of one npy per video, stride 8 at 15 fps; its classifier:
{"results": {id: [[logit per class]]}, "class": [names]}.

FineAction (https://github.com/Richard-61/FineAction): the same form, annotations with label_id; two
feature sets with stride 16 at the video's rate, a zip and a tar.gz of one npy per video; a
classifier: {"results": {id: [probability per class]}, "classes": [names]}.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actionformer.synthetic import archives
from actionformer.synthetic.recordings import (
    YOUTUBE,
    Content,
    Recording,
    at_frames,
    draw,
    evenly,
    generator,
    names,
    probabilities,
)
from actionformer.synthetic.release import Extractor, Release

# how many videos there are of each
SUBSETS = {"training": 112, "validation": 40, "testing": 4}

ACTIVITYNET_CLASSES = (
    "Archery",
    "Ballet",
    "Cheerleading",
    "Hopscotch",
    "Long jump",
    "Paintball",
    "Snow tubing",
    "Zumba",
)
HACS_CLASSES = (
    "Arm wrestling",
    "BMX",
    "Canoeing",
    "Disc dog",
    "Horseback riding",
    "Kite flying",
    "Sumo",
    "Windsurfing",
)
FINEACTION_CLASSES = (
    "apply_eyebrows",
    "beat_eggs",
    "cut_fruits",
    "high_jump_run_up",
    "play_the_harp",
    "row_boat",
    "throw_darts",
    "wash_hands",
)


# ------------------------------------------------------------------------------------- ActivityNet

TSP = Extractor("tsp", "features/anet_tsp_npy_unresize.zip", 24, noise=0.8)


def write_activitynet_demo(root: Path) -> None:
    """ActivityNet's files of the demo edition under `root`."""
    rng = generator("activitynet")
    video_names = names(rng, sum(SUBSETS.values()), 11, YOUTUBE)
    content = _content(ACTIVITYNET_CLASSES, duration=(24.0, 200.0), length=(0.06, 0.24))
    recordings = _demo_recordings(rng, video_names, content)
    validation = [recording for recording in recordings if recording.subset == "validation"]
    blocked = [validation[2].name, validation[7].name]
    missing = [recordings[4].name, validation[7].name]
    release = Release(recordings, ACTIVITYNET_CLASSES, (TSP,), missing)
    write_activitynet(root, release, blocked)


def write_activitynet(root: Path, release: Release, blocked: Sequence[str]) -> None:
    """ActivityNet's files under `root`.

    Args:
        blocked: names of the videos that the evaluation leaves out.
    """
    folder, classes = root / "activitynet", release.classes
    archives.write_classes(folder / "annotations/category_idx.txt", classes)
    database = {}
    for i, recording in enumerate(release.recordings):
        database[recording.name] = {
            "subset": recording.subset,
            "annotations": _annotations(recording, i),
            "duration": recording.duration,
            "resolution": "320x240",
            "url": f"https://www.youtube.com/watch?v={recording.name}",
        }
    taxonomy = []
    for i, label in enumerate(classes):
        node = {"parentName": "Root", "nodeName": label, "nodeId": i, "parentId": None}
        taxonomy.append(node)
    published = {"database": database, "taxonomy": taxonomy, "version": "VERSION 1.3"}
    archives.write_json(folder / "annotations/activity_net.v1-3.min.json", published)
    archives.write_json(folder / "annotations/blocked.json", list(blocked))
    centres = partial(evenly, stride=16, fps=15)
    for extractor in release.extractors:
        archives.write_features(folder, release, extractor, centres, prefix="v_")
    file = folder / "classifiers/cuhk_val_simp_7.json"
    archives.write_json(file, {"results": _scores(release), "class": list(classes)})


# -------------------------------------------------------------------------------------------- HACS

SLOWFAST = Extractor(
    "slowfast-hacs", "features/slowfast101_15fps_stride8_len32_hacs.zip", 28, noise=0.8
)


def write_hacs_demo(root: Path) -> None:
    """HACS's files of the demo edition under `root`."""
    rng = generator("hacs")
    video_names = names(rng, sum(SUBSETS.values()), 11, YOUTUBE)
    content = _content(HACS_CLASSES, duration=(18.0, 80.0), length=(0.06, 0.2))
    recordings = _demo_recordings(rng, video_names, content)
    missing = [recordings[1].name]
    write_hacs(root, Release(recordings, HACS_CLASSES, (SLOWFAST,), missing))


def write_hacs(root: Path, release: Release) -> None:
    """HACS's files under `root`."""
    folder, classes = root / "hacs", release.classes
    archives.write_classes(folder / "annotations/category_idx.txt", classes)
    database = {}
    for i, recording in enumerate(release.recordings):
        database[recording.name] = {
            "duration": f"{recording.duration:.6f}",
            "url": f"https://www.youtube.com/watch?v={recording.name}",
            "subset": recording.subset,
            "annotations": _annotations(recording, i),
        }
    published = {"version": "1.1.1", "database": database}
    archives.write_json(folder / "annotations/HACS_segments_v1.1.1.json", published)
    centres = partial(at_frames, stride=8, offset=16, fps=15)
    for extractor in release.extractors:
        archives.write_features(folder, release, extractor, centres)
    scores = {}
    for name, probability_K in _scores(release).items():
        scores[name] = [[round(8 * p - 2, 4) for p in probability_K]]
    file = folder / "classifiers/validation94.32.json"
    archives.write_json(file, {"results": scores, "class": list(classes)})


# -------------------------------------------------------------------------------------- FineAction

VIDEOMAES = (
    Extractor(
        "videomae_h",
        "features/intervideo_mae_huge_k700_stride16_len16_fineaction.zip",
        20,
        noise=0.8,
    ),
    Extractor("videomaev2_g", "features/fineaction_mae_g.tar.gz", 22, noise=0.8),
)


def write_fineaction_demo(root: Path) -> None:
    """FineAction's files of the demo edition under `root`."""
    video_names = [f"v_{i:08d}" for i in range(1, sum(SUBSETS.values()) + 1)]
    content = _content(FINEACTION_CLASSES, duration=(20.0, 110.0), length=(0.07, 0.26))
    recordings = _demo_recordings(generator("fineaction"), video_names, content)
    missing = [recordings[2].name]
    write_fineaction(root, Release(recordings, FINEACTION_CLASSES, VIDEOMAES, missing))


def write_fineaction(root: Path, release: Release) -> None:
    """FineAction's files under `root`."""
    folder, classes = root / "fineaction", release.classes
    archives.write_classes(folder / "annotations/category_idx.txt", classes)
    numbers = {label: number for number, label in enumerate(classes)}
    database = {}
    for i, recording in enumerate(release.recordings):
        annotations = []
        for annotation in _annotations(recording, i):
            annotations.append({"label_id": numbers[annotation["label"]], **annotation})
        database[recording.name] = {
            "filename": f"{recording.name}.mp4",
            "actual_frame_num": recording.frames,
            "subset": recording.subset,
            "duration": recording.duration,
            "annotations": annotations,
        }
    published = {"version": "1.0", "database": database}
    archives.write_json(folder / "annotations/annotations_gt.json", published)
    centres = partial(evenly, stride=16, fps=30)
    for extractor in release.extractors:
        archives.write_features(folder, release, extractor, centres)
    file = folder / "classifiers/new_swinB_1x1x256_views2x3_max_label_avg_prob.json"
    archives.write_json(file, {"results": _scores(release), "classes": list(classes)})


# --------------------------------------------------------------------------------- what they share


def _content(
    classes: Sequence[str], *, duration: tuple[float, float], length: tuple[float, float]
) -> Content:
    """Videos of one class each, with one to three actions, which last a share of the video."""
    return Content(
        classes,
        duration,
        (1, 3),
        length,
        overlapping=False,
        decimals=2,
        relative_length=True,
        one_class=True,
        fuzziness=0.06,
    )


def _demo_recordings(
    rng: np.random.Generator, video_names: Sequence[str], content: Content
) -> list[Recording]:
    """The recordings of all subsets, in their order."""
    subsets: list[str] = []
    for subset, count in SUBSETS.items():
        subsets += [subset] * count
    recordings = []
    for name, subset in zip(video_names, subsets, strict=True):
        recordings.append(draw(rng, name, subset, 30.0, content))
    return recordings


def _scores(release: Release) -> dict[str, list[float]]:
    """Of every validation video what a classifier makes of it."""
    scores = {}
    for recording in release.of_subset("validation"):
        scores[recording.name] = probabilities(recording, release.classes)
    return scores


def _annotations(recording: Recording, number: int) -> list[dict[str, Any]]:
    """Annotations as in ActivityNet's file.

    Every ninth video has a duplicate, and a segment below 1 % of its duration, as real ones do.
    """
    if recording.subset == "testing":
        return []
    annotations: list[dict[str, Any]] = []
    for action in recording.actions:
        annotations.append({"segment": [action.start, action.end], "label": action.label})
    if number % 9 == 0 and annotations:
        start, label = recording.actions[0].start, annotations[0]["label"]
        end = round(start + 0.005 * recording.duration, 2)
        annotations.append(dict(annotations[0]))
        annotations.append({"segment": [start, end], "label": label})
    return annotations
