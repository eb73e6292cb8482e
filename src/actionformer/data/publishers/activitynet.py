"""ActivityNet-1.3, HACS Segments and FineAction: one JSON with all subsets.

ActivityNet, http://activity-net.org/download.html (`activity_net.v1-3.min.json`):
    version, taxonomy: [{nodeId, nodeName, parentId, parentName}],
    database: {video id: {subset, duration, resolution, url, annotations: [{segment: [start, end], label}]}}
HACS Segments v1.1.1, https://github.com/hangzhaomit/HACS-dataset (`HACS_v1.1.1/HACS_segments_v1.1.1.json`):
    database: {video id: {subset, duration (a string), url, annotations: [{segment, label}]}}
FineAction, https://github.com/Richard-61/FineAction (`annotations_gt.json`):
    database: {video: {subset, filename, actual_frame_num, duration, annotations: [{segment, label, label_id}]}};
    the page describes the file in words only, so `duration` and the annotations' keys are taken from its readers

Subsets: training, validation, testing (no annotations). Times are seconds, names come without `v_`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actionformer.errors import InputError
from actionformer.files import read_json


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database from the JSON file, in its order; fields that nothing reads are left behind."""
    database: dict[str, Any] = {}
    for path in paths:
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
            raise InputError(f"{path}: expected a JSON object with the key 'database'")
        for video, entry in content["database"].items():
            try:
                database[video] = {
                    "subset": entry["subset"],
                    "duration": float(entry["duration"]),
                    "annotations": [
                        {"segment": annotation["segment"], "label": annotation["label"]}
                        for annotation in entry.get("annotations", [])
                    ],
                }
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path}: video '{video}': missing or malformed key ({error})") from None
    return {"database": database}
