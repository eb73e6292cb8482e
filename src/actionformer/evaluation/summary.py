"""What metrics.json and diagnosis.json say: every number of an evaluation, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from actionformer.data.annotations import Database
from actionformer.data.detections import Results
from actionformer.evaluation import curves
from actionformer.evaluation.average_precision import AveragePrecision, mean_average_precision
from actionformer.evaluation.diagnosis import TIOU, diagnose
from actionformer.evaluation.matching import match, true_positives
from actionformer.evaluation.recall import recall_at_kx
from actionformer.params.experiment import EvaluationParams

# between verb and noun in the label of an action: in no class's name
PAIR = "\x1f"
# seconds by which a segment may end after its video: durations are rounded
SLACK = 0.1


def metrics_of(
    database: Database,
    detections: Results,
    params: EvaluationParams,
    subset: str,
) -> dict[str, Any]:
    """What metrics.json says: mAP, counts and classes, and recall where the params ask for it."""
    blocked = database.blocked if params.use_blocked_list else frozenset()
    result = mean_average_precision(
        database, detections, subset=subset, tiou_thresholds=params.tiou, blocked=blocked
    )
    percent = _percent(result)
    if params.recall_top_k:
        recall = recall_at_kx(
            database,
            detections,
            subset=subset,
            tiou_thresholds=params.tiou,
            top_k=params.recall_top_k,
            blocked=blocked,
        )
        for x, k in enumerate(recall.top_k):
            for u, tiou in enumerate(recall.tiou_thresholds):
                percent[f"recall_{k}x/{tiou:g}"] = 100 * float(recall.recall_UX[u, x])
    return {
        "percent": percent,
        "videos": result.videos,
        "instances": int(result.instances_K.sum()),
        "classes": _per_class(result),
        "subset": subset,
    }


def action_metrics_of(
    nouns: Database,
    verbs: Database,
    detections: Results,
    params: EvaluationParams,
    subset: str,
) -> dict[str, Any]:
    """The same detections by their nouns, their verbs and both, as EPIC's challenge has it.

    Args:
        nouns: the database with the labels of nouns, whose blocked list counts.
        verbs: the same with those of verbs.
        detections: with "verb" and "noun" in the place of a label.
    """
    blocked = nouns.blocked if params.use_blocked_list else frozenset()
    percent: dict[str, float] = {}
    counts: dict[str, Any] = {}
    for task, truth in {"noun": nouns, "verb": verbs, "action": _pairs(verbs, nouns)}.items():
        result = mean_average_precision(
            truth,
            {video: _labelled(found, task) for video, found in detections.items()},
            subset=subset,
            tiou_thresholds=params.tiou,
            blocked=blocked,
        )
        for key, value in _percent(result).items():
            percent[f"{task}/{key}"] = value
        counts = {"videos": result.videos, "instances": int(result.instances_K.sum())}
    return {"percent": percent, "subset": subset, **counts}


def _labelled(found: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """Detections of actions, labelled for one of the three tasks."""
    labelled = []
    for detection in found:
        label = detection.get(task)
        if task == "action":
            label = PAIR.join((detection["verb"], detection["noun"]))
        labelled.append({**detection, "label": label})
    return labelled


def _pairs(verbs: Database, nouns: Database) -> Database:
    """The same videos, labelled with verb and noun."""
    videos = {}
    occurring: set[str] = set()
    for name, video in verbs.videos.items():
        both = zip(video.labels, nouns.videos[name].labels, strict=True)
        labels = tuple(PAIR.join(pair) for pair in both)
        videos[name] = replace(video, labels=labels)
        occurring.update(labels)
    return Database(videos, tuple(sorted(occurring)))


def evaluated_text(
    database: Database, metrics: Mapping[str, Any], *, use_blocked_list: bool
) -> str:
    """How much was evaluated, and what was left out, in words."""
    videos = database.subset(metrics["subset"])
    blocked = [video for video in videos if video.name in database.blocked]
    remark = ""
    if blocked:
        left_out = "without" if use_blocked_list else "with"
        remark = f", {left_out} the {len(blocked)} of its blocked list"
    counted = f"{metrics['videos']} videos and {metrics['instances']} instances"
    return f"{counted} of subset {metrics['subset']}{remark}"


def oddities(
    database: Database, detections: Results, subset: str, blocked: Collection[str] = ()
) -> list[str]:
    """What is odd in two files that were evaluated, how often, and how it counts.

    Nothing of it is refused: the published evaluation takes it all.

    Args:
        blocked: videos that were left out, whatever is said of them.
    """
    evaluated = {
        video.name: video for video in database.subset(subset) if video.name not in blocked
    }
    past_end, no_extent = 0, 0
    labels: set[str] = set()
    for video in evaluated.values():
        starts_G, ends_G = video.segments_G2.T
        past_end += int((ends_G > video.duration + SLACK).sum())
        no_extent += int((ends_G <= starts_G).sum())
        labels.update(video.labels)
    elsewhere, unknown, backwards = 0, 0, 0
    for name, found in detections.items():
        if name in blocked:
            continue
        elsewhere += 0 if name in evaluated else len(found)
        for detection in found:
            start, end = detection["segment"]
            unknown += detection["label"] not in labels
            backwards += end < start
    counted = [
        (past_end, "annotated segments end after their video does, and count"),
        (no_extent, "annotated segments have no length, and don't count"),
        (unknown, f"detections have a label that subset {subset} lacks, and don't count"),
        (elsewhere, f"detections lie in videos outside subset {subset}, and count as false"),
        (backwards, "detections end before they start, and count as false"),
    ]
    return [f"{count:,} {text}" for count, text in counted if count]


def diagnosis_of(
    database: Database | Path,
    detections: Results | Path,
    *,
    subset: str,
    tiou: Sequence[float],
    blocked: Collection[str] = (),
    edges: Mapping[Any, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """What diagnosis.json says: DETAD's errors, precision and recall, calibration, AP per video.

    Args:
        edges: of the diagnosis' bins, as `diagnose` takes them.
    """
    matched = match(database, detections, subset=subset, blocked=blocked)
    correct_NU = true_positives(matched, tiou) >= 0
    correct_N = true_positives(matched, [TIOU])[:, 0] >= 0
    precision_UR = curves.precision_recall(matched, correct_NU)
    precision = {
        f"{threshold:g}": precision_R.tolist()
        for threshold, precision_R in zip(tiou, precision_UR, strict=True)
    }
    return {
        **diagnose(matched, tiou, edges).as_json(),
        "precision": precision,
        "calibration": [asdict(part) for part in curves.calibration(matched, correct_N)],
        "videos": curves.per_video(matched, correct_NU),
    }


def _percent(result: AveragePrecision) -> dict[str, float]:
    percent = {}
    for tiou, value in zip(result.tiou_thresholds, result.map_U, strict=True):
        percent[f"mAP/{tiou:g}"] = 100 * float(value)
    percent["mAP/average"] = 100 * result.average
    return percent


def _per_class(result: AveragePrecision) -> dict[str, Any]:
    classes = {}
    for k, label in enumerate(result.classes):
        instances = int(result.instances_K[k])
        classes[label] = {"instances": instances, "ap": result.ap_KU[k].tolist()}
    return classes
