"""Writes the demo edition: small synthetic data in exactly the files that the eight publishers publish.

An action adds its class's pattern to the features of the steps that it covers, and a start and an end pattern at its
boundaries, under noise. So actions, classes and boundaries can be learnt. Everything is drawn as integers and
combined by exactly rounded operations, stored as float16 in archives with fixed times: the same bytes everywhere.

The formats are those of the publishers' own pages, named in each writer; the converters in `data/publishers` are
written from the same pages. Odd cases that the real files have are here too: labels to be left out, duplicates,
segments past the end, videos without features, blocked videos, videos longer than the model's window.
"""

from __future__ import annotations

import csv
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.files import atomic_path, write_text

Generator = np.random.Generator


@dataclass(frozen=True)
class Action:
    """One annotated action, times in seconds."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Recording:
    """A synthetic video: its actions, annotated or not, are what its features show."""

    name: str
    subset: str
    duration: float
    fps: float
    actions: tuple[Action, ...]

    @property
    def frames(self) -> int:
        return int(self.duration * self.fps)


@dataclass(frozen=True)
class Content:
    """What the recordings of a data set look like; ranges are uniform, times in seconds."""

    classes: Sequence[str]
    duration: tuple[float, float]
    actions: tuple[int, int]
    length: tuple[float, float]
    overlapping: bool
    decimals: int
    """of the publisher's times"""
    relative_length: bool = False
    """`length` is a share of the duration"""
    one_class: bool = False
    """all actions of a video have the same class"""


# ---------------------------------------------------------------------------------------------- drawing


def _generator(name: str) -> Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def _uniform(rng: Generator, low: float, high: float) -> float:
    return low + (high - low) * (int(rng.integers(0, 65536)) / 65536)


def _draw(
    rng: Generator, name: str, subset: str, fps: float, content: Content, duration: float | None = None
) -> Recording:
    """A recording with actions at random places; actions of the same class keep apart."""
    duration = round(_uniform(rng, *content.duration), 2) if duration is None else duration
    wanted = int(rng.integers(content.actions[0], content.actions[1] + 1))
    only = content.classes[int(rng.integers(len(content.classes)))]
    scale = duration if content.relative_length else 1.0
    actions: list[Action] = []
    for _ in range(40 * wanted):
        if len(actions) == wanted:
            break
        label = only if content.one_class else content.classes[int(rng.integers(len(content.classes)))]
        length = min(scale * _uniform(rng, *content.length), 0.8 * duration)
        # some are cut off by the video's ends, so that no place in a video is likelier than another
        begin = _uniform(rng, -0.4 * length, duration - 0.6 * length)
        start = round(max(begin, 0.0), content.decimals)
        end = round(min(begin + length, duration - 0.1), content.decimals)
        gap = 0.25 * length
        near = [a for a in actions if a.start - gap < end and start < a.end + gap]
        if not any(a.label == label or not content.overlapping for a in near):
            actions.append(Action(start, end, label))
    actions.sort(key=lambda action: (action.start, action.end, action.label))
    return Recording(name, subset, duration, fps, tuple(actions))


def _patterns(name: str, dim: int) -> NDArray[np.floating[Any]]:
    """One pattern of -1 and +1 per name."""
    return 2.0 * _generator(f"pattern/{name}/{dim}").integers(0, 2, dim) - 1.0


def _features(
    recording: Recording, key: str, centres_T: NDArray[np.floating[Any]], dim: int, *, noise: float
) -> NDArray[np.float16]:
    """(T, dim): what a feature extractor would see of the recording at times `centres_T`."""
    rng = _generator(f"features/{key}/{recording.name}")
    # four dice give a bell; their sum has a standard deviation of about 148
    dice = rng.integers(-128, 128, (4, len(centres_T), dim)).sum(0)
    features = dice * (noise / 148)
    half = centres_T[1] - centres_T[0] if len(centres_T) > 1 else recording.duration
    for action in recording.actions:
        strength = _uniform(rng, 0.75, 1.25)
        covered = np.minimum(action.end, centres_T + half) - np.maximum(action.start, centres_T - half)
        features += (strength * (covered / (2 * half)).clip(0, 1))[:, None] * _patterns(f"{key}/{action.label}", dim)
        for time, boundary in ((action.start, "start"), (action.end, "end")):
            bump = (1 - np.abs(centres_T - time) / (2 * half)).clip(0)
            features += bump[:, None] * _patterns(f"{key}/{boundary}", dim)
    return features.astype(np.float16)


def _at_frames(recording: Recording, *, stride: float, offset: float, fps: float) -> NDArray[np.floating[Any]]:
    """Times of the centres of all steps that a clip of the recording fits around."""
    frames = int(recording.duration * fps)
    steps = max(int((frames - offset) / stride) + 1, 2)
    return (offset + stride * np.arange(steps)) / fps


def _evenly(recording: Recording, *, stride: float, fps: float) -> NDArray[np.floating[Any]]:
    """Times of the centres of steps that span the recording."""
    steps = max(int(recording.duration * fps / stride), 2)
    return (np.arange(steps) + 0.5) * (recording.duration / steps)


# ---------------------------------------------------------------------------------------------- files


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """A zip without compression (whose bytes would depend on the library) and with fixed times."""
    with atomic_path(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(members.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, content)


def _write_tar_gz(path: Path, members: Mapping[str, bytes]) -> None:
    """A tar.gz of stored (uncompressed) blocks with fixed times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    raw = buffer.getvalue()
    blocks = [raw[i : i + 65535] for i in range(0, len(raw), 65535)]
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
        for i, block in enumerate(blocks):
            file.write(struct.pack("<BHH", i == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block)
        file.write(struct.pack("<II", zlib.crc32(raw), len(raw) & 0xFFFFFFFF))


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content) + "\n")


def _write_classes(path: Path, labels: Sequence[str]) -> None:
    """A published class order, `category_idx.txt`: one class per line."""
    write_text(path, "".join(f"{label}\n" for label in sorted(labels)))


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def _archive(
    folder: str, features: Mapping[str, NDArray[np.float16]], *, prefix: str = "", missing: Sequence[str] | None = None
) -> dict[str, bytes]:
    """Members of a feature archive: one npy per video, and the list of videos without features."""
    members = {f"{folder}/{prefix}{name}.npy": _npy(array) for name, array in features.items()}
    if missing is not None:
        members[f"{folder}/missing_files.txt"] = "".join(f"{prefix}{name}\n" for name in missing).encode()
    return members


def _names(rng: Generator, count: int, length: int, alphabet: str) -> list[str]:
    return ["".join(alphabet[int(i)] for i in rng.integers(0, len(alphabet), length)) for _ in range(count)]


YOUTUBE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HEX = "0123456789abcdef"


# ---------------------------------------------------------------------------------------------- publishers

THUMOS_CLASSES = ("CleanAndJerk", "CliffDiving", "HammerThrow", "HighJump", "LongJump", "TennisSwing")
MULTITHUMOS_PARTS = ("BodyBend", "Drop", "Fall", "Jump", "Run", "Squat", "Stand", "Throw")


def write_thumos(root: Path) -> None:
    """THUMOS-14 and MultiTHUMOS, which share videos and I3D features.

    THUMOS-14 (http://crcv.ucf.edu/THUMOS14/): zips with `annotation/{Class}_val.txt`, `{Class}_test.txt`, lines
    `video  start end` in tenths of a second, and `Ambiguous_*.txt`; every CliffDiving is listed as Diving too.
    MultiTHUMOS (http://ai.stanford.edu/~syyeung/everymoment.html): `annotations/{Class}.txt`, lines `video start end`.
    Features: zip of one (T, 2 x 1024) npy per video, RGB then flow, stride 4, `missing_files.txt` inside.
    """
    rng = _generator("thumos14")
    content = Content(THUMOS_CLASSES, (9.0, 42.0), (3, 7), (1.2, 7.0), overlapping=False, decimals=1)
    names = [f"video_validation_{i:07d}" for i in range(51, 51 + 44 * 7, 7)]
    names += ["video_test_0000270", "video_test_0001292"] + [f"video_test_{i:07d}" for i in range(4, 4 + 30 * 9, 9)]
    recordings = [
        _draw(rng, name, name.split("_")[1], 30.0 if i % 5 else 25.0, content, 55.0 if i % 17 == 3 else None)
        for i, name in enumerate(names)
    ]
    parts = {r.name: _parts(rng, r) for r in recordings}

    official: dict[str, list[str]] = {}
    for r in recordings:
        subset = "val" if r.subset == "validation" else "test"
        if r.name != "video_test_0001292":
            for a in r.actions:
                line = f"{r.name}  {a.start:.1f} {a.end:.1f}\n"
                official.setdefault(f"{a.label}_{subset}", []).append(line)
                if a.label == "CliffDiving":
                    official.setdefault(f"Diving_{subset}", []).append(line)
        if int(rng.integers(4)) == 0 or r.name == "video_test_0001292":
            official.setdefault(f"Ambiguous_{subset}", []).append(f"{r.name}  0.5 1.5\n")
    # instances past their video's end, and an exact duplicate, as in the official files
    for name, label, subset in (
        (recordings[3].name, "HighJump", "val"),
        (recordings[-4].name, "LongJump", "test"),
    ):
        duration = next(r.duration for r in recordings if r.name == name)
        official[f"{label}_{subset}"].append(f"{name}  {duration + 2:.1f} {duration + 5:.1f}\n")
    official["HammerThrow_val"].append(official["HammerThrow_val"][0])
    for subset, zip_name in (("val", "validation"), ("test", "test")):
        members = {
            f"annotation/{stem}.txt": "".join(lines).encode()
            for stem, lines in official.items()
            if stem.endswith(f"_{subset}")
        }
        _write_zip(root / f"thumos14/annotations/TH14_Temporal_annotations_{zip_name}.zip", members)
    info = [(r.name, f"{r.duration:.2f}", f"{r.fps}", r.frames) for r in sorted(recordings, key=lambda r: r.name)]
    for dataset in ("thumos14", "multithumos"):
        _write_csv(root / dataset / "annotations/video_info.csv", ("video_id", "duration_s", "fps", "frames"), info)

    dense: dict[str, list[str]] = {}
    for r in recordings:
        for a in (*r.actions, *parts[r.name]):
            dense.setdefault(a.label, []).append(f"{r.name} {a.start:.2f} {a.end:.2f}\n")
    members = {f"multithumos/annotations/{label}.txt": "".join(lines).encode() for label, lines in dense.items()}
    members["multithumos/class_list.txt"] = "".join(
        f"{i} {label}\n" for i, label in enumerate(sorted(dense), 1)
    ).encode()
    _write_zip(root / "multithumos/annotations/multithumos.zip", members)
    _write_classes(root / "multithumos/annotations/category_idx.txt", list(dense))
    _write_classes(root / "thumos14/annotations/category_idx.txt", [*THUMOS_CLASSES, "Diving"])

    dim, missing = 48, [recordings[5].name, recordings[-2].name]
    shown = [replace(r, actions=(*r.actions, *parts[r.name])) for r in recordings if r.name not in missing]
    folder = "i3d_actionformer_stride4_thumos"
    features = {
        r.name: _features(r, "i3d", _at_frames(r, stride=4, offset=8, fps=r.fps), dim, noise=1.4) for r in shown
    }
    _write_zip(root / f"thumos14/features/{folder}.zip", _archive(folder, features, missing=missing))


def _parts(rng: Generator, recording: Recording) -> tuple[Action, ...]:
    """MultiTHUMOS's finer labels: what happens within and between the actions of THUMOS-14."""
    parts = []
    for action in recording.actions:
        first, second = (MULTITHUMOS_PARTS[int(i)] for i in rng.permutation(len(MULTITHUMOS_PARTS))[:2])
        middle = round(action.start + _uniform(rng, 0.35, 0.65) * (action.end - action.start), 2)
        parts += [Action(action.start, middle, first), Action(middle, action.end, second)]
    return tuple(parts)


ACTIVITYNET_CLASSES = (
    "Archery", "Ballet", "Cheerleading", "Hopscotch", "Long jump", "Paintball", "Snow tubing", "Zumba",
)  # fmt: skip


def write_activitynet(root: Path) -> None:
    """ActivityNet-1.3 (http://activity-net.org): `activity_net.v1-3.min.json` with version, taxonomy and
    database {id: subset, duration, resolution, url, annotations [{segment, label}]}.

    Blocked list: JSON list of ids. TSP features: zip of `v_{id}.npy`, stride 16 at 15 fps. CUHK classifier:
    {"results": {id: [probability per class]}, "class": [names]}.
    """
    recordings = _clips("activitynet", (112, 40, 4), ACTIVITYNET_CLASSES, (24.0, 200.0), (0.06, 0.24), (1, 3), 11)
    _write_classes(root / "activitynet/annotations/category_idx.txt", ACTIVITYNET_CLASSES)
    _write_json(
        root / "activitynet/annotations/activity_net.v1-3.min.json",
        {
            "database": {
                r.name: {
                    "subset": r.subset,
                    "annotations": _json_annotations(r, extra=i % 9 == 0),
                    "duration": r.duration,
                    "resolution": "320x240",
                    "url": f"https://www.youtube.com/watch?v={r.name}",
                }
                for i, r in enumerate(recordings)
            },
            "taxonomy": [
                {"parentName": "Root", "nodeName": label, "nodeId": i, "parentId": None}
                for i, label in enumerate(ACTIVITYNET_CLASSES)
            ],
            "version": "VERSION 1.3",
        },
    )
    validation = [r for r in recordings if r.subset == "validation"]
    _write_json(root / "activitynet/annotations/blocked.json", [validation[2].name, validation[7].name])
    missing = [recordings[4].name, validation[7].name]
    features = {
        r.name: _features(r, "tsp", _evenly(r, stride=16, fps=15), 24, noise=0.8)
        for r in recordings
        if r.name not in missing
    }
    folder = "anet_tsp_npy_unresize"
    _write_zip(root / f"activitynet/features/{folder}.zip", _archive(folder, features, prefix="v_", missing=missing))
    scores = {r.name: _probabilities(r, ACTIVITYNET_CLASSES) for r in validation}
    _write_json(
        root / "activitynet/classifiers/cuhk_val_simp_7.json", {"results": scores, "class": list(ACTIVITYNET_CLASSES)}
    )


HACS_CLASSES = (
    "Arm wrestling", "BMX", "Canoeing", "Disc dog", "Horseback riding", "Kite flying", "Sumo", "Windsurfing",
)  # fmt: skip


def write_hacs(root: Path) -> None:
    """HACS Segments v1.1.1 (https://github.com/hangzhaomit/HACS-dataset): `HACS_segments_v1.1.1.json`, the form of
    ActivityNet's file.

    SlowFast features of TCANet: zip of one npy per video, stride 8 at 15 fps. TCANet classifier: {"results": {id:
    [[logit per class]]}, "class": [names]}.
    """
    recordings = _clips("hacs", (112, 40, 4), HACS_CLASSES, (18.0, 80.0), (0.06, 0.2), (1, 3), 11)
    _write_classes(root / "hacs/annotations/category_idx.txt", HACS_CLASSES)
    _write_json(
        root / "hacs/annotations/HACS_segments_v1.1.1.json",
        {
            "version": "1.1.1",
            "database": {
                r.name: {
                    "duration": f"{r.duration:.6f}",
                    "url": f"https://www.youtube.com/watch?v={r.name}",
                    "subset": r.subset,
                    "annotations": _json_annotations(r, extra=i % 9 == 0),
                }
                for i, r in enumerate(recordings)
            },
        },
    )
    missing = [recordings[1].name]
    features = {
        r.name: _features(r, "slowfast-hacs", _at_frames(r, stride=8, offset=16, fps=15), 28, noise=0.8)
        for r in recordings
        if r.name not in missing
    }
    folder = "slowfast101_15fps_stride8_len32_hacs"
    _write_zip(root / f"hacs/features/{folder}.zip", _archive(folder, features, missing=missing))
    scores = {
        r.name: [[round(8 * p - 2, 4) for p in _probabilities(r, HACS_CLASSES)]]
        for r in recordings
        if r.subset == "validation"
    }
    _write_json(root / "hacs/classifiers/validation94.32.json", {"results": scores, "class": list(HACS_CLASSES)})


FINEACTION_CLASSES = (
    "apply_eyebrows", "beat_eggs", "cut_fruits", "high_jump_run_up", "play_the_harp", "row_boat", "throw_darts",
    "wash_hands",
)  # fmt: skip


def write_fineaction(root: Path) -> None:
    """FineAction (https://github.com/Richard-61/FineAction): `annotations_gt.json`, the form of ActivityNet's file,
    annotations with label_id.

    Two feature sets with stride 16 at the video's rate, a zip and a tar.gz of one npy per video. Standard classifier:
    {"results": {id: [probability per class]}, "classes": [names]}.
    """
    recordings = _clips("fineaction", (112, 40, 4), FINEACTION_CLASSES, (20.0, 110.0), (0.07, 0.26), (1, 3), 0)
    _write_classes(root / "fineaction/annotations/category_idx.txt", FINEACTION_CLASSES)
    _write_json(
        root / "fineaction/annotations/annotations_gt.json",
        {
            "version": "1.0",
            "database": {
                r.name: {
                    "filename": f"{r.name}.mp4",
                    "actual_frame_num": r.frames,
                    "subset": r.subset,
                    "duration": r.duration,
                    "annotations": [
                        {"label_id": FINEACTION_CLASSES.index(a["label"]), **a}
                        for a in _json_annotations(r, extra=i % 9 == 0)
                    ],
                }
                for i, r in enumerate(recordings)
            },
        },
    )
    missing = [recordings[2].name]
    for key, folder, dim in (
        ("videomae_h", "intervideo_mae_huge_k700_stride16_len16_fineaction", 20),
        ("videomaev2_g", "fineaction_mae_g", 22),
    ):
        features = {
            r.name: _features(r, key, _evenly(r, stride=16, fps=30), dim, noise=0.8)
            for r in recordings
            if r.name not in missing
        }
        members = _archive(folder, features, missing=missing)
        if key == "videomae_h":
            _write_zip(root / f"fineaction/features/{folder}.zip", members)
        else:
            _write_tar_gz(root / f"fineaction/features/{folder}.tar.gz", members)
    scores = {r.name: _probabilities(r, FINEACTION_CLASSES) for r in recordings if r.subset == "validation"}
    _write_json(
        root / "fineaction/classifiers/new_swinB_1x1x256_views2x3_max_label_avg_prob.json",
        {"results": scores, "classes": list(FINEACTION_CLASSES)},
    )


def _clips(
    dataset: str,
    counts: tuple[int, int, int],
    classes: Sequence[str],
    duration: tuple[float, float],
    length: tuple[float, float],
    actions: tuple[int, int],
    name_length: int,
) -> list[Recording]:
    """Training, validation and testing recordings of one class each."""
    rng = _generator(dataset)
    content = Content(
        classes, duration, actions, length, overlapping=False, decimals=2, relative_length=True, one_class=True
    )
    total = sum(counts)
    names = _names(rng, total, name_length, YOUTUBE) if name_length else [f"v_{i:08d}" for i in range(1, total + 1)]
    subsets = [s for s, n in zip(("training", "validation", "testing"), counts, strict=True) for _ in range(n)]
    return [_draw(rng, name, subset, 30.0, content) for name, subset in zip(names, subsets, strict=True)]


def _json_annotations(recording: Recording, *, extra: bool) -> list[dict[str, Any]]:
    """Annotations as in ActivityNet's file; `extra` adds a duplicate and a segment below 1 % of the duration."""
    if recording.subset == "testing":
        return []
    annotations: list[dict[str, Any]] = [{"segment": [a.start, a.end], "label": a.label} for a in recording.actions]
    if extra:
        start = recording.actions[0].start
        annotations.append(dict(annotations[0]))
        annotations.append(
            {"segment": [start, round(start + 0.005 * recording.duration, 2)], "label": annotations[0]["label"]}
        )
    return annotations


def _probabilities(recording: Recording, classes: Sequence[str]) -> list[float]:
    """Probabilities of an imperfect classifier: right in about nine of ten videos."""
    rng = _generator(f"classifier/{recording.name}")
    weights = [float(rng.integers(1, 10)) for _ in classes]
    truth = classes.index(recording.actions[0].label)
    best = truth if int(rng.integers(10)) else int(rng.integers(len(classes)))
    weights[best] += 60.0
    weights[truth] += 15.0
    return [round(w / sum(weights), 6) for w in weights]


EPIC_VERBS = {
    0: "take", 1: "put", 2: "wash", 3: "open", 4: "close", 6: "turn-on", 7: "cut", 9: "mix", 10: "pour", 15: "throw",
}  # fmt: skip
EPIC_NOUNS = {
    0: "tap", 1: "spoon", 2: "plate", 3: "cupboard", 4: "knife", 7: "onion", 8: "hob", 12: "lid", 17: "bin",
    20: "sponge", 31: "bread", 55: "kettle",
}  # fmt: skip


def write_epic(root: Path) -> None:
    """EPIC-KITCHENS-100 (https://github.com/epic-kitchens/epic-kitchens-100-annotations): `EPIC_100_train.csv`,
    `EPIC_100_validation.csv` and `EPIC_100_video_info.csv`, in the columns written below.

    SlowFast features: zip of one npy per video, stride 16 at 30 fps, `missing_files.txt` inside.
    """
    rng = _generator("epic")
    pairs = [f"{verb}/{noun}" for verb in EPIC_VERBS for noun in EPIC_NOUNS]
    content = Content(pairs, (40.0, 150.0), (8, 13), (2.5, 7.0), overlapping=True, decimals=2)
    names = [f"P{1 + i // 6:02d}_{1 + i % 6:02d}" for i in range(48)]
    recordings = [
        _draw(
            rng,
            name,
            "validation" if i % 3 == 2 else "train",
            59.94 if i % 4 else 50.0,
            content,
            175.0 if i % 12 == 5 else None,
        )
        for i, name in enumerate(names)
    ]
    columns = (
        "narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp",
        "start_frame", "stop_frame", "narration", "verb", "verb_class", "noun", "noun_class", "all_nouns",
        "all_noun_classes",
    )  # fmt: skip
    for subset in ("train", "validation"):
        rows = []
        for r in recordings:
            if r.subset != subset:
                continue
            for i, a in enumerate(r.actions):
                verb, noun = (int(part) for part in a.label.split("/"))
                start, stop = _timestamp(a.start), _timestamp(a.end)
                rows.append((
                    f"{r.name}_{i}", r.name[:3], r.name, start, start, stop, int(a.start * r.fps) + 1,
                    int(a.end * r.fps) + 1, f"{EPIC_VERBS[verb]} {EPIC_NOUNS[noun]}", EPIC_VERBS[verb], verb,
                    EPIC_NOUNS[noun], noun, f"['{EPIC_NOUNS[noun]}']", f"[{noun}]",
                ))  # fmt: skip
            if r.name == names[0]:
                rows.append(rows[-1])  # the real file has exact duplicates, too
        _write_csv(root / f"epic/annotations/EPIC_100_{subset}.csv", columns, rows)
    _write_csv(
        root / "epic/annotations/EPIC_100_video_info.csv",
        ("video_id", "duration", "fps", "resolution"),
        [(r.name, r.duration, r.fps, "1920x1080") for r in recordings],
    )
    for field, labels in (("verb", EPIC_VERBS), ("noun", EPIC_NOUNS)):
        ids = [f"id_{i:03d}" for i in labels]
        _write_classes(root / f"epic/annotations/category_idx_{field}.txt", ids)
    missing = [names[7]]
    shown = [replace(r, actions=tuple(_both(r.actions))) for r in recordings if r.name not in missing]
    features = {
        r.name: _features(r, "slowfast-epic", _at_frames(r, stride=16, offset=16, fps=30), 32, noise=1.1) for r in shown
    }
    folder = "slowfast_fps30_stride16_clip32"
    _write_zip(root / f"epic/features/{folder}.zip", _archive(folder, features, missing=missing))


def _both(actions: Sequence[Action]) -> list[Action]:
    """A verb and a noun for every action `verb/noun`."""
    shown = []
    for action in actions:
        verb, noun = action.label.split("/")
        shown += [replace(action, label=f"verb {verb}"), replace(action, label=f"noun {noun}")]
    return shown


def _timestamp(seconds: float) -> str:
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 100:02d}.{rest % 100:02d}"


EGO4D_CLASSES = (
    "clean_/_wipe_a_table_or_kitchen_counter", "climb_up_/_down_a_ladder", "converse_/_interact_with_someone",
    "cut_dough", "dig_or_till_the_soil_by_hand", "drink_beverage", "fold_clothes_/_sheets",
    "hang_clothes_in_closet_/_on_hangers", "iron_clothes_or_sheets", "look_at_clothes_in_the_mirror",
    "play_board_game_or_card_game", "put_on_safety_equipment_(e.g._gloves,_helmet,_safety_goggles)",
    "read_a_book_/_magazine_/_shopping_list_etc.", "turn-on_/_light_the_stove_burner", "use_phone",
    "walk_down_stairs_/_walk_up_stairs", "wash_hands", "water_soil_/_plants_/_crops",
)  # fmt: skip


def write_ego4d(root: Path) -> None:
    """Ego4D Moment Queries (https://ego4d-data.org/docs/data/annotations-schemas): `moments_train.json`,
    `moments_val.json`: videos > clips > annotations (one per annotator) > labels, primary or not.

    Three feature sets, each a zip of one npy per clip_uid; no list of missing videos.
    """
    rng = _generator("ego4d")
    content = Content(EGO4D_CLASSES, (60.0, 132.0), (4, 8), (4.0, 18.0), overlapping=True, decimals=2)
    count = 96
    uids = ["-".join(_names(rng, 1, n, HEX)[0] for n in (8, 4, 4, 4, 12)) for _ in range(2 * count)]
    clips = [
        _draw(rng, uids[i], "val" if i % 4 == 3 else "train", 30.0, content, 230.0 if i % 14 == 7 else None)
        for i in range(count)
    ]
    for subset in ("train", "val"):
        videos = []
        for i, clip in enumerate(clips):
            if clip.subset == subset:
                begin = round(_uniform(rng, 0, 900), 1)
                videos.append({
                    "video_uid": uids[count + i],
                    "split": subset,
                    "clips": [_ego4d_clip(rng, clip, begin)],
                })  # fmt: skip
        _write_json(
            root / f"ego4d/annotations/moments_{subset}.json",
            {
                "version": "v2",
                "date": "220429",
                "description": "Ego4D Moments Annotations (synthetic demo)",
                "manifest": "",
                "videos": videos,
            },
        )
    _write_classes(root / "ego4d/annotations/category_idx.txt", EGO4D_CLASSES)
    for key, dim, stride, offset in (
        ("mq_slowfast", 24, 16, 16),
        ("mq_egovlp", 16, 16, 8),
        ("videomae_large_internvideo_img256_stride8_len16_interval1_ego4d", 20, 8, 4),
    ):
        features = {
            clip.name: _features(clip, key, _at_frames(clip, stride=stride, offset=offset, fps=30), dim, noise=0.8)
            for clip in clips[:-1]
        }
        _write_zip(root / f"ego4d/features/{key}.zip", _archive(key, features))


def _ego4d_clip(rng: Generator, clip: Recording, begin: float) -> dict[str, Any]:
    labels: list[dict[str, Any]] = [_ego4d_label(a, begin, primary=True) for a in clip.actions]
    second = [_ego4d_label(a, begin, primary=False) for a in clip.actions[: int(rng.integers(3))]]
    return {
        "clip_uid": clip.name,
        "source_clip_uid": clip.name,
        "video_start_sec": begin,
        "video_end_sec": begin + clip.duration,
        "video_start_frame": round(begin * 30),
        "video_end_frame": round(begin * 30) + clip.frames,
        "clip_start_sec": 0,
        "clip_end_sec": clip.duration,
        "clip_start_frame": 0,
        "clip_end_frame": clip.frames,
        "annotations": [
            {"annotator_uid": "0", "labels": labels[::2] + second},
            {"annotator_uid": "1", "labels": labels[1::2]},
        ],
    }


def _ego4d_label(action: Action, begin: float, *, primary: bool) -> dict[str, Any]:
    return {
        "label": action.label,
        "primary": primary,
        "start_time": action.start,
        "end_time": action.end,
        "start_frame": round(action.start * 30),
        "end_frame": round(action.end * 30),
        "video_start_time": begin + action.start,
        "video_end_time": begin + action.end,
        "video_start_frame": round((begin + action.start) * 30),
        "video_end_frame": round((begin + action.end) * 30),
    }


CHARADES_CLASSES = {
    "c000": "Holding some clothes", "c006": "Closing a door", "c008": "Opening a door", "c011": "Sitting at a table",
    "c015": "Holding a phone/camera", "c020": "Holding a bag", "c026": "Holding a book", "c032": "Reading a book",
    "c033": "Holding a towel/s", "c047": "Holding a laptop", "c059": "Sitting in a chair",
    "c061": "Holding some food", "c092": "Lying on a bed", "c097": "Walking through a doorway",
    "c106": "Drinking from a cup/glass/bottle", "c118": "Holding a dish", "c123": "Sitting on sofa/couch",
    "c147": "Someone is cooking something", "c149": "Someone is laughing",
    "c151": "Someone is going from standing to sitting", "c154": "Someone is standing up from somewhere",
    "c156": "Someone is eating something",
}  # fmt: skip


def write_charades(root: Path) -> None:
    """Charades (https://prior.allenai.org/projects/charades): `Charades_v1_train.csv`, `Charades_v1_test.csv` in the
    columns written below, `Charades_v1_classes.txt` with `c000 Holding some clothes`.

    I3D features (stride 8 at 24 fps, `missing_files.txt` inside) and VideoMAE-L features (stride 4 at 30 fps), each a
    zip of one npy per video.
    """
    rng = _generator("charades")
    content = Content(tuple(CHARADES_CLASSES), (8.0, 26.0), (2, 5), (3.0, 9.0), overlapping=True, decimals=2)
    names = _names(rng, 120, 5, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    recordings = [
        _draw(rng, name, "test" if i % 3 == 2 else "train", 30.0, content, 95.0 if i in (10, 11) else None)
        for i, name in enumerate(names)
    ]
    columns = (
        "id", "subject", "scene", "quality", "relevance", "verified", "script", "objects", "descriptions",
        "actions", "length",
    )  # fmt: skip
    for subset in ("train", "test"):
        rows = []
        for i, r in enumerate(recordings):
            if r.subset != subset:
                continue
            actions = [f"{a.label} {a.start:.2f} {a.end:.2f}" for a in r.actions]
            if i % 20 == 0:
                actions.append(actions[0])
                actions.append(f"{r.actions[-1].label} {r.duration - 1:.2f} {r.duration + 2:.2f}")
            if i == 8:
                actions = []
            rows.append(
                (
                    r.name,
                    "ABCD",
                    "Kitchen",
                    6,
                    7,
                    "Yes",
                    "A person moves.",
                    "cup",
                    "A person moves.",
                    ";".join(actions),
                    r.duration,
                )
            )
        _write_csv(root / f"charades/annotations/Charades_v1_{subset}.csv", columns, rows)
    write_text(
        root / "charades/annotations/Charades_v1_classes.txt",
        "".join(f"{label} {text}\n" for label, text in CHARADES_CLASSES.items()),
    )
    _write_classes(root / "charades/annotations/category_idx.txt", list(CHARADES_CLASSES))
    missing = [names[6]]
    for key, folder, stride, offset, fps, listed in (
        ("i3d-charades", "i3d_charades_finetuned_stride8", 8, 0, 24, missing),
        ("videomae_l", "videomae-large_16x4x1_img224_stride4_len16_interval1_charades_30fps", 4, 2, 30, None),
    ):
        features = {
            r.name: _features(r, key, _at_frames(r, stride=stride, offset=offset, fps=fps), 32, noise=0.5)
            for r in recordings
            if r.name not in missing
        }
        _write_zip(root / f"charades/features/{folder}.zip", _archive(folder, features, missing=listed))


def write_all(root: Path) -> None:
    """The files of all eight data sets under `root`, as `data/demo` holds them."""
    for write in (
        write_thumos, write_activitynet, write_hacs, write_fineaction, write_epic, write_ego4d, write_charades,
    ):  # fmt: skip
        write(root)
