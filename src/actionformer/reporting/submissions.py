"""Detections in the forms that challenges take, and what is wrong with a file of such a form.

activitynet   ActivityNet's detection task (http://activity-net.org/challenges):
              {"version": "VERSION 1.3", "results": {video: [{"label", "score", "segment"}]},
              "external_data": {"used", "details"}}
epic          EPIC-KITCHENS-100 Action Detection
              (https://github.com/epic-kitchens/C2-Action-Detection):
              {"version": "0.2", "challenge": "action_detection", "sls_pt", "sls_tl", "sls_td",
              "results": {video: [{"verb", "noun", "action": "verb,noun", "score", "segment"}]}}
ego4d         Ego4D Moment Queries (https://ego4d-data.org):
              {"version": "1.0", "challenge": "ego4d_moment_queries",
              "detect_results": {clip: [{"label", "score", "segment"}]},
              "retrieve_results": the same for retrieval}
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from actionformer.data.detections import Detection, Results
from actionformer.errors import InputError

Challenge = Literal["activitynet", "epic", "ego4d"]
CHALLENGES: tuple[Challenge, ...] = ("activitynet", "epic", "ego4d")
# what is wrong with a detection's labels; empty where nothing is
Labels = Callable[[Detection], str]

ACTIVITYNET_VERSION = "VERSION 1.3"
EPIC_VERSION, EPIC_CHALLENGE = "0.2", "action_detection"
EPIC_LEVELS = {
    "sls_pt": "supervision of pretraining",
    "sls_tl": "supervision of training labels",
    "sls_td": "supervision of training data",
}
EPIC_VERBS, EPIC_NOUNS = 97, 300
EGO4D_VERSION, EGO4D_CHALLENGE = "1.0", "ego4d_moment_queries"
# what a submission has to begin with
HEADS: dict[Challenge, dict[str, str]] = {
    "activitynet": {"version": ACTIVITYNET_VERSION},
    "epic": {"version": EPIC_VERSION, "challenge": EPIC_CHALLENGE},
    "ego4d": {"version": EGO4D_VERSION, "challenge": EGO4D_CHALLENGE},
}
# where its detections stand
PARTS: dict[Challenge, tuple[str, ...]] = {
    "activitynet": ("results",),
    "epic": ("results",),
    "ego4d": ("detect_results", "retrieve_results"),
}
# seconds that a segment may end after its video: published durations are rounded
SLACK = 0.5


def activitynet(results: Results, *, external_data: str) -> dict[str, Any]:
    """The submission; `external_data` says what beside ActivityNet was used."""
    return {
        "version": ACTIVITYNET_VERSION,
        "results": {video: [_labelled(d) for d in found] for video, found in results.items()},
        "external_data": {"used": bool(external_data), "details": external_data},
    }


def epic(results: Results, *, levels: Sequence[int]) -> dict[str, Any]:
    """The submission; `levels` are sls_pt, sls_tl, sls_td, as the challenge's page defines them."""
    converted: dict[str, list[dict[str, Any]]] = {}
    for video, found in results.items():
        converted[video] = []
        for detection in found:
            verb, noun = _number(detection.get("verb")), _number(detection.get("noun"))
            numbered = {
                "verb": verb,
                "noun": noun,
                "action": f"{verb},{noun}",
                "score": detection.get("score"),
                "segment": detection.get("segment"),
            }
            converted[video].append(numbered)
    head: dict[str, Any] = {"version": EPIC_VERSION, "challenge": EPIC_CHALLENGE}
    head |= zip(EPIC_LEVELS, levels, strict=True)
    return head | {"results": converted}


def ego4d(results: Results) -> dict[str, Any]:
    """The submission of both tracks.

    Retrieval takes the same detections: it asks for those of a class, best first.
    """
    converted = {video: [_labelled(d) for d in found] for video, found in results.items()}
    return {
        "version": EGO4D_VERSION,
        "challenge": EGO4D_CHALLENGE,
        "detect_results": converted,
        "retrieve_results": converted,
    }


def problems(
    challenge: Challenge, content: Any, *, durations: Mapping[str, float], classes: Sequence[str]
) -> list[str]:
    """What the challenge's server would stumble over, a line each; empty for a valid submission.

    Args:
        durations: seconds of every video that has to be there.
        classes: the labels that may occur; without effect on EPIC, whose classes are numbers.
    """
    if not isinstance(content, Mapping):
        return ["expected a JSON object"]
    found = []
    for key, expected in HEADS[challenge].items():
        if content.get(key) != expected:
            found.append(f"{key} is {content.get(key)!r}, expected {expected!r}")
    if challenge == "activitynet":
        external = content.get("external_data")
        if not isinstance(external, Mapping):
            external = {}
        if type(external.get("used")) is not bool or "details" not in external:
            found.append("external_data: expected 'used' (true or false) and 'details'")
    if challenge == "epic":
        for key, what in EPIC_LEVELS.items():
            level = content.get(key)
            if type(level) is not int or level not in range(6):
                found.append(f"{key} is {level!r}, expected 0 to 5 ({what})")
    labels = _epic_labels if challenge == "epic" else _known_labels(set(classes))
    for part in PARTS[challenge]:
        found += _result_problems(part, content.get(part), durations, labels)
    return found


def _result_problems(
    part: str, results: Any, durations: Mapping[str, float], labels: Labels
) -> list[str]:
    """At most one line per kind of problem, with the first place and the count."""
    if not isinstance(results, Mapping):
        return [f"{part}: expected an object, video -> detections"]
    if not any(results.values()):
        return [f"{part}: no detection at all"]
    seen: dict[str, list[str]] = {}
    for video in durations:
        if video not in results:
            seen.setdefault("lacks videos", []).append(f"'{video}'")
    for video, detections in results.items():
        if video not in durations:
            seen.setdefault("has unknown videos", []).append(f"'{video}'")
            continue
        if not isinstance(detections, Sequence) or isinstance(detections, str):
            seen.setdefault("has no list of detections", []).append(f"'{video}'")
            continue
        for i, detection in enumerate(detections):
            for problem in _detection_problems(detection, durations[video], labels):
                seen.setdefault(problem, []).append(f"'{video}', detection {i}")
    lines = []
    for problem, places in seen.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        lines.append(f"{part} {problem}: {places[0]}{more}")
    return lines


def _detection_problems(detection: Any, duration: float, labels: Labels) -> Iterator[str]:
    if not isinstance(detection, Mapping):
        yield "has a detection that is no object"
        return
    score, segment = detection.get("score"), detection.get("segment")
    if not _is_number(score):
        yield "has a score that is no finite number"
    if not (isinstance(segment, Sequence) and len(segment) == 2 and all(map(_is_number, segment))):
        yield "has a segment that is not [start, end]"
    elif not 0 <= segment[0] < segment[1] <= duration + SLACK:
        yield "has a segment that doesn't lie within its video, start before end"
    wrong = labels(detection)
    if wrong:
        yield wrong


def _known_labels(known: set[str]) -> Labels:
    """Labels have to be among these."""

    def wrong(detection: Detection) -> str:
        label = detection.get("label")
        if isinstance(label, str) and label in known:
            return ""
        return f"has the label {label!r}, which is none of the classes"

    return wrong


def _epic_labels(detection: Mapping[str, Any]) -> str:
    verb, noun = detection.get("verb"), detection.get("noun")
    if type(verb) is not int or not 0 <= verb < EPIC_VERBS:
        return f"has a verb that is no number from 0 to {EPIC_VERBS - 1}"
    if type(noun) is not int or not 0 <= noun < EPIC_NOUNS:
        return f"has a noun that is no number from 0 to {EPIC_NOUNS - 1}"
    return (
        ""
        if detection.get("action") == f"{verb},{noun}"
        else "has an action that is not 'verb,noun'"
    )


def has_extent(detection: Mapping[str, Any]) -> bool:
    """Can a detection match anything? One without extent, as rounding leaves some, cannot.

    Malformed ones count as if they could: they are refused later.
    """
    segment = detection.get("segment")
    return not (isinstance(segment, Sequence) and len(segment) == 2 and segment[0] == segment[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _labelled(detection: Mapping[str, Any]) -> dict[str, Any]:
    return {key: detection.get(key) for key in ("label", "score", "segment")}


def _number(name: object) -> int:
    """id_012 -> 12: the publisher's number of an EPIC class."""
    found = re.fullmatch(r"id_(\d+)", str(name))
    if found is None:
        raise InputError(f"class '{name}': expected the publisher's number, as id_012")
    return int(found[1])
