"""Detections in the published form, made by one room and read by several: their type, their file.

{"version": ..., "results": {video: [{"segment": [start, end], "label": ..., "score": ...}]}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actionformer.errors import InputError
from actionformer.files import read_json

# {"segment": [start, end] in seconds, "label", "score"}; of actions with "verb" and "noun" for
# label
Detection = Mapping[str, Any]
# video -> its detections
Results = Mapping[str, Sequence[Detection]]


def read_results(given: Results | Mapping[str, Any] | Path | str) -> Results:
    """Video -> detections, from a result file or what it holds.

    Raises:
        InputError: anything but lists of objects.
    """
    where = str(given) if isinstance(given, Path | str) else "detections"
    content: Any = read_json(Path(given)) if isinstance(given, Path | str) else given
    if isinstance(content, Mapping) and "results" in content:
        content = content["results"]
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected a JSON object with the key 'results'")
    for video, found in content.items():
        is_list = isinstance(found, Sequence) and not isinstance(found, str)
        # by their types, which are few: there can be a million detections
        kinds = set(map(type, found)) if is_list else {str}
        if not all(issubclass(kind, Mapping) for kind in kinds):
            wrong = f"video '{video}': expected a list of detections, each an object"
            raise InputError(f"{where}: {wrong}")
    return content
