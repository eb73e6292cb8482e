"""What people look at, from the files of finished runs: tables, figures, reports, model cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from actionformer import layout
from actionformer.data.annotations import Database, load_database
from actionformer.data.detections import read_results
from actionformer.errors import InputError
from actionformer.evaluation.summary import diagnosis_of, evaluated_text, metrics_of
from actionformer.files import file_md5, read_json, write_bytes, write_json, write_text
from actionformer.params import keys
from actionformer.params.experiment import EvaluationParams, Experiment
from actionformer.params.files import why_not_comparable
from actionformer.progress import progress
from actionformer.reporting import diagnosis_text, report, table_forms, tables
from actionformer.reporting.figures import of_row, primitives
from actionformer.reporting.figures.primitives import EvaluatedRun, Figure
from actionformer.reporting.figures.what_happens_when import (
    Timeline,
    chosen_videos,
    timelines,
    usual_score,
)
from actionformer.reporting.figures.why_wrong import confused_videos
from actionformer.reporting.model_card import model_card
from actionformer.stages import inputs

# ------------------------------------------------------------------------------------------ tables


def tabulate(
    experiments: Sequence[Experiment], seeds: Sequence[int], params: Path, *, released: bool = True
) -> list[str]:
    """Write the tables that these rows belong to; returns their texts.

    Args:
        released: with the published checkpoints.
    """
    grouped: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        grouped.setdefault(experiment.table, []).append(experiment)
    texts = []
    for name, members in grouped.items():
        rows = _table_rows(members, seeds, released=released)
        table = _table(rows, params)
        folder = layout.tables(members[0].edition)
        texts.append(table_forms.as_markdown(table))
        write_text(folder / f"{name}.md", texts[-1])
        write_text(folder / f"{name}.csv", table_forms.as_csv(rows))
        write_text(folder / f"{name}.tex", table_forms.as_latex(table))
        write_text(folder / f"{name}.html", report.table_page(table))
        for experiment in members:
            _log_pictures(experiment, [])
        made = keys.plain_record("tabulate", [keys.shown(member) for member in members])
        write_json(layout.manifest(folder / name), {"made_with": made})
    return texts


def page(edition: str, names: Sequence[str]) -> str:
    """Put tables on one page; says what it wrote."""
    folder = layout.tables(edition)
    parts = []
    for name in names:
        path = folder / f"{name}.md"
        if not path.exists():
            maker = f"actionformer tabulate --table {name}"
            raise InputError(f"{path}: no such table; `{maker}` makes it")
        parts.append(path.read_text(encoding="utf-8"))
    title = f"ActionFormer: results tables, {edition} edition"
    write_text(folder / "index.md", table_forms.page(title, parts))
    return f"{folder / 'index.md'}: {len(parts)} tables"


def _table(rows: Sequence[tables.Row], params: Path) -> tables.Table:
    first = rows[0].experiment
    remark = why_not_comparable(first, params)
    return tables.table_of(
        first.table, first.dataset.name, rows, edition=first.edition, remark=remark
    )


def _table_rows(
    experiments: Sequence[Experiment], seeds: Sequence[int], *, released: bool
) -> list[tables.Row]:
    """What tables say of these rows; nouns and verbs are fused where both are among them."""
    names = {experiment.name for experiment in experiments}
    rows = []
    for experiment in experiments:
        actions = experiment.actions_with in names
        rows.append(_table_row(experiment, seeds, released=released, actions=actions))
    return rows


def _table_row(
    experiment: Experiment, seeds: Sequence[int], *, released: bool, actions: bool
) -> tables.Row:
    runs = [_table_run(experiment, experiment.name, seed) for seed in seeds]
    fused = []
    if actions:
        fused = [_table_run(experiment, layout.actions(experiment), seed) for seed in seeds]
    checkpoint = None
    if released and experiment.released is not None:
        metrics = read_json(layout.released_run(experiment) / "metrics.json")
        name = layout.run_name(experiment.name, None, metrics["lineage"]["identity"])
        percent, why_none = metrics.get("percent", {}), metrics.get("none", "")
        checkpoint = tables.Released(percent, why_none, name)
    return tables.Row(experiment, runs, checkpoint, fused)


def _table_run(experiment: Experiment, folder: str, seed: int) -> tables.Run:
    path = layout.run(experiment.edition, folder, seed) / "metrics.json"
    metrics = read_json(path)
    if "made_with" not in metrics:
        raise InputError(f"{path}: of an earlier version; `actionformer adopt` takes it over")
    lineage = metrics["lineage"]
    kind = lineage.get("kind", "")
    return tables.Run(
        seed,
        metrics["percent"],
        metrics["videos"],
        metrics["instances"],
        lineage,
        layout.run_name(experiment.name, seed, lineage["identity"], kind),
    )


# ----------------------------------------------------------------------------------------- figures


def draw(
    experiment: Experiment,
    seeds: Sequence[int],
    *,
    videos: Sequence[str] = (),
    released: bool = True,
) -> str:
    """Draw a row's figures, and those of each of its runs, from the files of its runs.

    A row's figure is a specification (.json), which the report shows, and a picture of it (.svg), a
    run's a picture. MLflow gets the pictures. Says what it wrote.

    Args:
        videos: shown in the timelines, before the worst and best.
        released: with the score of the published checkpoint.
    """
    database = inputs.database_of(experiment)
    runs = [_figure_run(experiment, seed) for seed in seeds]
    drawn = _figures(experiment, database, runs, videos=videos, released=released)
    folder = layout.figures(experiment)
    for figure in progress(drawn, f"figures of {experiment.name}", unit="figure"):
        write_json(folder / f"{figure.name}.json", asdict(figure), indent=None)
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
    _log_pictures(experiment, seeds)
    made = keys.plain_record("draw", [keys.shown(experiment)])
    figures_md5 = {figure.name: file_md5(folder / f"{figure.name}.json") for figure in drawn}
    write_json(layout.manifest(folder), {"figures": figures_md5, "made_with": made})
    return f"{folder}: {len(drawn)} figures"


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
        metrics = read_json(layout.released_run(experiment) / "metrics.json")
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
    history = []
    for _, row in pd.read_csv(folder / "history.csv").iterrows():
        history.append({str(key): float(value) for key, value in row.dropna().items()})
    metrics = read_json(folder / "metrics.json")
    return EvaluatedRun(seed, history, metrics, read_json(folder / "diagnosis.json"))


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


# ----------------------------------------------------------------------------------------- reports


def write_report(
    experiments: Sequence[Experiment], seeds: Sequence[int], params: Path, *, released: bool = True
) -> str:
    """Put the tables and the drawn figures of these rows on one page; says what it wrote."""
    edition = experiments[0].edition
    grouped: dict[str, list[tables.Row]] = {}
    sections = []
    for row in _table_rows(experiments, seeds, released=released):
        experiment = row.experiment
        grouped.setdefault(experiment.table, []).append(row)
        title = f"{experiment.dataset.name}: {experiment.row}"
        facts = report.facts(row)
        sections.append(report.Section(experiment.name, title, facts, _drawn(experiment)))
    lead = why_not_comparable(experiments[0], params)
    text = report.page(
        f"ActionFormer: {edition} edition",
        lead=lead or "Published and reproduced results of ActionFormer (ECCV 2022).",
        results=[_table(rows, params) for rows in grouped.values()],
        sections=sections,
    )
    out = layout.report(edition)
    write_text(out, text)
    made = keys.plain_record("report", [keys.shown(experiment) for experiment in experiments])
    write_json(layout.manifest(out), {"made_with": made})
    size = f"{len(text) / 1e6:.1f} MB"
    return f"{out}: {len(grouped)} tables, {len(sections)} rows, {size}"


def _drawn(experiment: Experiment) -> list[Figure]:
    found = []
    for name in layout.FIGURES:
        path = layout.figures(experiment) / f"{name}.json"
        if not path.exists():
            maker = f"actionformer draw {experiment.argument}"
            raise InputError(f"{path}: not drawn yet; `{maker}` does")
        found.append(Figure(**read_json(path)))
    return found


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


def write_card(experiment: Experiment, seeds: Sequence[int], params: Path) -> str:
    """Write a row's model card; says what it wrote."""
    row = _table_row(experiment, seeds, released=False, actions=False)
    per_seed = []
    for seed in seeds:
        run = layout.run(experiment.edition, experiment.name, seed)
        per_seed.append(read_json(run / "metrics.json")["classes"])
    out = layout.model_card(experiment)
    text = model_card(row, per_seed, remark=why_not_comparable(experiment, params))
    write_text(out, text)
    made = keys.plain_record("card", [keys.on_card(experiment)])
    write_json(layout.manifest(out), {"made_with": made})
    _describe_model(experiment, text)
    return str(out)


# ------------------------------------------------------------------------------------------ MLflow
# It takes seconds to import, which the commands that don't log need not wait for.


def _log_pictures(experiment: Experiment, seeds: Sequence[int]) -> None:
    from actionformer import tracking

    tracking.Careful(layout.row(experiment))(tracking.log_pictures, experiment, seeds)


def _describe_model(experiment: Experiment, card: str) -> None:
    from actionformer import tracking

    tracking.Careful(layout.row(experiment))(tracking.describe, experiment, card)


def track(results: Path, stamp: Path | None, generation: int) -> str:
    """Bring finished run folders into MLflow, where it lacks them; says how many.

    Args:
        stamp: a file to write when it is done, for the workflow; keeps the `generation`.
    """
    from actionformer import tracking

    count = tracking.restore(results)
    if stamp is not None:
        write_json(stamp, {"generation": generation})
    return f"{count} runs brought into MLflow"


def runs(edition: str, address: str) -> str:
    """The addresses under which `mlflow ui` lists and compares the runs of every table."""
    from actionformer import tracking

    lines = tracking.addresses(edition, address.rstrip("/"))
    none = f"no run of the {edition} edition in MLflow; `actionformer track` brings them in"
    return "\n".join(lines) or none
