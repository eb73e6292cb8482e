"""How much of a row's numbers is luck with the evaluated videos: intervals, from its detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actionformer import layout
from actionformer.data.annotations import Database
from actionformer.data.detections import read_results
from actionformer.evaluation.bootstrap import DRAWS, Interval, chance
from actionformer.evaluation.matching import Matched, match
from actionformer.files.md5 import file_md5
from actionformer.files.writing import write_json
from actionformer.metrics_file import read_metrics
from actionformer.params import keys
from actionformer.params.experiment import Experiment
from actionformer.stages import inputs


def bootstrap(experiment: Experiment, seeds: Sequence[int], *, released: bool) -> str:
    """Write the intervals of a row's mAP and of its distance to the published checkpoint's.

    Says what it wrote. Of the published numbers there is no interval of this kind: nobody but their
    authors has the detections.

    Args:
        released: with the published checkpoint, if it is the row's own.
    """
    content = row_chance(experiment, seeds, released=released)
    out = layout.bootstrap(experiment)
    write_json(out, content)
    return f"{out}: {DRAWS} draws of {content['videos']} videos"


def row_chance(experiment: Experiment, seeds: Sequence[int], *, released: bool) -> dict[str, Any]:
    """What bootstrap.json says of a row."""
    database = inputs.database_of(experiment)
    read = []
    for seed in seeds:
        run = layout.run(experiment.edition, experiment.name, seed)
        read.append(inputs.existing(run / "detections.json", f"detect {experiment.argument}"))
    detectors = [_matched(experiment, database, path) for path in read]
    other = None
    if released and _has_released(experiment):
        read.append(layout.released_run(experiment) / "detections.json")
        other = _matched(experiment, database, read[-1])
    scores, differences = chance(detectors, other, experiment.evaluation.tiou)
    return {
        "draws": DRAWS,
        "videos": len(detectors[0].videos),
        "seeds": list(seeds),
        "released": other is not None,
        "mAP": _percent(scores),
        "less_released_checkpoint": _percent(differences),
        "made_of": {path.as_posix(): file_md5(path) for path in read},
        "made_with": keys.plain_record("bootstrap", [keys.shown(experiment)]),
    }


def _has_released(experiment: Experiment) -> bool:
    """Was a checkpoint published with this row that is its own?"""
    if experiment.released is None:
        return False
    return "none" not in read_metrics(layout.released_run(experiment) / "metrics.json")


def _matched(experiment: Experiment, database: Database, detections: Path) -> Matched:
    blocked = database.blocked if experiment.evaluation.use_blocked_list else frozenset()
    subset = experiment.dataset.eval_subset
    return match(database, read_results(detections), subset=subset, blocked=blocked)


def _percent(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    found = {}
    for key, interval in intervals.items():
        found[key] = {name: 100 * value for name, value in asdict(interval).items()}
    return found
