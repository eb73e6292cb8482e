"""A diagnosis in a few lines, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# how many pairs of confused classes are told
PAIRS = 5


def lines(diagnosis: Mapping[str, Any], score: str, evaluated: str) -> list[str]:
    """What the best detections are, and what each kind of error costs.

    Args:
        score: the average mAP, as it is written.
        evaluated: how much was evaluated, in words.
    """
    # the first split: of each class as many detections as it has ground truth
    best = dict(zip(diagnosis["kinds"], diagnosis["counts"][0], strict=True))
    total = max(sum(best.values()), 1)
    of_each = "of each class's best detections, as many as it has ground truth:"
    said = [f"average mAP {score} ({evaluated}); {of_each}"]
    for kind, count in best.items():
        said.append(f"  {kind:<20} {100 * count / total:5.1f} %")
    said.append("average mAP without one kind of error, or with no ground truth missed:")
    for kind, gain in diagnosis["gains"].items():
        said.append(f"  {kind:<20} {100 * gain:+5.2f}")
    if "missed_gain" in diagnosis:
        said.append(f"  {'missed ground truth':<20} {100 * diagnosis['missed_gain']:+5.2f}")
    for pair in diagnosis.get("confusions", [])[:PAIRS]:
        said.append(f"{pair['truth']} taken for {pair['detected']}: {pair['count']}")
    return said
