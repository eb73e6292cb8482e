"""The one database that every publisher's annotations become: load, save, audit.

    {"database": {video: {"subset", "duration" (s), "frame" (optional), "annotations": [{"segment":
    [s, e], "label"}]}},
     "classes": [...],     optional: published class order; a mapping label field -> list where there are several
     "blocked": [...]}     optional: videos that the published evaluation leaves out

Times are seconds. EPIC's annotations carry `noun` and `verb` instead of `label` (METHOD section 4).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.files import file_md5, read_json, write_json

AMBIGUOUS = "Ambiguous"
MANY = 0.05
"""share of the evaluated videos without features from which an audit fails"""


@dataclass(frozen=True)
class Video:
    """Annotated segments (N, 2) of one video in seconds, in annotation order, with their labels."""

    name: str
    subset: str
    duration: float
    frame: float | None
    segments_G2: NDArray[np.float64]
    labels: tuple[str, ...]

    def fps(self, fixed: float | None) -> float:
        """`fixed`, or frames / duration."""
        if fixed is not None:
            return fixed
        if self.frame is None:
            raise InputError(
                f"video '{self.name}' has no 'frame' in the database; give the feature set an 'fps'"
            )
        return self.frame / self.duration


@dataclass(frozen=True)
class Database:
    """All videos of a data set, the class order and the blocked list."""

    videos: Mapping[str, Video]
    classes: tuple[str, ...]
    blocked: frozenset[str] = field(default_factory=frozenset)

    def subset(self, name: str) -> list[Video]:
        """Videos of a subset (by equality), in database order."""
        return [video for video in self.videos.values() if video.subset == name]


def load_database(
    source: Path | str | Mapping[str, Any], label_field: str = "label", where: Path | None = None
) -> Database:
    """Read a database file, or the mapping that such a file holds; `where` names the mapping's
    origin in messages.

    `Ambiguous` is removed. Class order: the published list where the file has one, otherwise the
    labels that occur in any subset, sorted by code point.

    Raises:
        InputError: a missing key, a NaN or infinite time, a duration that is not positive, a label
            that is not in the published class list.
    """
    origin = str(where or ("database" if isinstance(source, Mapping) else source))
    content = source if isinstance(source, Mapping) else read_json(Path(source))
    if not isinstance(content, Mapping) or not isinstance(content.get("database"), Mapping):
        raise InputError(f"{origin}: expected a JSON object with the key 'database'")
    videos = {
        name: _video(name, entry, label_field, origin)
        for name, entry in content["database"].items()
    }
    published = content.get("classes")
    if isinstance(published, Mapping):
        published = published.get(label_field)
    occurring = {label for video in videos.values() for label in video.labels}
    if published is None:
        classes = tuple(sorted(occurring))
    else:
        classes = tuple(label for label in published if label != AMBIGUOUS)
        unknown = occurring - set(classes)
        if unknown:
            label = min(unknown)
            video = next(v.name for v in videos.values() if label in v.labels)
            raise InputError(
                f"{origin}: video '{video}' has label '{label}', which is not in the class list"
            )
    blocked = content.get("blocked", [])
    if not isinstance(blocked, list) or not all(isinstance(name, str) for name in blocked):
        raise InputError(f"{origin}: the blocked list is no list of video names")
    return Database(videos, classes, frozenset(blocked))


def _video(name: str, entry: Any, label_field: str, origin: str) -> Video:
    where = f"{origin}: video '{name}'"
    try:
        subset, duration = str(entry["subset"]), float(entry["duration"])
        frame = None if entry.get("frame") is None else float(entry["frame"])
        annotations = entry.get("annotations", [])
        labels = [str(a[label_field] if label_field in a else a["label"]) for a in annotations]
        segments = [(float(a["segment"][0]), float(a["segment"][1])) for a in annotations]
    except KeyError as error:
        others = [
            key for key in ("noun", "verb") if any(key in a for a in entry.get("annotations", []))
        ]
        hint = f"; it has {' and '.join(others)}: say which as label field" if others else ""
        raise InputError(f"{where} lacks the key {error}{hint}") from None
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{where} is malformed: {error}") from None
    if not (math.isfinite(duration) and duration > 0):
        raise InputError(f"{where} has duration {duration}, expected seconds above 0")
    if frame is not None and not (math.isfinite(frame) and frame > 0):
        raise InputError(f"{where} has {frame} frames, expected a number above 0")
    kept = [i for i, label in enumerate(labels) if label != AMBIGUOUS]
    segments_G2 = np.array([segments[i] for i in kept], dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(segments_G2).all():
        bad = segments_G2[~np.isfinite(segments_G2).all(1)][0].tolist()
        raise InputError(f"{where} has the segment {bad}; times must be finite seconds")
    return Video(name, subset, duration, frame, segments_G2, tuple(labels[i] for i in kept))


def manifest_path(database: Path) -> Path:
    """The manifest beside a database file: its md5, and those of the raw files it was made from."""
    return database.with_suffix(".manifest.json")


def save_database(
    path: Path,
    content: Mapping[str, Any],
    *,
    label_fields: Sequence[str] = ("label",),
    sources: Callable[[], Mapping[str, str]],
    made_with: Callable[[Mapping[str, str]], Mapping[str, Any]] = dict,
) -> None:
    """Write a database file and its manifest.

    Args:
        sources: gives the md5s of the raw files.
        made_with: gives, from those, the record of what the database is made with.

    Raises:
        InputError: what `load_database` raises, and a segment that ends before it starts.
    """
    for label_field in label_fields:
        for video in load_database(content, label_field, path).videos.values():
            _refuse_reversed(video, path)
    write_json(path, content, indent=None)
    md5s = dict(sources())
    write_json(
        manifest_path(path),
        {"md5": file_md5(path), "sources": md5s, "made_with": dict(made_with(md5s))},
    )


def _refuse_reversed(video: Video, path: Path) -> None:
    backwards = video.segments_G2[video.segments_G2[:, 1] < video.segments_G2[:, 0]]
    if len(backwards):
        raise InputError(
            f"{path}: video '{video.name}' has the reversed segment {backwards[0].tolist()}"
        )


# ------------------------------------------------------------------------------------------- audit


@dataclass(frozen=True)
class Audit:
    """What an audit found: `errors` make a number wrong, `notes` are worth knowing, `facts` are
    counts.
    """

    facts: dict[str, Any]
    errors: list[str]
    notes: list[str]

    def text(self) -> str:
        lines = [f"{self.facts['classes']} classes"]
        for subset, counts in self.facts["subsets"].items():
            published = f" (published: {counts['published']})" if counts.get("published") else ""
            lines.append(
                f"{subset}: {counts['videos']} videos, {counts['instances']} instances{published}"
            )
            if counts["blocked"]:
                lines.append(f"  of these blocked in evaluation: {counts['blocked']} videos")
        lines += [f"note: {note}" for note in self.notes] + [
            f"error: {error}" for error in self.errors
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {"facts": self.facts, "notes": self.notes, "errors": self.errors}

    def raise_errors(self, where: str) -> None:
        """One line with the first error, if there is one."""
        if self.errors:
            more = f" (and {len(self.errors) - 1} more)" if self.errors[1:] else ""
            raise InputError(f"{where}: {self.errors[0]}{more}")


def audit(
    database: Database,
    *,
    train_subset: str,
    eval_subset: str,
    feature_lengths: Mapping[str, int] | None = None,
    stride: float | None = None,
    fps: float | None = None,
    num_classes: int | None = None,
    class_order: Sequence[str] | None = None,
    published: Mapping[str, tuple[int | None, int | None]] | None = None,
    listed_missing: Sequence[str] = (),
    names_blocked: bool = False,
) -> Audit:
    """Check a database against itself, its features and what is published of it.

    Args:
        feature_lengths: video -> steps; `stride` (frames) and `fps` (None: the video's own) say how
            many to expect.
        class_order: the published class list.
        listed_missing: videos that the features' publisher lists as missing.
        names_blocked: whether the params name a blocked list.
        published: subset -> (videos, instances); another count in `eval_subset` is an error.
    """
    errors, notes = [], []
    if num_classes is not None and num_classes != len(database.classes):
        errors.append(f"{len(database.classes)} classes, params say {num_classes}")
    if class_order is not None and tuple(class_order) != database.classes:
        pairs = zip_longest(class_order, database.classes)
        index, listed, found = next((i, a, b) for i, (a, b) in enumerate(pairs) if a != b)
        errors.append(f"class {index} is '{found}', in the published list '{listed}'")

    if database.classes != tuple(sorted(database.classes)):
        notes.append("the class order is that of a list, not by code point")
    if names_blocked and not database.blocked:
        notes.append("the params name a blocked list, but no video is blocked")

    subsets: dict[str, dict[str, Any]] = {}
    for name in sorted({*(video.subset for video in database.videos.values()), *(published or {})}):
        videos = database.subset(name)
        per_class = Counter(label for video in videos for label in video.labels)
        subsets[name] = {
            "videos": len(videos),
            "instances": sum(per_class.values()),
            "blocked": sum(video.name in database.blocked for video in videos),
            "videos_without_ground_truth": sum(not video.labels for video in videos),
            "instances_per_class": {
                label: per_class[label] for label in database.classes if per_class[label]
            },
        }
    for name in dict.fromkeys((train_subset, eval_subset)):
        counts = subsets.get(name)
        if counts is None or not counts["instances"]:
            there = sorted({video.subset for video in database.videos.values()})
            errors.append(
                f"subset '{name}' has no ground truth; subsets of the file: {', '.join(there) or 'none'}"
            )
            continue
        without = len(database.classes) - len(counts["instances_per_class"])
        if without:
            notes.append(f"{without} classes have no instance in '{name}'")
        if counts["videos_without_ground_truth"]:
            notes.append(
                f"{counts['videos_without_ground_truth']} videos of '{name}' have no ground truth"
            )
    for name, expected in (published or {}).items():
        found = (subsets[name]["videos"], subsets[name]["instances"])
        subsets[name]["published"] = " / ".join("?" if n is None else str(n) for n in expected)
        if any(wanted not in (None, count) for wanted, count in zip(expected, found, strict=True)):
            said = f"{found[0]} videos and {found[1]} instances in '{name}', published are {subsets[name]['published']}"
            if name == eval_subset:
                errors.append(
                    f"{said}: numbers would not compare; if it is meant, set the data set's `published`"
                )
            else:
                notes.append(said)

    findings = _findings(database, errors)
    notes += [f"{count} {what}" for what, count in findings.items() if count]
    if feature_lengths is not None:
        used = [
            video
            for name in dict.fromkeys((train_subset, eval_subset))
            for video in database.subset(name)
        ]
        evaluated = [
            video for video in database.subset(eval_subset) if video.name not in database.blocked
        ]
        absent, odd = _feature_notes(database, used, feature_lengths, stride, fps, notes)
        if used and len(absent) == len(used):
            errors.append("no video has features; check the feature set's prefix")
        lost = sorted({v.name for v in evaluated if v.labels} & absent - set(listed_missing))
        if len(lost) > MANY * len(evaluated):
            errors.append(
                f"{len(lost)} of {len(evaluated)} evaluated videos lack features, and neither their publisher nor the "
                f"blocked list names them: {_some(lost)}; their ground truth would count as missed"
            )
        if len(odd) > 0.5 * (len(used) - len(absent)):
            errors.append(
                f"most features have another length than their videos, such as {odd[0]}: check stride and fps"
            )
    return Audit(
        {"classes": len(database.classes), "subsets": subsets, "findings": findings}, errors, notes
    )


def _findings(database: Database, errors: list[str]) -> dict[str, int]:
    """How many odd segments there are, by kind; reversed ones are errors."""
    findings: Counter[str] = Counter()
    for video in database.videos.values():
        start_G, end_G = video.segments_G2.T
        if (end_G < start_G).any():
            segment = video.segments_G2[end_G < start_G][0].tolist()
            errors.append(f"video '{video.name}' has the reversed segment {segment}")
        findings["segments of zero length"] += int((end_G == start_G).sum())
        findings["segments that start after their video's end"] += int(
            (start_G >= video.duration).sum()
        )
        findings["segments that end after their video's end"] += int((end_G > video.duration).sum())
        findings["segments that start before 0"] += int((start_G < 0).sum())
        keys = [
            (s, e, label)
            for (s, e), label in zip(video.segments_G2.tolist(), video.labels, strict=True)
        ]
        findings["exact duplicates"] += len(keys) - len(set(keys))
    return dict(findings)


def _feature_notes(
    database: Database,
    used: Sequence[Video],
    lengths: Mapping[str, int],
    stride: float | None,
    fps: float | None,
    notes: list[str],
) -> tuple[set[str], list[str]]:
    """Notes videos without features, features without a video and odd lengths; returns the first
    and the last.
    """
    absent = {video.name for video in used if video.name not in lengths}
    if absent:
        notes.append(f"{len(absent)} videos without features: {_some(sorted(absent))}")
    extra = sorted(set(lengths) - set(database.videos))
    if extra:
        notes.append(f"{len(extra)} features without a video: {_some(extra)}")
    odd = []
    for video in used:
        frames = video.frame if fps is None else video.duration * fps
        if stride is not None and frames is not None and video.name in lengths:
            expected = frames / stride
            # a clip at either end, or a rounded rate, is no fault
            if abs(lengths[video.name] - expected) > max(8, 0.05 * expected):
                odd.append(f"{video.name} ({lengths[video.name]} steps, {expected:.0f} expected)")
    if odd:
        notes.append(f"{len(odd)} features of another length than their video: {_some(odd)}")
    return absent, odd


def _some(names: Sequence[str]) -> str:
    """The first few of a list."""
    return ", ".join(names[:5]) + (", ..." if names[5:] else "")
