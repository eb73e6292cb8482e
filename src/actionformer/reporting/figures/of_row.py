"""All figures of a row, in the order in which a reader asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actionformer.reporting.figures import how_good, what_happens_when, why_wrong
from actionformer.reporting.figures.primitives import EvaluatedRun, Figure, described
from actionformer.reporting.figures.what_happens_when import Timeline, timelines

# name -> title and caption of every figure of a row, in their order (`layout.FIGURES`)
WORDS = how_good.WORDS | why_wrong.WORDS | what_happens_when.WORDS


def row_figures(
    runs: Sequence[EvaluatedRun],
    *,
    ours: str,
    published: Mapping[str, float],
    checkpoint: tuple[str, Mapping[str, float]] | None,
    videos: Sequence[Timeline],
    classes: Sequence[str],
    min_score: float,
) -> list[Figure]:
    """The figures of these runs; those of training where anything was trained here.

    Args:
        ours: what the numbers of these runs are called.
        published: tIoU -> published mAP in percent, and 'average'; empty where it doesn't compare.
        checkpoint: what the published checkpoint is called, and its metrics in percent, where there
            is one.
        videos: what the timelines show, in order.
        min_score: the score from which timelines show detections at first.
    """
    figures = [how_good.map_against_tiou(runs, ours, published, checkpoint)]
    if any(run.history for run in runs):
        figures += [how_good.losses(runs), how_good.validation(runs)]
    figures += [
        how_good.class_average_precision(runs),
        how_good.precision_recall(runs),
        why_wrong.calibration(runs),
        why_wrong.false_positives(runs),
        why_wrong.error_gains(runs),
        why_wrong.confusions(runs),
        why_wrong.sensitivity(runs),
        why_wrong.misses(runs),
    ]
    if videos:
        figures.append(timelines(videos, classes, min_score=min_score))
    return [described(figure) for figure in figures]
