"""Detections in the published form, made by one room and read by several: their type, their file.

{"version": ..., "results": {video: [{"segment": [start, end], "label": ..., "score": ...}]}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionformer.errors import InputError
from actionformer.files.reading import read_json

# {"segment": [start, end] in seconds, "label", "score"}; of actions with "verb" and "noun" for
# label
Detection = Mapping[str, Any]
# video -> its detections
Results = Mapping[str, Sequence[Detection]]


@dataclass(frozen=True, eq=False)
class DetectionArrays(Sequence[dict[str, Any]]):
    """The detections of one video as arrays, which reads like the list of them.

    What evaluates takes the arrays themselves: in a list of a million detections, making and
    taking apart the list would take longer than scoring them.
    """

    segments_N2: NDArray[np.float64]
    scores_N: NDArray[np.float64]
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        segments, scores = self.segments_N2.tolist(), self.scores_N.tolist()
        for segment, label, score in zip(segments, self.labels, scores, strict=True):
            yield {"segment": segment, "label": label, "score": score}


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
        if isinstance(found, DetectionArrays):
            continue
        is_list = isinstance(found, Sequence) and not isinstance(found, str)
        # by their types, which are few: there can be a million detections
        kinds = set(map(type, found)) if is_list else {str}
        if not all(issubclass(kind, Mapping) for kind in kinds):
            wrong = f"video '{video}': expected a list of detections, each an object"
            raise InputError(f"{where}: {wrong}")
    return content
