"""MultiTHUMOS: THUMOS-14's videos, labelled finer.

Source: http://ai.stanford.edu/~syyeung/everymoment.html

A zip with `annotations/{Class}.txt`, lines `video start end`, and the list of classes with numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actionformer.synthetic import archives
from actionformer.synthetic.recordings import Recording
from actionformer.synthetic.writers.thumos14 import Parts


def write(root: Path, recordings: Sequence[Recording], parts: Parts) -> None:
    """Annotations of THUMOS-14's recordings and their finer actions under `root`."""
    dense: dict[str, list[str]] = {}
    for recording in recordings:
        for action in (*recording.actions, *parts[recording.name]):
            line = f"{recording.name} {action.start:.2f} {action.end:.2f}\n"
            dense.setdefault(action.label, []).append(line)
    members = {}
    for label, lines in dense.items():
        members[f"multithumos/annotations/{label}.txt"] = "".join(lines).encode()
    numbered = "".join(f"{i} {label}\n" for i, label in enumerate(sorted(dense), 1))
    members["multithumos/class_list.txt"] = numbered.encode()
    archives.write_zip(root / "multithumos/annotations/multithumos.zip", members)
    archives.write_classes(root / "multithumos/annotations/category_idx.txt", list(dense))
