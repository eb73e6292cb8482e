"""MultiTHUMOS: dense labels of the THUMOS-14 videos, one text file per class.

Publisher: Yeung et al., "Every Moment Counts", IJCV 2018, http://ai.stanford.edu/~syyeung/everymoment.html
(`multithumos.zip`: `multithumos/annotations/{Class}.txt`, `class_list.txt`, `README`). One file per
class for both subsets; a line is

    video name   start (s)   end (s)          `video_test_0000028 54.77 54.87`

Durations come from the same csv as those of THUMOS-14. The name tells the subset, as there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actionformer.data.publishers import thumos14


def convert(paths: list[Path]) -> dict[str, Any]:
    """Database from the class files (zip or folder) and one csv of durations; every instance is kept."""
    return thumos14.convert(paths, drop_past_end=False)
