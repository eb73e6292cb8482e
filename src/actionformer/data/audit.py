"""A database held against itself, its features, and what is published of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from actionformer.data.annotations import Database, Video
from actionformer.data.extracted import Description
from actionformer.errors import InputError

# share of the evaluated videos without features from which an audit fails
MANY = 0.05
# share of the videos with features of another length than theirs from which it fails
MANY_ODD = 0.5
# how many steps, or which share of them, a length may differ
ODD_STEPS, ODD_SHARE = 8, 0.05
# by how many seconds, or which share of the rate, features may disagree with annotations
ODD_SECONDS, ODD_RATE = 1.0, 0.02

# how many labels are named where there are too many of them
RAREST = 3
# how many features are compared with the names of videos
LOOKED_AT = 200

# subset -> videos and instances; None where one is not known
Published = Mapping[str, tuple[int | None, int | None]]


@dataclass
class Audit:
    """What an audit found."""

    # counts
    facts: dict[str, Any] = field(default_factory=dict)
    # what makes a number wrong
    errors: list[str] = field(default_factory=list)
    # what is worth knowing
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """All of it, in lines."""
        lines = [f"{self.facts['classes']} classes"]
        for subset, counts in self.facts["subsets"].items():
            line = f"{subset}: {counts['videos']} videos, {counts['instances']} instances"
            if counts.get("published"):
                line += f" (published: {counts['published']})"
            lines.append(line)
            if counts["blocked"]:
                lines.append(f"  of these blocked in evaluation: {counts['blocked']} videos")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"error: {error}" for error in self.errors]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """As the file of an audit has it."""
        return {"facts": self.facts, "notes": self.notes, "errors": self.errors}

    def raise_errors(self, where: str) -> None:
        """One line with the first error, if there is one."""
        if self.errors:
            more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
            raise InputError(f"{where}: {self.errors[0]}{more}")


def audit(
    database: Database,
    *,
    train_subset: str,
    eval_subset: str,
    feature_lengths: Mapping[str, int] | None = None,
    described: Mapping[str, Description] | None = None,
    stride: float | None = None,
    fps: float | None = None,
    num_classes: int | None = None,
    class_order: Sequence[str] | None = None,
    published: Published | None = None,
    listed_missing: Sequence[str] = (),
    names_blocked: bool = False,
) -> Audit:
    """Check a database against itself, its features and what is published of it.

    Args:
        feature_lengths: video -> steps; `stride` (frames) and `fps` (None: the video's own) say how
            many to expect.
        described: video -> what its features say of themselves, of those that do.
        class_order: the published class list.
        listed_missing: videos that the features' publisher lists as missing.
        names_blocked: whether the params name a blocked list.
        published: another count in `eval_subset` is an error.
    """
    found = Audit()
    published = {} if published is None else published
    used = list(dict.fromkeys((train_subset, eval_subset)))
    _check_classes(found, database, num_classes, class_order)
    if names_blocked and not database.blocked:
        found.notes.append("the params name a blocked list, but no video is blocked")
    subsets = _subsets(database, published)
    for name in used:
        _check_subset(found, database, name, subsets.get(name))
    for name, expected in published.items():
        _check_published(found, name, subsets[name], expected, is_evaluated=name == eval_subset)
    oddities = _oddities(found, database)
    for what, count in oddities.items():
        if count:
            found.notes.append(f"{count} {what}")
    if feature_lengths is not None:
        videos = [video for name in used for video in database.subset(name)]
        absent = _check_presence(found, database, videos, feature_lengths)
        _check_lost(found, database, eval_subset, absent - set(listed_missing))
        _check_lengths(found, videos, feature_lengths, stride, fps)
        _check_described(found, videos, described or {}, fps)
    found.facts = {
        "classes": len(database.classes),
        "subsets": subsets,
        "findings": oddities,
    }
    return found


# ----------------------------------------------------------------------------- classes and counts


def _check_classes(
    found: Audit,
    database: Database,
    num_classes: int | None,
    class_order: Sequence[str] | None,
) -> None:
    classes = database.classes
    if num_classes is not None and num_classes != len(classes):
        wrong = f"{len(classes)} classes, params say {num_classes}"
        found.errors.append(f"{wrong}; {_rarest(database)}")
    if class_order is not None:
        for i, (listed, label) in enumerate(zip_longest(class_order, classes)):
            if listed != label:
                wrong = f"class {i} is '{label}', in the published list '{listed}'"
                found.errors.append(wrong)
                break
    if classes != tuple(sorted(classes)):
        found.notes.append("the class order is that of a list, not by code point")


def _rarest(database: Database) -> str:
    """The labels with the fewest instances: a misspelt one is among them."""
    counts = dict.fromkeys(database.classes, 0)
    for video in database.videos.values():
        for label in video.labels:
            counts[label] += 1
    rarest = sorted(counts, key=lambda label: counts[label])[:RAREST]
    told = [f"'{label}' ({counts[label]})" for label in rarest]
    return f"the labels with the fewest instances: {', '.join(told)}"


def _subsets(database: Database, published: Published) -> dict[str, dict[str, Any]]:
    """Counts of every subset of the database, and of those that are published."""
    names = {video.subset for video in database.videos.values()} | set(published)
    subsets = {}
    for name in sorted(names):
        videos = database.subset(name)
        per_class = Counter(label for video in videos for label in video.labels)
        in_order = {label: per_class[label] for label in database.classes if per_class[label]}
        subsets[name] = {
            "videos": len(videos),
            "instances": sum(per_class.values()),
            "blocked": sum(video.name in database.blocked for video in videos),
            "videos_without_ground_truth": sum(not video.labels for video in videos),
            "instances_per_class": in_order,
        }
    return subsets


def _check_subset(
    found: Audit, database: Database, name: str, counts: Mapping[str, Any] | None
) -> None:
    """A subset that is trained on or evaluated."""
    if counts is None or not counts["instances"]:
        there = sorted({video.subset for video in database.videos.values()})
        known = ", ".join(there) or "none"
        wrong = f"subset '{name}' has no ground truth; subsets of the file: {known}"
        found.errors.append(wrong)
        return
    absent = len(database.classes) - len(counts["instances_per_class"])
    if absent:
        found.notes.append(f"{absent} classes have no instance in '{name}'")
    empty = counts["videos_without_ground_truth"]
    if empty:
        found.notes.append(f"{empty} videos of '{name}' have no ground truth")


def _check_published(
    found: Audit,
    name: str,
    counts: dict[str, Any],
    expected: tuple[int | None, int | None],
    *,
    is_evaluated: bool,
) -> None:
    """Published counts, which join the others."""
    counts["published"] = " / ".join("?" if n is None else str(n) for n in expected)
    there = (counts["videos"], counts["instances"])
    if all(wanted in (None, count) for wanted, count in zip(expected, there, strict=True)):
        return
    said = (
        f"{there[0]} videos and {there[1]} instances in '{name}', published are "
        f"{counts['published']}"
    )
    if not is_evaluated:
        found.notes.append(said)
        return
    meant = "if it is meant, set the data set's `published`"
    found.errors.append(f"{said}: numbers would not compare; {meant}")


def _oddities(found: Audit, database: Database) -> dict[str, int]:
    """How many odd segments there are, by kind; reversed ones are errors."""
    counts: Counter[str] = Counter()
    for video in database.videos.values():
        start_G, end_G = video.segments_G2.T
        duration = video.duration
        if (end_G < start_G).any():
            segment = video.segments_G2[end_G < start_G][0].tolist()
            found.errors.append(f"video '{video.name}' has the reversed segment {segment}")
        counts["segments of zero length"] += int((end_G == start_G).sum())
        counts["segments that start after their video's end"] += int((start_G >= duration).sum())
        counts["segments that end after their video's end"] += int((end_G > duration).sum())
        counts["segments that start before 0"] += int((start_G < 0).sum())
        segments = video.segments_G2.tolist()
        distinct = {(*s, label) for s, label in zip(segments, video.labels, strict=True)}
        counts["exact duplicates"] += len(segments) - len(distinct)
    total = sum(len(video.labels) for video in database.videos.values())
    late = counts["segments that start after their video's end"]
    if 2 * late > total:
        why = "times are in seconds; are these in frames?"
        found.errors.append(f"{late} of {total} segments start after their video's end: {why}")
    return dict(counts)


# ---------------------------------------------------------------------------------------- features


def _check_presence(
    found: Audit, database: Database, videos: Sequence[Video], lengths: Mapping[str, int]
) -> set[str]:
    """Videos without features, and features without a video; returns the names of the first."""
    absent = {video.name for video in videos if video.name not in lengths}
    if absent:
        found.notes.append(f"{len(absent)} videos without features: {_some(sorted(absent))}")
    extra = sorted(set(lengths) - set(database.videos))
    if extra:
        found.notes.append(f"{len(extra)} features without a video: {_some(extra)}")
    if videos and len(absent) == len(videos):
        found.errors.append(_mismatch([video.name for video in videos], list(lengths)))
    return absent


def _mismatch(videos: Sequence[str], features: Sequence[str]) -> str:
    """What videos and features are called, where none fits, and what would make them fit."""
    wrong = (
        f"no video has features: videos are called {_some(videos, 3)}, features "
        f"{_some(features, 3)}"
    )
    fits = Counter(affixes(videos, features))
    if not fits:
        return f"{wrong}; name them alike, or set `prefix` or `suffix` of the feature set"
    (prefix, suffix), count = fits.most_common(1)[0]
    parts = []
    if prefix:
        parts.append(f"prefix: {prefix}")
    if suffix:
        parts.append(f"suffix: {suffix}")
    return f"{wrong}; `{', '.join(parts)}` in the params of the feature set would fit {count}"


def affixes(videos: Sequence[str], features: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What stands before and after a video's name in what features are called."""
    # longest first: 'video_1' lies in 'video_10', too
    ordered = sorted(videos, key=len, reverse=True)
    for name in features[:LOOKED_AT]:
        for video in ordered:
            before, found, after = name.partition(video)
            if found:
                yield before, after
                break


def _check_lost(found: Audit, database: Database, eval_subset: str, absent: set[str]) -> None:
    """Evaluated videos whose features nobody says to be missing."""
    evaluated, lost = 0, []
    for video in database.subset(eval_subset):
        if video.name in database.blocked:
            continue
        evaluated += 1
        if video.labels and video.name in absent:
            lost.append(video.name)
    if len(lost) > MANY * evaluated:
        found.errors.append(
            f"{len(lost)} of {evaluated} evaluated videos lack features, and neither their "
            f"publisher nor the blocked list names them: {_some(sorted(lost))}; their ground truth "
            "would count as missed"
        )


def _check_lengths(
    found: Audit,
    videos: Sequence[Video],
    lengths: Mapping[str, int],
    stride: float | None,
    fps: float | None,
) -> None:
    """Features are about as long as their videos."""
    if stride is None:
        return
    odd, present = [], 0
    for video in videos:
        if video.name not in lengths:
            continue
        present += 1
        frames = video.frame if fps is None else video.duration * fps
        if frames is None:
            continue
        steps, expected = lengths[video.name], frames / stride
        # a clip at either end, or a rounded rate, is no fault
        if abs(steps - expected) > max(ODD_STEPS, ODD_SHARE * expected):
            odd.append(f"{video.name} ({steps} steps, {expected:.0f} expected)")
    if odd:
        found.notes.append(f"{len(odd)} features of another length than their video: {_some(odd)}")
    if len(odd) > MANY_ODD * present:
        wrong = f"most features have another length than their videos, such as {odd[0]}"
        found.errors.append(f"{wrong}: check stride and fps")


def _check_described(
    found: Audit,
    videos: Sequence[Video],
    described: Mapping[str, Description],
    fps: float | None,
) -> None:
    """Features that say of which video they are, and at which rate, belong to these videos."""
    odd, told = [], 0
    for video in videos:
        description = described.get(video.name)
        if description is None:
            continue
        told += 1
        lasts, rate = description.duration, fps
        if rate is None and video.frame is not None:
            rate = video.frame / video.duration
        if abs(lasts - video.duration) > max(ODD_SECONDS, ODD_SHARE * video.duration):
            lasting = f"lasts {video.duration:.1f} s, the video of its features {lasts:.1f} s"
            odd.append(f"{video.name} {lasting}")
        elif rate is None or abs(rate / description.fps - 1) > ODD_RATE:
            known = "unknown" if rate is None else f"{rate:.4g}"
            rates = f"frames/s are {known} here, {description.fps:.4g} in its features"
            odd.append(f"{video.name}: {rates}")
    if odd:
        found.notes.append(f"{len(odd)} features say something else of their video: {_some(odd)}")
    if len(odd) > MANY_ODD * told:
        wrong = f"most features say something else of their videos, such as {odd[0]}"
        found.errors.append(f"{wrong}: `fps` in the params of the feature set, or other videos?")


def _some(names: Sequence[str], count: int = 5) -> str:
    """The first few of a list."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
