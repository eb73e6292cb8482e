"""MultiTHUMOS: THUMOS-14's videos, labelled finer.

Source: http://ai.stanford.edu/~syyeung/everymoment.html

A zip with `annotations/{Class}.txt`, lines `video start end`, and the list of classes with numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actionformer.synthetic import archives
from actionformer.synthetic.writers import thumos14
from actionformer.synthetic.writers.thumos14 import Parts


def write_demo(root: Path, labelled: Parts) -> None:
    """MultiTHUMOS' files of the demo edition under `root`; the features are THUMOS-14's."""
    write(root, labelled, (*thumos14.CLASSES, *thumos14.PARTS))


def write(root: Path, labelled: Parts, classes: Sequence[str]) -> None:
    """Annotations of THUMOS-14's videos under `root`.

    Args:
        labelled: video -> all that MultiTHUMOS labels in it.
    """
    folder = root / "multithumos/annotations"
    dense: dict[str, list[str]] = {}
    for video, actions in labelled.items():
        for action in actions:
            line = f"{video} {action.start:.2f} {action.end:.2f}\n"
            dense.setdefault(action.label, []).append(line)
    members = {}
    for label, lines in dense.items():
        members[f"multithumos/annotations/{label}.txt"] = "".join(lines).encode()
    numbered = "".join(f"{i} {label}\n" for i, label in enumerate(sorted(classes), 1))
    members["multithumos/class_list.txt"] = numbered.encode()
    archives.write_archive(folder / "multithumos.zip", sorted(members.items()))
    archives.write_classes(folder / "category_idx.txt", classes)
