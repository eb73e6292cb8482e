"""The rehearsal: what the publishers of a row publish, at published size.

The same writers as the demo's, given recordings of the published number, length and classes: drawn,
or those of real annotations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.params.dataset import Dataset
from actionformer.params.experiment import Experiment
from actionformer.synthetic.checkpoint import write_checkpoint
from actionformer.synthetic.recordings import (
    YOUTUBE,
    Action,
    Generator,
    Recording,
    generator,
    names,
    uniform,
)
from actionformer.synthetic.release import Extractor, Release
from actionformer.synthetic.statistics import (
    EPIC_UNUSED_NOUNS,
    STATISTICS,
    THUMOS14_CLASSES,
    Statistics,
    at,
)
from actionformer.synthetic.writers import (
    charades,
    database_json,
    ego4d,
    epic,
    multithumos,
    thumos14,
)
from actionformer.synthetic.writers.thumos14 import Parts

# noise of features, per root of their channels: with it more channels make nothing easier
NOISE = 0.12
# one of so many videos is blocked or has no features
BLOCKED = 25
# how far boundaries are seen from where they are annotated, as a share of the action's length
FUZZINESS = 0.2
# MultiTHUMOS' finer actions within one of THUMOS-14's, of classes that come beside its own
FINER, FINER_CLASSES = 4, 45

EXTRACTORS: dict[str, Sequence[Extractor]] = {
    "thumos14": thumos14.EXTRACTORS,
    "activitynet": (database_json.TSP,),
    "hacs": (database_json.SLOWFAST,),
    "fineaction": database_json.VIDEOMAES,
    "epic": epic.EXTRACTORS,
    "ego4d": ego4d.EXTRACTORS,
    "charades": charades.EXTRACTORS,
}


@dataclass(frozen=True)
class Annotated:
    """The recordings of a data set, and its classes in their published order."""

    recordings: Sequence[Recording]
    classes: Sequence[str]
    # videos that an evaluation leaves out
    blocked: Sequence[str] = ()
    # of THUMOS-14: video -> what MultiTHUMOS labels in it
    finer: Parts = field(default_factory=dict)
    finer_classes: Sequence[str] = ()


def release_of(annotated: Annotated, dataset: str, rows: Collection[Experiment]) -> Release:
    """What is published of a data set, with the features that these rows read."""
    extractors = []
    for extractor in EXTRACTORS[dataset]:
        dims = {row.features.dim for row in rows if row.features.file == extractor.file}
        for dim in dims:
            extractors.append(replace(extractor, dim=dim, noise=NOISE * dim**0.5))
    return Release(
        annotated.recordings,
        annotated.classes,
        extractors,
        missing=annotated.blocked,
        dtype=np.float32,
    )


def write(root: Path, dataset: str, annotated: Annotated, release: Release) -> None:
    """The publisher's files of a data set under `root`; of THUMOS-14 with MultiTHUMOS'."""
    match dataset:
        case "thumos14":
            _write_thumos14(root, annotated, release)
        case "activitynet":
            database_json.write_activitynet(root, release, annotated.blocked)
        case "hacs":
            database_json.write_hacs(root, release)
        case "fineaction":
            database_json.write_fineaction(root, release)
        case "epic":
            verbs, nouns = epic_classes()
            epic.write(root, release, verbs, nouns)
        case "ego4d":
            rng = generator("rehearsal/ego4d/videos")
            videos = [ego4d.uid(rng) for _ in release.recordings]
            ego4d.write(root, release, videos, rng)
        case "charades":
            charades.write(root, release, {label: label for label in release.classes})


def _write_thumos14(root: Path, annotated: Annotated, release: Release) -> None:
    recordings = release.recordings
    parts = {}
    for recording in recordings:
        finer = annotated.finer[recording.name]
        parts[recording.name] = [action for action in finer if action not in recording.actions]
    thumos14.write(root, release, parts, generator("rehearsal/ambiguous"))
    thumos14.write_database(root / "thumos14/annotations/thumos_14_anno.json", recordings)
    labelled = [
        replace(recording, actions=tuple(annotated.finer[recording.name]))
        for recording in recordings
    ]
    thumos14.write_database(root / "multithumos/annotations/multithumos_anno.json", labelled)
    multithumos.write(root, annotated.finer, annotated.finer_classes)


def write_released_checkpoints(root: Path, rows: Collection[Experiment]) -> None:
    """The checkpoints that were published with these rows: of their size, with drawn weights."""
    for row in rows:
        if row.released is not None:
            write_checkpoint(root / row.data.dataset / row.released.file, row.model)


def feature_bytes(release: Release, dataset: Dataset) -> int:
    """How much the features of a release take, within a few percent."""
    seconds = sum(one.duration for one in release.with_features())
    numbers = 0.0
    for extractor in release.extractors:
        for features in dataset.features.values():
            if features.file == extractor.file:
                # of features without a stride: TSP's and VideoMAE's 16 frames
                steps = seconds * (features.fps or 30) / (features.stride_frames or 16)
                numbers += steps * extractor.dim
    return int(numbers * np.dtype(release.dtype).itemsize)


# ------------------------------------------------------------------------- from real annotations


def real(name: str, dataset: Dataset, content: Mapping[str, Any], videos: int | None) -> Annotated:
    """Recordings of what is annotated in real videos.

    Args:
        content: the database that the publisher's files were converted to.
        videos: only so many of training and of evaluation, the first by name.
    """
    statistics = STATISTICS["thumos14" if name == "multithumos" else name]
    blocked = list(content.get("blocked", []))
    subsets = {dataset.train_subset: statistics.train, dataset.eval_subset: statistics.test}
    recordings = []
    for video, entry in sorted(content["database"].items()):
        duration = float(entry["duration"])
        fps = entry["frame"] / duration if "frame" in entry else statistics.fps
        actions = []
        for annotation in entry["annotations"]:
            start, end = annotation["segment"]
            actions.append(Action(start, end, _label(annotation)))
        subset = subsets.get(entry["subset"], entry["subset"])
        recordings.append(Recording(video, subset, duration, fps, tuple(actions), (), FUZZINESS))
    classes = content.get("classes")
    if not isinstance(classes, list):
        occurring = {action.label for one in recordings for action in one.actions}
        classes = sorted(occurring)
    if videos is not None:
        kept = []
        for subset in subsets.values():
            # a training video without actions would be left out
            of_subset = [one for one in recordings if one.subset == subset and one.actions]
            kept += [one for one in of_subset if one.name not in blocked][:videos]
        recordings, blocked = kept, []
    return Annotated(recordings, classes, blocked)


def _label(annotation: Mapping[str, Any]) -> str:
    """The label; of EPIC the numbers of verb and noun."""
    if "label" in annotation:
        return str(annotation["label"])
    verb, noun = (int(annotation[field].removeprefix("id_")) for field in ("verb", "noun"))
    return f"{verb}/{noun}"


def with_real_finer(thumos: Annotated, multithumos: Annotated, *, whole: bool) -> Annotated:
    """THUMOS-14 with the real labels of MultiTHUMOS, which, if `whole`, has a video more."""
    finer = {one.name: one.actions for one in multithumos.recordings}
    known = {one.name for one in thumos.recordings}
    recordings = list(thumos.recordings)
    for one in multithumos.recordings:
        if whole and one.name not in known:
            recordings.append(replace(one, actions=()))
    recordings.sort(key=lambda one: one.name)
    finer = {one.name: finer.get(one.name, ()) for one in recordings}
    classes = multithumos.classes
    return replace(thumos, recordings=recordings, finer=finer, finer_classes=classes)


# ------------------------------------------------------------------------------------ what is drawn


def drawn(dataset: str, videos: int | None) -> Annotated:
    """Recordings as many and as long as the published ones.

    Args:
        videos: only so many of training and of evaluation.
    """
    statistics = STATISTICS[dataset]
    rng = generator(f"rehearsal/{dataset}")
    classes = _classes(dataset)
    recordings: list[Recording] = []
    for subset, count in statistics.videos.items():
        wanted = count
        if videos is not None:
            chosen = subset in (statistics.train, statistics.test)
            wanted = min(count, videos) if chosen else 0
        share = wanted / count
        actions = round(statistics.actions[subset] * share)
        taken = [recording.name for recording in recordings]
        called = _names(rng, dataset, subset, wanted, taken)
        recordings += _recordings(rng, called, subset, actions, statistics, classes)
    blocked = []
    if dataset in ("activitynet", "hacs", "fineaction"):
        evaluated = [one.name for one in recordings if one.subset == statistics.test]
        blocked = evaluated[BLOCKED - 1 :: BLOCKED]
    if dataset == "thumos14":
        return with_finer(Annotated(recordings, classes, blocked=blocked))
    return Annotated(recordings, classes, blocked=blocked)


def with_finer(annotated: Annotated) -> Annotated:
    """THUMOS-14 with drawn labels in MultiTHUMOS' manner: its own, and what happens within them."""
    rng = generator("rehearsal/multithumos")
    parts = [f"Part{number:02d}" for number in range(FINER_CLASSES)]
    finer = {}
    for recording in annotated.recordings:
        actions = [*recording.actions]
        # two at a time
        for _ in range(FINER // 2):
            actions += thumos14.parts_of(rng, recording, parts)
        finer[recording.name] = actions
    return replace(annotated, finer=finer, finer_classes=(*annotated.classes, *parts))


def _classes(dataset: str) -> Sequence[str]:
    """The classes; of EPIC pairs of a verb's and a noun's number."""
    match dataset:
        case "thumos14":
            return THUMOS14_CLASSES
        case "epic":
            verbs, nouns = epic_classes()
            return [f"{verb}/{noun}" for verb in verbs for noun in nouns]
        case "charades":
            return [f"c{number:03d}" for number in range(157)]
        case "ego4d":
            return [f"moment_{number:03d}" for number in range(110)]
        case "fineaction":
            return [f"action_{number:03d}" for number in range(106)]
    return [f"Activity {number:03d}" for number in range(200)]


def epic_classes() -> tuple[dict[int, str], dict[int, str]]:
    """EPIC's verbs and nouns that occur: their numbers and what they stand for."""
    verbs = {number: f"verb-{number}" for number in range(97)}
    nouns = {}
    for number in range(300):
        if number not in EPIC_UNUSED_NOUNS:
            nouns[number] = f"noun-{number}"
    return verbs, nouns


def _names(
    rng: Generator, dataset: str, subset: str, count: int, taken: Sequence[str]
) -> list[str]:
    """Names of videos as the publisher gives them, which those of other subsets have not."""
    first = len(taken)
    match dataset:
        case "thumos14":
            # one is excluded by the published protocol, of the other nothing but ambiguous
            # stretches is annotated
            known = ["video_test_0000270", thumos14.AMBIGUOUS_ALONE] if subset == "test" else []
            others = [f"video_{subset}_{4 * i + 1:07d}" for i in range(max(count - len(known), 0))]
            return sorted([*others, *known][:count])
        case "fineaction":
            return [f"v_{first + i + 1:08d}" for i in range(count)]
        case "epic":
            return [f"P{(first + i) // 20 + 1:02d}_{(first + i) % 20 + 101}" for i in range(count)]
        case "ego4d":
            return [ego4d.uid(rng) for _ in range(count)]
        case "charades":
            return _other_names(rng, count, 5, charades.LETTERS, taken)
    return _other_names(rng, count, 11, YOUTUBE, taken)


def _other_names(
    rng: Generator, count: int, length: int, alphabet: str, taken: Sequence[str]
) -> list[str]:
    """So many names, none of them twice or taken."""
    found = dict.fromkeys(taken)
    while len(found) < len(taken) + count:
        missing = len(taken) + count - len(found)
        found |= dict.fromkeys(names(rng, missing, length, alphabet))
    return list(found)[len(taken) :]


def _recordings(
    rng: Generator,
    called: Sequence[str],
    subset: str,
    actions: int,
    statistics: Statistics,
    classes: Sequence[str],
) -> list[Recording]:
    """The recordings of a subset, `actions` in all."""
    count = len(called)
    if not count:
        return []
    # evenly over all durations, so that a few videos are as long on average as all
    places = [(int(i) + 0.5) / count for i in rng.permutation(count)]
    durations = [round(statistics.duration_at(place), 2) for place in places]
    shares = durations if statistics.by_duration else [1.0] * count
    chances = np.cumsum([at(statistics.frequencies, k / len(classes)) for k in range(len(classes))])
    recordings = []
    begun = 0.0
    for name, duration, share in zip(called, durations, shares, strict=True):
        # of all actions as many as the videos so far should have
        before = round(actions * begun / sum(shares))
        begun += share
        wanted = round(actions * begun / sum(shares)) - before
        found = _actions(rng, duration, wanted, statistics, classes, chances)
        recordings.append(Recording(name, subset, duration, statistics.fps, found, (), FUZZINESS))
    return recordings


def _actions(
    rng: Generator,
    duration: float,
    wanted: int,
    statistics: Statistics,
    classes: Sequence[str],
    chances: NDArray[np.floating[Any]],
) -> tuple[Action, ...]:
    """So many actions anywhere in a video."""
    scale = duration if statistics.relative_length else 1.0
    actions = []
    label = ""
    for _ in range(wanted):
        if not label or not statistics.one_class:
            place = uniform(rng, 0.0, float(chances[-1]))
            label = classes[int(np.searchsorted(chances, place, side="right"))]
        length = scale * at(statistics.lengths, uniform(rng, 0.0, 1.0))
        length = min(max(length, 0.2), 0.95 * duration)
        start = uniform(rng, 0.0, duration - length)
        actions.append(Action(round(start, 2), round(start + length, 2), label))
    return tuple(sorted(actions, key=lambda action: (action.start, action.end, action.label)))
