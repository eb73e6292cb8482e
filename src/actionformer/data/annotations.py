"""The one database that every publisher's annotations become: its types, checks and file.

    {"database": {video: {"subset", "duration", "frame" (optional),
                          "annotations": [{"segment": [start, end], "label"}]}},
     "classes": [...],     optional: published class order; a mapping label field -> list where
                           there are several
     "blocked": [...]}     optional: videos that the published evaluation leaves out

Times are seconds. EPIC's annotations carry `noun` and `verb` instead of `label` (METHOD section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.files.values import items_of, number, text_of
from actionformer.files.writing import write_json

# THUMOS-14's label for stretches that the challenge leaves out; no published row counts it
AMBIGUOUS = "Ambiguous"


@dataclass(frozen=True)
class Video:
    """Annotated segments (G, 2) of one video in seconds, in annotation order, with their labels."""

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
            lacks = "has no 'frame' in the database; give the feature set an 'fps'"
            raise InputError(f"video '{self.name}' {lacks}")
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

    def first(self, count: int | None) -> Database:
        """The first videos of every subset by name, without blocked ones; None: all videos."""
        if count is None:
            return self
        kept: set[str] = set()
        for subset in {video.subset for video in self.videos.values()}:
            names = {video.name for video in self.subset(subset)} - self.blocked
            kept.update(sorted(names)[:count])
        videos = {name: video for name, video in self.videos.items() if name in kept}
        return Database(videos, self.classes, self.blocked)


def load_database(
    source: Path | str | Mapping[str, Any],
    label_field: str = "label",
    where: Path | str | None = None,
) -> Database:
    """Read a database file, or the mapping that such a file holds.

    `Ambiguous` is removed. Class order: the published list where the file has one, otherwise the
    labels that occur in any subset, sorted by code point.

    Args:
        where: the mapping's origin, for messages.

    Raises:
        InputError: a missing key, a time that is no finite number, a segment that ends before it
            starts, a duration that is not positive, a label that is not in the published class
            list.
    """
    origin = str(where or ("database" if isinstance(source, Mapping) else source))
    content = source if isinstance(source, Mapping) else read_object(Path(source))
    if not isinstance(content.get("database"), Mapping):
        raise InputError(f"{origin}: expected a JSON object with the key 'database'")
    videos = {}
    for name, entry in content["database"].items():
        videos[name] = _video(name, entry, label_field, origin)
    published = content.get("classes")
    if isinstance(published, Mapping):
        published = published.get(label_field)
    if published is not None:
        published = _class_names(published, origin)
    classes = _classes(videos, published, origin)
    blocked = content.get("blocked", [])
    if not isinstance(blocked, list) or not all(isinstance(name, str) for name in blocked):
        raise InputError(f"{origin}: the blocked list is no list of video names")
    return Database(videos, classes, frozenset(blocked))


def _classes(
    videos: Mapping[str, Video], published: Sequence[str] | None, origin: str
) -> tuple[str, ...]:
    """The class order: the published one, which has to name every label, or by code point."""
    first_video: dict[str, str] = {}
    for video in videos.values():
        for label in video.labels:
            first_video.setdefault(label, video.name)
    if published is None:
        return tuple(sorted(first_video))
    classes = tuple(label for label in published if label != AMBIGUOUS)
    unknown = set(first_video) - set(classes)
    if unknown:
        label = min(unknown)
        has = f"video '{first_video[label]}' has label '{label}'"
        raise InputError(f"{origin}: {has}, which is not in the class list")
    return classes


def _class_names(published: Any, origin: str) -> list[str]:
    try:
        names = [text_of(name) for name in items_of(published)]
    except ValueError as error:
        raise InputError(f"{origin}: its classes are no list of names ({error})") from None
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{origin}: class {twice[0]!r} occurs twice")
    return names


def _video(name: str, entry: Any, label_field: str, origin: str) -> Video:
    where = f"{origin}: video '{name}'"
    labels, segments = [], []
    try:
        subset, duration = text_of(entry["subset"], empty=True), number(entry["duration"])
        frame = None if entry.get("frame") is None else number(entry["frame"])
        for annotation in items_of(annotations_of(entry)):
            # a database of one field may call it 'label' whatever the row calls it
            field_there = label_field if label_field in annotation else "label"
            label = text_of(annotation[field_there])
            start, end = map(number, items_of(annotation["segment"]))
            if end < start:
                raise ValueError(f"reversed segment [{start}, {end}]")
            if label != AMBIGUOUS:
                labels.append(label)
                segments.append((start, end))
    except KeyError as error:
        raise InputError(f"{where} lacks the key {error}{_other_fields(entry)}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where} is malformed: {error}") from None
    if duration <= 0:
        raise InputError(f"{where} has duration {duration}, expected seconds above 0")
    if frame is not None and frame <= 0:
        raise InputError(f"{where} has {frame} frames, expected a number above 0")
    segments_G2 = np.array(segments, dtype=np.float64).reshape(-1, 2)
    return Video(name, subset, duration, frame, segments_G2, tuple(labels))


def annotations_of(entry: Mapping[str, Any]) -> Any:
    """What a video's entry has of annotations; a misspelt key must not pass for none."""
    if "annotations" in entry:
        return entry["annotations"]
    for key, value in entry.items():
        if isinstance(value, list) and value and _has_segment(value[0]):
            raise ValueError(f"it has no 'annotations', but {key!r}; rename that")
    return []


def _has_segment(item: Any) -> bool:
    return isinstance(item, Mapping) and "segment" in item


def _other_fields(entry: Any) -> str:
    """A hint where annotations have other label fields than the one asked for."""
    found = []
    annotations = entry.get("annotations", []) if isinstance(entry, Mapping) else []
    for field_name in ("noun", "verb"):
        if any(field_name in annotation for annotation in annotations):
            found.append(field_name)
    return f"; it has {' and '.join(found)}: say which as label field" if found else ""


def manifest_path(database: Path) -> Path:
    """The manifest beside a database file: its md5, and those of the raw files it was made from."""
    return database.with_suffix(".manifest.json")


def save_database(
    path: Path,
    content: Mapping[str, Any],
    *,
    origin: str,
    label_fields: Sequence[str] = ("label",),
    sources: Callable[[], Mapping[str, str]],
    made_with: Callable[[Mapping[str, str]], Mapping[str, Any]] = dict,
) -> None:
    """Write a database file and its manifest.

    Args:
        origin: the publisher's files, for messages.
        sources: gives the md5s of the raw files.
        made_with: gives, from those, the record of what the database is made with.

    Raises:
        InputError: what `load_database` raises.
    """
    # read back as a row will read it, before it takes the place of another
    for label_field in label_fields:
        load_database(content, label_field, origin)
    write_json(path, content, indent=None)
    md5s = dict(sources())
    manifest = {"md5": file_md5(path), "sources": md5s, "made_with": dict(made_with(md5s))}
    write_json(manifest_path(path), manifest)
