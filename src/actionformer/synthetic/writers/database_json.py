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
    features,
    generator,
    names,
    probabilities,
)

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


def write_activitynet(root: Path) -> None:
    """ActivityNet's files under `root`."""
    folder = root / "activitynet"
    classes = ACTIVITYNET_CLASSES
    rng = generator("activitynet")
    video_names = names(rng, sum(SUBSETS.values()), 11, YOUTUBE)
    content = _content(classes, duration=(24.0, 200.0), length=(0.06, 0.24))
    recordings = _recordings(rng, video_names, content)
    archives.write_classes(folder / "annotations/category_idx.txt", classes)
    database = {}
    for i, recording in enumerate(recordings):
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

    validation = _validation(recordings)
    blocked = [validation[2].name, validation[7].name]
    archives.write_json(folder / "annotations/blocked.json", blocked)
    missing = [recordings[4].name, validation[7].name]
    arrays = {}
    for recording in recordings:
        if recording.name not in missing:
            centres_T = evenly(recording, stride=16, fps=15)
            arrays[recording.name] = features(recording, "tsp", centres_T, 24, noise=0.8)
    stem = "anet_tsp_npy_unresize"
    members = archives.feature_members(stem, arrays, prefix="v_", missing=missing)
    archives.write_zip(folder / f"features/{stem}.zip", members)
    scores = {recording.name: probabilities(recording, classes) for recording in validation}
    file = folder / "classifiers/cuhk_val_simp_7.json"
    archives.write_json(file, {"results": scores, "class": list(classes)})


# -------------------------------------------------------------------------------------------- HACS


def write_hacs(root: Path) -> None:
    """HACS's files under `root`."""
    folder = root / "hacs"
    classes = HACS_CLASSES
    rng = generator("hacs")
    video_names = names(rng, sum(SUBSETS.values()), 11, YOUTUBE)
    content = _content(classes, duration=(18.0, 80.0), length=(0.06, 0.2))
    recordings = _recordings(rng, video_names, content)
    archives.write_classes(folder / "annotations/category_idx.txt", classes)
    database = {}
    for i, recording in enumerate(recordings):
        database[recording.name] = {
            "duration": f"{recording.duration:.6f}",
            "url": f"https://www.youtube.com/watch?v={recording.name}",
            "subset": recording.subset,
            "annotations": _annotations(recording, i),
        }
    published = {"version": "1.1.1", "database": database}
    archives.write_json(folder / "annotations/HACS_segments_v1.1.1.json", published)

    missing = [recordings[1].name]
    arrays = {}
    for recording in recordings:
        if recording.name not in missing:
            centres_T = at_frames(recording, stride=8, offset=16, fps=15)
            arrays[recording.name] = features(recording, "slowfast-hacs", centres_T, 28, noise=0.8)
    stem = "slowfast101_15fps_stride8_len32_hacs"
    members = archives.feature_members(stem, arrays, missing=missing)
    archives.write_zip(folder / f"features/{stem}.zip", members)
    scores = {}
    for recording in _validation(recordings):
        logits = [round(8 * p - 2, 4) for p in probabilities(recording, classes)]
        scores[recording.name] = [logits]
    file = folder / "classifiers/validation94.32.json"
    archives.write_json(file, {"results": scores, "class": list(classes)})


# -------------------------------------------------------------------------------------- FineAction


def write_fineaction(root: Path) -> None:
    """FineAction's files under `root`."""
    folder = root / "fineaction"
    classes = FINEACTION_CLASSES
    video_names = [f"v_{i:08d}" for i in range(1, sum(SUBSETS.values()) + 1)]
    content = _content(classes, duration=(20.0, 110.0), length=(0.07, 0.26))
    recordings = _recordings(generator("fineaction"), video_names, content)
    archives.write_classes(folder / "annotations/category_idx.txt", classes)
    database = {}
    for i, recording in enumerate(recordings):
        annotations = []
        for annotation in _annotations(recording, i):
            annotations.append({"label_id": classes.index(annotation["label"]), **annotation})
        database[recording.name] = {
            "filename": f"{recording.name}.mp4",
            "actual_frame_num": recording.frames,
            "subset": recording.subset,
            "duration": recording.duration,
            "annotations": annotations,
        }
    published = {"version": "1.0", "database": database}
    archives.write_json(folder / "annotations/annotations_gt.json", published)

    huge = _fineaction_members(
        recordings, "videomae_h", "intervideo_mae_huge_k700_stride16_len16_fineaction", 20
    )
    path = folder / "features/intervideo_mae_huge_k700_stride16_len16_fineaction.zip"
    archives.write_zip(path, huge)
    giant = _fineaction_members(recordings, "videomaev2_g", "fineaction_mae_g", 22)
    archives.write_tar_gz(folder / "features/fineaction_mae_g.tar.gz", giant)
    scores = {}
    for recording in _validation(recordings):
        scores[recording.name] = probabilities(recording, classes)
    file = folder / "classifiers/new_swinB_1x1x256_views2x3_max_label_avg_prob.json"
    archives.write_json(file, {"results": scores, "classes": list(classes)})


def _fineaction_members(
    recordings: Sequence[Recording], key: str, folder: str, dim: int
) -> dict[str, bytes]:
    missing = [recordings[2].name]
    arrays = {}
    for recording in recordings:
        if recording.name not in missing:
            centres_T = evenly(recording, stride=16, fps=30)
            arrays[recording.name] = features(recording, key, centres_T, dim, noise=0.8)
    return archives.feature_members(folder, arrays, missing=missing)


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


def _recordings(
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


def _validation(recordings: Sequence[Recording]) -> list[Recording]:
    return [recording for recording in recordings if recording.subset == "validation"]


def _annotations(recording: Recording, number: int) -> list[dict[str, Any]]:
    """Annotations as in ActivityNet's file.

    Every ninth video has a duplicate, and a segment below 1 % of its duration, as real ones do.
    """
    if recording.subset == "testing":
        return []
    annotations: list[dict[str, Any]] = []
    for action in recording.actions:
        annotations.append({"segment": [action.start, action.end], "label": action.label})
    if number % 9 == 0:
        start, label = recording.actions[0].start, annotations[0]["label"]
        end = round(start + 0.005 * recording.duration, 2)
        annotations.append(dict(annotations[0]))
        annotations.append({"segment": [start, end], "label": label})
    return annotations
