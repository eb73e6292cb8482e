"""The stages that make what people look at, from the files of finished runs: tables, figures, reports, model cards.

Like `stages`, each reads its files, calls the code that knows how, and writes its files; `layout` says where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actionformer import keys, layout
from actionformer.data.annotations import Database, load_database
from actionformer.errors import InputError
from actionformer.evaluation.matching import read_results
from actionformer.experiment import Experiment, why_not_comparable
from actionformer.files import file_md5, read_json, write_bytes, write_json, write_text
from actionformer.progress import progress
from actionformer.reporting import figures, report, tables

SHOWN_VIDEOS = 8
"""best videos, and as many worst ones, whose timelines are drawn"""
SHOWN_DETECTIONS = 60
"""per video, or three times its ground truth where that is more"""


# ---------------------------------------------------------------------------------------------- tables


def tabulate(
    experiments: Sequence[Experiment], seeds: Sequence[int], params: Path, *, released: bool = True
) -> list[str]:
    """Write the tables that these rows belong to, with their published checkpoints if `released`; returns the texts."""
    from actionformer import tracking

    grouped: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        grouped.setdefault(experiment.table, []).append(experiment)
    texts = []
    for name, members in grouped.items():
        rows = _table_rows(members, seeds, released=released)
        table = _table(rows, params)
        folder = layout.tables(members[0].edition)
        texts.append(tables.as_markdown(table))
        write_text(folder / f"{name}.md", texts[-1])
        write_text(folder / f"{name}.csv", tables.as_csv(rows))
        write_text(folder / f"{name}.tex", tables.as_latex(table))
        write_text(folder / f"{name}.html", report.table_page(table))
        for experiment in members:
            tracking.Careful(layout.row(experiment))(tracking.log_pictures, experiment, [])
        shown = [keys.shown(experiment) for experiment in members]
        write_json(layout.manifest(folder / name), {"made_with": keys.plain_record("tabulate", shown)})
    return texts


def page(edition: str, names: Sequence[str]) -> str:
    """Put tables on one page; says what it wrote."""
    folder, parts = layout.tables(edition), []
    for name in names:
        path = folder / f"{name}.md"
        if not path.exists():
            raise InputError(f"{path}: no such table; `actionformer tabulate --table {name}` makes it")
        parts.append(path.read_text(encoding="utf-8"))
    write_text(folder / "index.md", tables.page(f"ActionFormer: results tables, {edition} edition", parts))
    return f"{folder / 'index.md'}: {len(parts)} tables"


def _table(rows: Sequence[tables.Row], params: Path) -> tables.Table:
    first = rows[0].experiment
    remark = why_not_comparable(first, params)
    return tables.table_of(first.table, first.dataset.name, rows, edition=first.edition, remark=remark)


def _table_row(experiment: Experiment, seeds: Sequence[int], *, released: bool, actions: bool) -> tables.Row:
    runs = [_table_run(experiment, experiment.name, seed) for seed in seeds]
    fused = [_table_run(experiment, layout.actions(experiment), seed) for seed in seeds if actions]
    checkpoint = None
    if released and experiment.released is not None:
        metrics = read_json(layout.released_run(experiment) / "metrics.json")
        name = layout.run_name(experiment.name, None, metrics["lineage"]["identity"])
        checkpoint = tables.Released(metrics.get("percent", {}), metrics.get("none", ""), name)
    return tables.Row(experiment, runs, checkpoint, fused)


def _table_run(experiment: Experiment, folder: str, seed: int) -> tables.Run:
    path = layout.run(experiment.edition, folder, seed) / "metrics.json"
    metrics = read_json(path)
    if "made_with" not in metrics:
        raise InputError(f"{path}: of an earlier version; `actionformer adopt` takes it over")
    lineage = metrics["lineage"]
    name = layout.run_name(experiment.name, seed, lineage["identity"], lineage.get("kind", ""))
    return tables.Run(seed, metrics["percent"], metrics["videos"], metrics["instances"], lineage, name)


def _table_rows(experiments: Sequence[Experiment], seeds: Sequence[int], *, released: bool) -> list[tables.Row]:
    """What tables say of these rows; nouns and verbs are fused where both are among them."""
    names = {experiment.name for experiment in experiments}
    return [
        _table_row(experiment, seeds, released=released, actions=experiment.actions_with in names)
        for experiment in experiments
    ]


# ---------------------------------------------------------------------------------------------- figures


def draw(experiment: Experiment, seeds: Sequence[int], *, videos: Sequence[str] = (), released: bool = True) -> str:
    """Draw a row's figures, and those of each of its runs, from the files of its runs; says what it wrote.

    A row's figure is a specification (.json), which the report shows, and a picture of it (.svg), a run's a picture.
    MLflow gets the pictures.

    Args:
        videos: shown in the timelines, before the worst and best.
    """
    from actionformer import tracking

    database = load_database(layout.database_of(experiment), experiment.data.label_field)
    runs = [_figure_run(experiment, seed) for seed in seeds]

    def figures_of(shown: Sequence[figures.EvaluatedRun]) -> list[figures.Figure]:
        """Of these runs; timelines are those of the first."""
        return _figures(experiment, database, shown, videos=videos, released=released)

    drawn = figures_of(runs)
    folder = layout.figures(experiment)
    for figure in progress(drawn, f"figures of {experiment.name}", unit="figure"):
        write_json(folder / f"{figure.name}.json", asdict(figure), indent=None)
        write_text(folder / f"{figure.name}.svg", figures.svg(figure.spec))
    for run in progress(runs, f"figures of the seeds of {experiment.name}", unit="seed"):
        own = layout.figures_of_run(layout.run(experiment.edition, experiment.name, run.seed))
        for figure in drawn if len(runs) == 1 else figures_of([run]):
            picture = (folder / f"{figure.name}.svg").read_text() if len(runs) == 1 else figures.svg(figure.spec)
            write_text(own / f"{figure.name}.svg", picture)
    tracking.Careful(layout.row(experiment))(tracking.log_pictures, experiment, seeds)
    made = keys.plain_record("draw", [keys.shown(experiment)])
    figures_md5 = {figure.name: file_md5(folder / f"{figure.name}.json") for figure in drawn}
    write_json(layout.manifest(folder), {"figures": figures_md5, "made_with": made})
    return f"{folder}: {len(drawn)} figures"


def _figures(
    experiment: Experiment,
    database: Database,
    runs: Sequence[figures.EvaluatedRun],
    *,
    videos: Sequence[str],
    released: bool,
) -> list[figures.Figure]:
    run = layout.run(experiment.edition, experiment.name, runs[0].seed)
    results = read_results(run / "detections.json")
    checkpoint = None
    if released and experiment.released is not None and experiment.comparable:  # the demo's know nothing
        percent = read_json(layout.released_run(experiment) / "metrics.json").get("percent", {})
        checkpoint = (tables.checkpoint(experiment), percent)
    drawn = figures.row_figures(
        runs,
        ours=tables.ours(experiment),
        published=experiment.expect.published if experiment.comparable else {},
        checkpoint=checkpoint,
        videos=chosen_videos(database, results, runs[0].diagnosis["videos"], first=videos),
        classes=database.classes,
        min_score=usual_score(results, runs[0].metrics["instances"]),
    )
    assert tuple(figure.name for figure in drawn) == layout.FIGURES
    return drawn


def _figure_run(experiment: Experiment, seed: int) -> figures.EvaluatedRun:
    folder = layout.run(experiment.edition, experiment.name, seed)
    table = pd.read_csv(folder / "history.csv")
    history = [{str(key): float(value) for key, value in row.dropna().items()} for _, row in table.iterrows()]
    return figures.EvaluatedRun(seed, history, read_json(folder / "metrics.json"), read_json(folder / "diagnosis.json"))


def chosen_videos(
    database: Database,
    results: Mapping[str, Any],
    scored: Mapping[str, Mapping[str, Any]],
    *,
    first: Sequence[str] = (),
) -> list[figures.Timeline]:
    """The videos named, then the worst, then the best, with their best detections."""
    for name in first:
        if name not in database.videos:
            raise InputError(f"no video '{name}'; there are {', '.join(sorted(scored)[:5])}, ...")
    ranked = sorted((name for name in scored if name in results), key=lambda name: (scored[name]["ap"], name))
    count = min(SHOWN_VIDEOS, (len(ranked) + 1) // 2)
    worst = [name for name in ranked[:count] if scored[name]["ap"] < 1]
    best = [name for name in reversed(ranked) if name not in worst][:SHOWN_VIDEOS]
    unseen = sorted(name for name in scored if name not in results)[:SHOWN_VIDEOS]
    remarks = dict.fromkeys(first, "chosen")
    remarks |= {name: f"worst {i + 1}" for i, name in enumerate(worst) if name not in remarks}
    remarks |= {name: f"best {i + 1}" for i, name in enumerate(best) if name not in remarks}
    remarks |= {name: "absent from the detections" for name in unseen if name not in remarks}
    shown = []
    for name, remark in remarks.items():
        kept = max(SHOWN_DETECTIONS, 3 * len(database.videos[name].labels))
        found = sorted(results.get(name, []), key=lambda d: -d["score"])[:kept]
        if found and name in scored:
            remark += f", AP {100 * scored[name]['ap']:.0f} %"
        elif not found and name not in unseen:
            remark += ", nothing detected"
        shown.append(figures.Timeline(database.videos[name], found, remark))
    return shown


def usual_score(results: Mapping[str, Sequence[Mapping[str, Any]]], instances: int) -> float:
    """The score that as many detections reach as there is ground truth, in hundredths."""
    scores = sorted((d["score"] for found in results.values() for d in found), reverse=True)
    if not scores:
        return 0.0
    return int(100 * scores[min(instances, len(scores)) - 1]) / 100


# ---------------------------------------------------------------------------------------------- reports


def write_report(
    experiments: Sequence[Experiment], seeds: Sequence[int], params: Path, *, released: bool = True
) -> str:
    """Put the tables and the drawn figures of these rows on one page; says what it wrote."""
    edition = experiments[0].edition
    rows: dict[str, list[tables.Row]] = {}
    sections = []
    for experiment, row in zip(experiments, _table_rows(experiments, seeds, released=released), strict=True):
        rows.setdefault(experiment.table, []).append(row)
        sections.append(report.Section(experiment.name, _title(experiment), _facts(row), _drawn(experiment)))
    lead = why_not_comparable(experiments[0], params)
    text = report.page(
        f"ActionFormer: {edition} edition",
        lead=lead or "Published and reproduced results of ActionFormer (ECCV 2022).",
        results=[_table(members, params) for members in rows.values()],
        sections=sections,
    )
    out = layout.report(edition)
    write_text(out, text)
    made = keys.plain_record("report", [keys.shown(experiment) for experiment in experiments])
    write_json(layout.manifest(out), {"made_with": made})
    return f"{out}: {len(rows)} tables, {len(sections)} rows, {len(text) / 1e6:.1f} MB"


def report_files(
    annotations: Path,
    detections: Path,
    *,
    subset: str,
    tiou: Sequence[float],
    label_field: str,
    use_blocked_list: bool = True,
    out: Path,
) -> list[str]:
    """A report on any detections against any database; returns what it says in a terminal.

    The videos of the database's own blocked list are left out, as the published evaluation does, unless told otherwise.
    """
    from actionformer import stages
    from actionformer.evaluation import mean_average_precision

    database = load_database(annotations, label_field)
    results = read_results(detections)
    blocked = database.blocked if use_blocked_list else frozenset()
    result = mean_average_precision(database, results, subset=subset, tiou_thresholds=tiou, blocked=blocked)
    metrics = stages.metrics_of(result) | {"subset": subset}
    diagnosis = stages.diagnosis_of(database, results, subset=subset, tiou=tiou, blocked=blocked)
    evaluated = stages.evaluated_text(database, metrics, use_blocked_list=use_blocked_list)
    drawn = figures.row_figures(
        [figures.EvaluatedRun(0, [], metrics, diagnosis)],
        ours=detections.name,
        published={},
        checkpoint=None,
        videos=chosen_videos(database, results, diagnosis["videos"]),
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
    write_text(out, report.page("Diagnosis of detections", lead="", results=[], sections=[section]))
    best = dict(zip(diagnosis["kinds"], diagnosis["counts"][0], strict=True))
    total = max(sum(best.values()), 1)
    return [
        f"average mAP {score} ({evaluated}); of each class's best detections, as many as it has ground truth:",
        *(f"  {kind:<20} {100 * count / total:5.1f} %" for kind, count in best.items()),
        "average mAP without one kind of error:",
        *(f"  {kind:<20} {100 * gain:+5.2f}" for kind, gain in diagnosis["gains"].items()),
        f"written to {out}",
    ]


def _title(experiment: Experiment) -> str:
    return f"{experiment.dataset.name}: {experiment.row}"


def _drawn(experiment: Experiment) -> list[figures.Figure]:
    found = []
    for name in layout.FIGURES:
        path = layout.figures(experiment) / f"{name}.json"
        if not path.exists():
            raise InputError(f"{path}: not drawn yet; `actionformer draw {experiment.name}` does")
        found.append(figures.Figure(**read_json(path)))
    return found


def _facts(row: tables.Row) -> list[tuple[str, str]]:
    """What a reader wants to know before the figures."""
    first = tables.records(row)[-1]
    score = tables.cell(first["reproduced"]) + (f" ± {first['std']:.2f}" if first["std"] is not None else "")
    facts = [(first["metric"], score)]
    if first["published"] is not None and row.experiment.comparable:
        facts.append(("published", tables.cell(first["published"])))
    processors = []
    for run in row.runs:
        for session in run.lineage["trained_by"]:
            processors.append(f"{session['device']}, {session['environment']['processor']}")
    return [
        *facts,
        ("evaluated", f"{first['videos']} videos, {first['instances']} instances; {first['protocol']}"),
        ("loading", first["loading"]),
        *([("remark", first["remark"])] if first["remark"] else []),
        ("seeds", first["seeds"] + ("; timelines are of the first, all else means" if row.runs[1:] else "")),
        ("data version", first["data_version"] + ("" if first["data_pinned"] else " (not pinned)")),
        ("trained", first["trained"]),
        ("trained on", "; ".join(dict.fromkeys(processors))),
        ("MLflow runs", first["mlflow_runs"]),
    ]


def write_card(experiment: Experiment, seeds: Sequence[int], params: Path) -> str:
    """Write a row's model card; says what it wrote."""
    from actionformer.reporting.model_card import model_card

    row = _table_row(experiment, seeds, released=False, actions=False)
    folders = [layout.run(experiment.edition, experiment.name, seed) for seed in seeds]
    scored = [read_json(folder / "metrics.json")["classes"] for folder in folders]
    classes = {
        label: {
            "instances": entry["instances"],
            "ap": np.mean([classes[label]["ap"] for classes in scored], axis=0).tolist(),
        }
        for label, entry in scored[0].items()
    }
    out = layout.model_card(experiment)
    write_text(out, model_card(row, classes, remark=why_not_comparable(experiment, params)))
    write_json(layout.manifest(out), {"made_with": keys.plain_record("card", [keys.on_card(experiment)])})
    return str(out)


def timeline(experiment: Experiment, seed: int, video: str, *, min_score: float | None, out: Path) -> None:
    """Draw ground truth and detections of one evaluated video."""
    writers: dict[str, Callable[[figures.Spec], bytes]] = {
        ".png": figures.png,
        ".svg": lambda spec: figures.svg(spec).encode(),
        ".pdf": figures.pdf,
    }
    if out.suffix not in writers:
        raise InputError(f"{out}: expected a name that ends with {', '.join(writers)}")
    database = load_database(layout.database_of(experiment), experiment.data.label_field)
    results = read_json(layout.run(experiment.edition, experiment.name, seed) / "detections.json")["results"]
    if video not in results:
        raise InputError(f"no detections of video '{video}'; there are {', '.join(sorted(results)[:5])}, ...")
    shown = figures.Timeline(database.videos[video], results[video])
    if min_score is None:
        min_score = usual_score({video: results[video]}, len(database.videos[video].labels))
    write_bytes(out, writers[out.suffix](figures.timelines([shown], database.classes, min_score=min_score).spec))
