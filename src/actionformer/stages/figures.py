"""Figures: of finished runs, of one video, and of any detections against any database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actionformer import layout
from actionformer.data.annotations import Database, load_database
from actionformer.data.detections import read_results
from actionformer.errors import InputError
from actionformer.evaluation.summary import diagnosis_of, evaluated_text, metrics_of
from actionformer.files.md5 import file_md5
from actionformer.files.reading import read_object
from actionformer.files.writing import write_bytes, write_json, write_text
from actionformer.metrics_file import read_metrics
from actionformer.params import keys
from actionformer.params.experiment import EvaluationParams, Experiment
from actionformer.progress import progress
from actionformer.reporting import diagnosis_text, report, tables
from actionformer.reporting.figures import of_row, primitives
from actionformer.reporting.figures.primitives import EvaluatedRun, Figure
from actionformer.reporting.figures.what_happens_when import (
    Timeline,
    chosen_videos,
    timelines,
    usual_score,
)
from actionformer.reporting.figures.why_wrong import confused_videos
from actionformer.stages import inputs
from actionformer.stages.shown import Shown
from actionformer.training.history import read_history


def draw(
    experiment: Experiment,
    seeds: Sequence[int],
    *,
    videos: Sequence[str] = (),
    released: bool = True,
) -> str:
    """Draw a row's figures, and those of each of its runs, from the files of its runs.

    A row's figure is a specification (.json), which the report shows, and a picture of it (.svg), a
    run's a picture. Says what it wrote.

    Args:
        videos: shown in the timelines, before the worst and best.
        released: with the score of the published checkpoint.
    """
    database = inputs.database_of(experiment)
    runs = [_figure_run(experiment, seed) for seed in seeds]
    drawn = _figures(experiment, database, runs, videos=videos, released=released)
    folder = layout.figures(experiment)
    for figure in progress(drawn, f"figures of {experiment.name}", unit="figure"):
        # not `asdict`, which copies every point of a plot one by one
        write_json(folder / f"{figure.name}.json", vars(figure), indent=None)
        write_text(folder / f"{figure.name}.svg", primitives.svg(figure.spec))
    for run in progress(runs, f"figures of the seeds of {experiment.name}", unit="seed"):
        own = layout.figures_of_run(layout.run(experiment.edition, experiment.name, run.seed))
        if len(runs) == 1:  # they are those of the row
            for figure in drawn:
                picture = (folder / f"{figure.name}.svg").read_text(encoding="utf-8")
                write_text(own / f"{figure.name}.svg", picture)
            continue
        for figure in _figures(experiment, database, [run], videos=videos, released=released):
            write_text(own / f"{figure.name}.svg", primitives.svg(figure.spec))
    made = keys.plain_record("draw", [keys.shown(experiment)])
    figures_md5 = {figure.name: file_md5(folder / f"{figure.name}.json") for figure in drawn}
    of_row = Shown([experiment], seeds, released, remark="", videos=videos)
    read = []
    for seed in seeds:
        folder_of_run = layout.run(experiment.edition, experiment.name, seed)
        read += [folder_of_run / name for name in ("diagnosis.json", "detections.json")]
    record = {"figures": figures_md5, "made_with": made, **of_row.as_record(read)}
    write_json(layout.manifest(folder), record)
    return f"{folder}: {len(drawn)} figures"


def figures_of(of_row: Shown) -> list[Figure]:
    """The figures of a row, from the files of its runs."""
    (experiment,) = of_row.experiments
    database = inputs.database_of(experiment)
    runs = [_figure_run(experiment, seed) for seed in of_row.seeds]
    return _figures(experiment, database, runs, videos=of_row.videos, released=of_row.released)


def _figures(
    experiment: Experiment,
    database: Database,
    runs: Sequence[EvaluatedRun],
    *,
    videos: Sequence[str],
    released: bool,
) -> list[Figure]:
    """The figures of these runs; timelines are those of the first."""
    first = layout.run(experiment.edition, experiment.name, runs[0].seed)
    results = read_results(first / "detections.json")
    checkpoint = None
    # the demo's checkpoints know nothing: beside its curves they would only confuse
    if released and experiment.released is not None and experiment.comparable:
        metrics = read_metrics(layout.released_run(experiment) / "metrics.json")
        checkpoint = (tables.checkpoint(experiment), metrics.get("percent", {}))
    drawn = of_row.row_figures(
        runs,
        ours=tables.ours(experiment),
        published=experiment.expect.published if experiment.comparable else {},
        checkpoint=checkpoint,
        videos=chosen_videos(
            database,
            results,
            runs[0].diagnosis["videos"],
            first=videos,
            also=confused_videos(runs),
        ),
        classes=database.classes,
        min_score=usual_score(results, runs[0].metrics["instances"]),
    )
    assert tuple(figure.name for figure in drawn) == layout.FIGURES
    return drawn


def _figure_run(experiment: Experiment, seed: int) -> EvaluatedRun:
    folder = layout.run(experiment.edition, experiment.name, seed)
    history = read_history(folder / "history.csv")
    metrics = read_metrics(folder / "metrics.json")
    return EvaluatedRun(seed, history, metrics, read_object(folder / "diagnosis.json"))


def timeline(
    experiment: Experiment, seed: int, video: str, *, min_score: float | None, out: Path
) -> None:
    """Draw ground truth and detections of one evaluated video.

    Args:
        min_score: from this score on; as many detections as there is ground truth, if None.
        out: png, svg or pdf.
    """
    if out.suffix not in primitives.WRITERS:
        raise InputError(f"{out}: expected a name that ends with {', '.join(primitives.WRITERS)}")
    database = inputs.database_of(experiment)
    run = layout.run(experiment.edition, experiment.name, seed)
    results = read_results(run / "detections.json")
    if video not in results:
        known = ", ".join(sorted(results)[:5])
        raise InputError(f"no detections of video '{video}'; there are {known}, ...")
    truth = database.videos[video]
    if min_score is None:
        min_score = usual_score({video: results[video]}, len(truth.labels))
    shown = Timeline(truth, results[video])
    figure = timelines([shown], database.classes, min_score=min_score)
    write_bytes(out, primitives.WRITERS[out.suffix](figure.spec))


def report_files(
    annotations: Path,
    detections: Path,
    params: EvaluationParams,
    *,
    subset: str,
    label_field: str,
    out: Path,
) -> list[str]:
    """A report on any detections against any database; returns what it says in a terminal.

    Args:
        params: with `use_blocked_list`, the videos of the database's own blocked list are left out,
            as the published evaluation does.
    """
    database = load_database(annotations, label_field)
    results = read_results(detections)
    metrics = metrics_of(database, results, params, subset)
    blocked = database.blocked if params.use_blocked_list else frozenset()
    diagnosis = diagnosis_of(database, results, subset=subset, tiou=params.tiou, blocked=blocked)
    evaluated = evaluated_text(database, metrics, use_blocked_list=params.use_blocked_list)
    runs = [EvaluatedRun(0, [], metrics, diagnosis)]
    drawn = of_row.row_figures(
        runs,
        ours=detections.name,
        published={},
        checkpoint=None,
        videos=chosen_videos(database, results, diagnosis["videos"], also=confused_videos(runs)),
        classes=database.classes,
        min_score=usual_score(results, metrics["instances"]),
    )
    score = f"{metrics['percent']['mAP/average']:.2f}"
    facts = [
        ("annotations", str(annotations)),
        ("detections", str(detections)),
        ("evaluated", evaluated),
        ("average mAP", score),
    ]
    title = f"{detections.name} on {annotations.name}"
    section = report.Section("detections", title, facts, drawn)
    text = report.page("Diagnosis of detections", lead="", results=[], sections=[section])
    write_text(out, text)
    return [*diagnosis_text.lines(diagnosis, score, evaluated), f"written to {out}"]
