"""JSON databases: ActivityNet's form, which most others took over.

    {"database": {video: {"subset", "duration",
                          "annotations": [{"segment": [start, end], "label"}]}}}

- ActivityNet-1.3, http://activity-net.org/download.html (`activity_net.v1-3.min.json`): also
  version, taxonomy: [{nodeId, nodeName, parentId, parentName}], and per video resolution and url.
- HACS Segments v1.1.1, https://github.com/hangzhaomit/HACS-dataset
  (`HACS_v1.1.1/HACS_segments_v1.1.1.json`): duration is a string.
- FineAction, https://github.com/Richard-61/FineAction (`annotations_gt.json`): also filename,
  actual_frame_num, label_id; the page describes the file in words only, so `duration` and the
  annotations' keys are taken from its readers.
- OpenTAD's converted files of all eight data sets (its Google Drive folders,
  `params/datasets/*.yaml`): `frame` beside `duration` where the video's own rate counts.
- actionformer_release's files (`thumos14.json`, `anet1.3_tsp_filtered.json`,
  `epic_kitchens_100_*.json` in its archives): `fps` instead of `frame`, `label_id` beside `label`;
  THUMOS's subsets are called Validation and Test.

Times are seconds; names come without `v_`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actionformer.data.annotations import annotations_of
from actionformer.errors import InputError
from actionformer.files.reading import read_object
from actionformer.files.values import as_given, items_of, number, text_of


def convert(
    paths: list[Path], *, subsets: Mapping[str, str] | None = None, label_from_id: str | None = None
) -> dict[str, Any]:
    """Videos of all files, in their order; fields that nothing reads are left behind.

    Args:
        subsets: renames subsets: the publisher's name, in lower case -> the published rows'.
        label_from_id: how to write a label from `label_id` where the file has one.
    """
    database: dict[str, Any] = {}
    for path in paths:
        for video, entry in _read(path)["database"].items():
            try:
                if video in database:
                    raise ValueError("it is in another of the files, too")
                database[video] = _entry(entry, subsets or {}, label_from_id)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                wrong = f"missing or malformed key ({error})"
                raise InputError(f"{path}: video '{video}': {wrong}") from None
    return database


def lists(paths: list[Path]) -> dict[str, Any]:
    """Class order and blocked list, where a file of our own form has them."""
    found: dict[str, Any] = {}
    for path in paths:
        content = _read(path)
        for key in ("classes", "blocked"):
            if key in content:
                found[key] = content[key]
    return found


def _read(path: Path) -> dict[str, Any]:
    content = read_object(path)
    if not isinstance(content.get("database"), dict):
        raise InputError(f"{path}: expected a JSON object with the key 'database'")
    return content


def _entry(
    entry: Mapping[str, Any], subsets: Mapping[str, str], label_from_id: str | None
) -> dict[str, Any]:
    duration = number(entry["duration"])
    subset = text_of(entry["subset"], empty=True)
    converted: dict[str, Any] = {
        "subset": subsets.get(subset.lower(), subset),
        "duration": duration,
    }
    if entry.get("frame") is not None:
        converted["frame"] = as_given(entry["frame"])
    elif entry.get("fps") is not None:
        converted["frame"] = round(duration * number(entry["fps"]))
    # where labels are numbered every video has a list; elsewhere one without has no ground truth
    listed = entry["annotations"] if label_from_id is not None else annotations_of(entry)
    if listed is None and label_from_id is None:
        listed = []
    annotations = []
    for source in items_of(listed):
        start, end = items_of(source["segment"])
        annotation: dict[str, Any] = {"segment": [as_given(start), as_given(end)]}
        for field in ("label", "noun", "verb"):
            if field in source:
                annotation[field] = text_of(source[field])
        if len(annotation) == 1:
            raise KeyError("label")
        if label_from_id is not None and "label_id" in source:
            annotation["label"] = label_from_id.format(int(number(source["label_id"])))
        annotations.append(annotation)
    return converted | {"annotations": annotations}
